"""Ratios from interleaved runs: before each measured call the yardstick is measured twice, under the same load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console
from rich.table import Table

from pai_bench.core.precision import float32_products
from pai_bench.experiment import process
from pai_bench.training import compilation

STEADY = (0.93, 1.07)
"""Range for the median ratio of the yardstick to itself; outside it, the measurements beside it are not usable."""


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios and what belongs beside it."""

    name: str
    pairs: list[float]
    itself: list[float]
    """The yardstick by itself, a moment earlier."""
    unit: str
    least: float | None
    most: float | None

    def verdict(self) -> str:
        if not STEADY[0] <= statistics.median(self.itself) <= STEADY[1]:
            return "void"
        median = statistics.median(self.pairs)
        if self.least is None and self.most is None:
            return ""
        met = (self.least is None or median >= self.least) and (self.most is None or median <= self.most)
        return "met" if met else "missed"

    def cells(self) -> tuple[str, ...]:
        target = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}" if self.most else ""
        middle, itself = statistics.median(self.pairs), statistics.median(self.itself)
        spread = f"{min(self.pairs):.3g} to {max(self.pairs):.3g} of {len(self.pairs)}"
        return self.name, f"{middle:.3g} {self.unit}", spread, f"{itself:.2f}", target, self.verdict()


_ratios: list[Ratio] = []
_facts: list[tuple[str, str]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks of pai-bench")
    group.addoption("--device", default="cpu", help="where scoring is measured; cuda adds the tables of a GPU")
    group.addoption("--released", type=Path, help="a checkout of ProsPr's released code, to be measured beside ours")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark-enable", False):
        process.prepare()  # as the processes of a sweep


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Without measuring all of it runs anywhere, once and small, to see that it works.
    measuring = config.getoption("--benchmark-enable", False)
    needs = {"test_gpu.py": not measuring or config.getoption("--device", "cpu") != "cpu"}
    needs["test_released.py"] = config.getoption("--released", None) is not None
    return None if needs.get(collection_path.name, True) else True


@dataclass(frozen=True)
class Compare:
    """Runs `work` several times, each after `yardstick`, and notes the median of the paired ratios of their times.

    Processor times where one thread works, wall times on a GPU and with `wall`.
    """

    benchmark: BenchmarkFixture
    name: str
    device: torch.device

    def __call__(
        self,
        work: Callable[[], Any],
        yardstick: Callable[[], Any],
        unit: str,
        rounds: int = 7,
        *,
        least: float | None = None,
        most: float | None = None,
        wall: bool = False,
        clock: Callable[[], float] | None = None,
        inverse: bool = False,
    ) -> Any:
        if clock is None:
            clock = time.perf_counter if wall or self.device.type == "cuda" else time.process_time
        before: list[tuple[float, float]] = []
        ours: list[float] = []

        def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
            began = clock()
            result = call()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return clock() - began, result

        def prepare() -> None:
            before.append((seconds(yardstick)[0], seconds(yardstick)[0]))

        def timed() -> Any:
            took, result = seconds(work)
            ours.append(took)
            return result

        result = self.benchmark.pedantic(timed, setup=prepare, rounds=rounds, warmup_rounds=1)
        if len(ours) > 1:  # the first is a warm-up
            pairs = [mine / theirs for mine, (_, theirs) in zip(ours[1:], before[1:], strict=True)]
            pairs = [1 / pair for pair in pairs] if inverse else pairs
            itself = [first / second for first, second in before[1:]]
            _ratios.append(Ratio(self.name, pairs, itself, unit, least, most))
            self.benchmark.extra_info[unit] = statistics.median(pairs)
            self.benchmark.extra_info["verdict"] = _ratios[-1].verdict()
        return result


Fact = Callable[[str, str], None]


@pytest.fixture
def measuring(request: pytest.FixtureRequest) -> bool:
    """True if benchmarks are enabled; otherwise each runs once, at a small size."""
    return bool(request.config.getoption("--benchmark-enable"))


@pytest.fixture(autouse=True)
def ieee() -> Iterator[None]:
    """IEEE products in float32 on both sides of every ratio; PyTorch's own default is TF32 in convolutions.

    A training step of pai-bench sets the arithmetic of its recipe; the name of a measurement states it where it is
    another one.
    """
    with float32_products("ieee"):
        yield


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, measuring: bool) -> None:
    """Compile, where nothing is measured, without a C++ compiler, which may not be there."""
    if not measuring:
        monkeypatch.setattr(compilation, "BACKEND", {"backend": "aot_eager"})


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device", "cpu"))


@pytest.fixture
def fact(benchmark: BenchmarkFixture) -> Fact:
    """Notes a number that is not a ratio of times."""

    def note(name: str, value: str) -> None:
        benchmark.extra_info[name] = value
        _facts.append((name, value))

    return note


@pytest.fixture
def compare(benchmark: BenchmarkFixture, request: pytest.FixtureRequest, device: torch.device) -> Compare:
    return Compare(benchmark, request.node.name.removeprefix("test_"), device)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not (_ratios or _facts) or not config.getoption("--benchmark-enable"):
        return
    terminalreporter.section(
        f"medians of interleaved pairs; torch {torch.__version__}, {torch.get_num_threads()} thread,"
        " IEEE float32 unless named"
    )
    table = Table("what", "ratio", "pairs", "A/A", "target", "", box=None)
    for ratio in _ratios:
        table.add_row(*ratio.cells())
    facts = Table("what", "value", box=None)
    for name, value in _facts:
        facts.add_row(name, value)
    console = Console(width=150, no_color=True, markup=False)
    with console.capture() as capture:
        for shown in (table, facts):
            if shown.row_count:
                console.print(shown)
                console.print()
    terminalreporter.write(capture.get())
    if _ratios:
        terminalreporter.write_line(
            f"A/A is the yardstick by itself; where it leaves {STEADY[0]} to {STEADY[1]} the row is void."
        )
