"""Checks of scoring: the mechanism of float64 convolutions."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

import pai_bench
from pai_bench import models
from pai_bench.pruning.granularity import units_of
from pai_bench.scoring import product_convolutions
from pai_bench.scoring.problem import prunable
from pai_bench.scoring.product_convolutions import choice, faster, fastest_convolutions, gain
from tests.cuda_stub import device
from tests.cuda_stub.checks.check_steps import CUDA
from tests.cuda_stub.device import Counts


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the measurement of the device."""
    choice.cache_clear()
    yield
    choice.cache_clear()


def wide_pass() -> None:
    x, weight = (torch.zeros(s, 64, 3, 3, dtype=torch.float64, device=CUDA, requires_grad=True) for s in (2, 64))
    with fastest_convolutions(CUDA, torch.float64):
        torch.autograd.grad(torch.nn.functional.conv2d(x, weight, padding=1).sum(), (x, weight))


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_forward_and_backward_passes_take_the_mechanism_that_was_measured(
    ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass runs in a thread of its own for the device."""
    monkeypatch.setattr(product_convolutions, "gain", lambda device: ratio)
    before = device.launched("im2col"), device.launched("col2im")
    device.convolutions.clear()
    wide_pass()
    folded = device.launched("col2im") - before[1]
    assert (folded, len(device.convolutions)) == ((0, 2) if ratio == 1 else (1, 0))


def test_the_device_is_measured_once_in_a_process() -> None:
    wide_pass()
    before = Counts.now()
    wide_pass()
    assert Counts.now().since(before).waits == 0
    assert faster(torch.device("cuda")) == faster(torch.device("cuda", 0)) and choice.cache_info().misses == 1


def test_the_measurement_waits_for_the_device() -> None:
    """A convolution of the stub is three kernels; products launch more, all of the same duration."""
    with device.seconds(kernel=0.002):
        began = time.perf_counter()
        found = gain(CUDA, [(64, 8)], images=2)
        assert time.perf_counter() - began > 0.1
    assert 0.1 < found < 0.8


@pytest.mark.parametrize("method", ["snip", "grasp", "prospr"])
def test_methods_run_with_products(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_convolutions, "gain", lambda device: 2.0)
    monkeypatch.setattr(product_convolutions, "CHANNELS", 8)
    model = models.build("conv8", 3, 8, 10).to(CUDA)
    data = [(torch.zeros(4, 3, 8, 8, device=CUDA), torch.zeros(4, dtype=torch.long, device=CUDA))] * 4
    device.convolutions.clear()
    folded = device.launched("col2im")
    pai_bench.score(model, data, method)
    # Only the first layer, of three channels, has not been a matrix product.
    assert {shape[1] for shape in device.convolutions} == {3} and device.launched("col2im") > folded


def test_channels_of_a_network_on_a_gpu_are_found_and_removed() -> None:
    """Constants of channels are on the CPU, and so must be the weights that they are compared with."""
    model = models.build("conv8", 3, 8, 10).to(CUDA)
    x = torch.zeros(2, 3, 8, 8, device=CUDA)
    weights = prunable(model)
    units = units_of("channel", model, weights, x)
    assert units is not None and units.channels is not None and set(units.channels.rows) == set(weights)
    smaller = pai_bench.shrink(model, {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}, x)
    assert {tensor.device.type for tensor in smaller.state_dict().values()} == {"cuda"}


REHEARSAL = """
import torch
import pai_bench
from tests.cuda_stub import rehearsal
from pai_bench import models

# Masks of ones must not depend on what the memory contained before, because no kernel fills it.
used = (torch.arange(1 << 14) % 3 > 0).to("cuda")
like = torch.empty_like(used)
del used
assert torch.ones_like(like).cpu().all()

model = models.build("conv8", 3, 8, 10).to("cuda")
data = [(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))]
for granularity in ("weight", "channel"):
    masks = pai_bench.prune(model, data, "snip", sparsity=0.6, granularity=granularity)
    assert all(mask.is_cuda for mask in masks.values())
"""


def test_scoring_can_be_rehearsed() -> None:
    """In another process, because the rehearsal of tests/gpu.py replaces functions for good."""
    done = subprocess.run([sys.executable, "-c", REHEARSAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
