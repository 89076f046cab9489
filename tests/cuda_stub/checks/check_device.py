"""Checks of the stub itself: its counters, its refusals and its delays."""

from __future__ import annotations

import time

import pytest
import torch

from tests.cuda_stub import device
from tests.cuda_stub.device import Counts


def test_kernels_and_graphs_are_counted() -> None:
    x = torch.zeros(8, device="cuda")
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    before = Counts.now()
    x.add_(1).mul_(2)
    assert Counts.now().since(before).launches == 2
    with torch.cuda.graph(graph, stream=stream):
        x.add_(1).mul_(2).sub_(1)
    found = Counts.now().since(before)
    assert (found.graph_launches, found.graph_nodes) == (0, 3)
    graph.replay()
    assert Counts.now().since(before).graph_launches == 1


def test_reading_a_value_invalidates_a_capture() -> None:
    x = torch.zeros((), device="cuda")
    # The outer context restores the current stream, which torch.cuda.graph does not do after a failed capture.
    with (
        pytest.raises(RuntimeError, match="captur"),
        torch.cuda.stream(torch.cuda.current_stream()),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        x.item()


def test_waiting_takes_the_time_of_the_device() -> None:
    x = torch.zeros(8, device="cuda")
    with device.seconds(kernel=0.5):
        began = time.perf_counter()
        x.add_(1)
        enqueued = time.perf_counter() - began
        torch.cuda.current_stream().synchronize()
    assert enqueued < 0.5 <= time.perf_counter() - began


def test_an_illegal_access_fails_every_later_call() -> None:
    x = torch.zeros(8, device="cuda")
    with device.failing_after(1):
        x.add_(1)
        for _ in range(2):
            with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
                torch.cuda.synchronize()


def test_memory_is_limited() -> None:
    with device.memory(spare=2**20), pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**24, device="cuda")
    torch.empty(2**24, device="cuda")
