"""DPaI moves its scores as a transcription of the authors' functions does, from the same initial scores."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

import pai_bench
from pai_bench.scoring import registry

from .test_golden import CASES


def test_scores_after_many_steps_equal_the_transcription(monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(CASES / "dpai_chain.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays["meta"]))
    first, second = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 5, 3, padding=1, stride=2, bias=False)
    # Paths do not include norms and activations.
    model = nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(45, 10))
    initial = iter(torch.from_numpy(arrays[f"score_init/{i}"]).double() for i in range(3))
    home = sys.modules[registry.method_class("dpai").__module__]
    monkeypatch.setattr(home, "gaussian", lambda like, generator: next(initial))
    # The release rounds the number of zeros of a layer down.
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1}
    kept = {name: size - zeros for (name, size), zeros in zip(sizes.items(), meta["zeros"], strict=True)}
    monkeypatch.setattr(registry.method_class("dpai"), "quotas", lambda self, problem: kept)
    data = [(torch.rand(2, 3, 6, 6), torch.arange(2))]
    scores = pai_bench.score(model, data, "dpai", steps=meta["steps"])
    for position, (name, count) in enumerate(kept.items()):
        theirs = torch.from_numpy(arrays[f"score/{position}"])
        # Where the gradient is zero, the release's divisions leave rounding noise, whose sign Adam follows.
        differences = (scores[name] - theirs).abs()
        assert (differences < 1e-9).double().mean() > 0.5 and differences.max() < 0.005
        ours, others = (set(s.flatten().topk(count).indices.tolist()) for s in (scores[name], theirs))
        assert ours == others
    assert float(np.ptp(arrays["log_paths"])) > 0.1  # the masks have changed on the way
