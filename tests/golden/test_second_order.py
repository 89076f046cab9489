"""The Fisher and Hutchinson families equal a transcription of the functions of Gollini et al. on the same probes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench.scoring import registry

from . import nets
from .test_golden import CASES, flat

METHODS = ("grad-norm", "fisher", "fisher-pruning", "fts", "hutchinson", "hutchinson-pruning", "hts")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(CASES / "gollini_tinyres.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def network(arrays: dict[str, np.ndarray]) -> nn.Module:
    model = nets.build(json.loads(str(arrays["meta"]))["net"])
    stored = {k.partition("/")[2]: torch.from_numpy(v) for k, v in arrays.items() if k[:6] in ("param/", "buffer")}
    nets.load(model, stored)
    return model


def probes(arrays: dict[str, np.ndarray], model: nn.Module) -> Iterator[Tensor]:
    for number in range(2):
        bits = torch.from_numpy(np.unpackbits(arrays[f"probe{number}"])).bool()
        for parameter in model.parameters():
            drawn, bits = bits[: parameter.numel()], bits[parameter.numel() :]
            yield torch.where(drawn, 1.0, -1.0).double().view_as(parameter)


@pytest.mark.parametrize("method", METHODS)
def test_scores_equal_the_release(method: str, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(arrays)
    recorded = probes(arrays, model)
    home = sys.modules[registry.method_class("hutchinson").__module__]
    monkeypatch.setattr(home, "rademacher", lambda like, generator: next(recorded))
    options = {"probes": 2} if method[0] == "h" else {}
    data = [(torch.from_numpy(arrays["x0"]), torch.from_numpy(arrays["y0"]))]
    scores = pai_bench.score(model, data, method, **options)
    theirs = torch.cat([torch.from_numpy(arrays[f"{method}/{name[:-7]}"]).flatten() for name in scores]).double()
    assert ((flat(scores) - theirs).abs().max() / theirs.abs().max()).item() < 1e-6
