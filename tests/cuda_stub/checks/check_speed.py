"""Checks of the tensors that 2:4 weights pass to their kernels.

The library cuSPARSELt does not run on the stub, so that its two functions are replaced.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

import pai_bench
from pai_bench.models import build
from pai_bench.speed.command import Options, run_masks


def test_two_of_four_reaches_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, passes = [], []

    def compress(weight: Tensor) -> Tensor:
        assert weight.is_cuda and weight.is_contiguous() and weight.dtype == torch.bfloat16
        weights.append(tuple(weight.shape))
        return weight.new_empty(weight.numel() * 9 // 16)  # half of the values, with two bits for the place of each

    def multiply(packed: Tensor, x: Tensor, *, bias: Tensor, transpose_result: bool, alg_id: int) -> Tensor:
        assert {packed.dtype, x.dtype, bias.dtype} == {torch.bfloat16} and bias.shape == (64,) and alg_id == 0
        passes.append((packed.numel(), tuple(x.shape)))
        found = x.new_zeros(64, x.shape[1])
        return found.t() if transpose_result else found

    monkeypatch.setattr(torch, "_cslt_compress", compress)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", multiply)
    model = build("mlp-64x3", 1, 8, 10)
    data = [(torch.randn(8, 1, 8, 8), torch.arange(8))]
    pai_bench.save_masks(tmp_path / "masks.npz", pai_bench.prune(model, data, "magnitude", 0.5, granularity="2:4"))
    options = Options(("masked", "2:4"), 12, 2, 1, "cuda", "bfloat16", False, None, (), True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_masks([tmp_path / "masks.npz"], "digits", "mlp-64x3", options, Console(file=io.StringIO()))
    lines = {line["form"]: line for line in json.loads(capsys.readouterr().out)}
    # Each layer but the last, whose 10 outputs have no kernel. The 12 samples are padded to a multiple of 8.
    assert weights == [(64, 64)] * 3 and {*passes} == {(64 * 64 * 9 // 16, (64, 16))}
    assert len(passes) >= 3 * (3 + 2) and lines["2:4"]["parameters"] == lines["masked"]["parameters"] - 3 * 64 * 32
    assert lines["2:4"]["peak_bytes"] < lines["masked"]["peak_bytes"]
