"""Ratios from interleaved runs: before each measured call the yardstick is measured, under the same load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

_ratios: list[str] = []


class Compare(Protocol):
    """Runs `work` several times, each after `yardstick`, and notes the median of the paired ratios of their times."""

    def __call__(self, work: Callable[[], Any], yardstick: Callable[[], Any], unit: str, rounds: int = 7) -> Any: ...


@pytest.fixture
def measuring(request: pytest.FixtureRequest) -> bool:
    """Whether benchmarks are on; else each runs once, and should be small."""
    return bool(request.config.getoption("--benchmark-enable"))


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Compare:
    def run(work: Callable[[], Any], yardstick: Callable[[], Any], unit: str, rounds: int = 7) -> Any:
        theirs: list[float] = []
        ours: list[float] = []

        def before() -> None:
            began = time.perf_counter()
            yardstick()
            theirs.append(time.perf_counter() - began)

        def timed() -> Any:
            began = time.perf_counter()
            result = work()
            ours.append(time.perf_counter() - began)
            return result

        result = benchmark.pedantic(timed, setup=before, rounds=rounds, warmup_rounds=1)
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)][1 if len(ours) > 1 else 0 :]
        ratio = statistics.median(pairs)
        benchmark.extra_info[unit] = ratio
        if len(pairs) > 1:
            low, high = min(pairs), max(pairs)
            _ratios.append(f"{request.node.name}: {ratio:.3g} {unit} (of {len(pairs)} pairs {low:.3g} to {high:.3g})")
        return result

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _ratios:
        terminalreporter.section(f"median ratios of interleaved pairs, {torch.get_num_threads()} thread")
        for line in _ratios:
            terminalreporter.write_line(line)
