"""The live view of a sweep: one line that fits the terminal, and a time left that falls while it waits."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from rich.console import Console

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.experiment.runner import Run
from pai_bench.sweep.local import progress as module
from pai_bench.sweep.local.progress import Progress

QUICK = recipes.load("quick", "digits", "conv8")
RUNS = [Run(Cell("prospr:lr=0.1,steps=10", "digits", "conv8", 0.9, seed), QUICK) for seed in range(40)]


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def screen(width: int, height: int = 24) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, soft_wrap=True)


def drawn(progress: Progress, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(progress)
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", capture.get()).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_bar_counts_and_time_left_are_one_line_and_each_running_cell_another(width: int, clock: Clock) -> None:
    console = screen(width)
    progress = Progress(1234, console, RUNS)
    for run in RUNS[:4]:
        progress.started(run)
        progress.phase(run, "training")
    clock.now += 60
    progress.epoch(RUNS[0], 4, 12)
    lines = drawn(progress, console)
    assert len(lines) == 5 and all(len(line) < width for line in lines)
    assert lines[0].lstrip("━╸╺ ").startswith("0/1234 done, 4 running, 0 failed")
    if width >= 80:
        assert "━" in lines[0] and "ETA" in lines[0]
        assert lines[1] == "  epoch 4/12   prospr:lr=0.1,steps=10/digits/conv8/0.9/0"


def test_more_cells_than_lines_are_counted(clock: Clock) -> None:
    console = screen(80, height=10)
    progress = Progress(40, console, RUNS)
    for run in RUNS[:20]:
        progress.started(run)
    lines = drawn(progress, console)
    assert len(lines) == 8 and lines[-1] == "  … and 14 more"


def test_a_terminal_that_was_made_narrower_is_cleared_of_the_folded_lines(clock: Clock) -> None:
    progress = Progress(40, screen(80), RUNS)
    progress.started(RUNS[0])
    drawn(progress, screen(80))
    narrow = screen(40)
    with narrow.capture() as capture:
        narrow.print(progress)
    assert capture.get().count("\x1b[1A\x1b[2K") == 2 and drawn(progress, narrow)[0].startswith("0/40 done")


def test_the_time_left_counts_epochs_and_falls_while_nothing_ends(clock: Clock) -> None:
    progress = Progress(3, screen(80), RUNS[:3])
    assert progress.eta() == "?"
    progress.started(RUNS[0])
    progress.phase(RUNS[0], "training")
    clock.now += 10
    progress.epoch(RUNS[0], 1, 12)
    assert progress.eta() == "5m50s"  # 11 epochs of 10 s here, 24 of the two others
    clock.now += 30
    assert progress.eta() == "5m20s"
    clock.now += 3600
    assert progress.eta() == "0s"


def test_the_time_left_never_grows_through_a_sweep_of_even_cells(clock: Clock) -> None:
    progress = Progress(3, screen(80), RUNS[:3])
    left = []
    for run in RUNS[:3]:
        progress.started(run)
        clock.now += 5
        progress.phase(run, "training")
        for epoch in range(12):
            for _ in range(10):
                clock.now += 1
                left.append(progress._end - clock.now if progress._end is not None else 1e9)
            progress.epoch(run, epoch + 1, 12)
        progress.done(run, 0.9, "ok")
        left.append(progress._end - clock.now)
    # Scoring is learnt of when the first cell has ended, so that two of them come on top once.
    growth = [after - before for before, after in pairwise(left) if after > before]
    assert growth in ([], [10.0]) and left[-1] == 0


def test_the_pace_of_resumed_cells_excludes_earlier_epochs(clock: Clock) -> None:
    progress = Progress(1, screen(80), RUNS[:1])
    progress.started(RUNS[0])
    progress.phase(RUNS[0], "training")
    clock.now += 10
    progress.epoch(RUNS[0], 7, 12)
    assert progress.eta() == "50s"


def test_cells_of_another_kind_count_by_their_own_duration(clock: Clock) -> None:
    (longer,) = recipes.variants(QUICK, recipes.parse_settings(("train.epochs=24",)))
    others = [Run(Cell("snip", "digits", "conv8", 0.9, seed), longer) for seed in range(2)]
    progress = Progress(4, screen(80), [*RUNS[:2], *others])
    for run, seconds in ((RUNS[0], 10), (others[0], 100)):
        progress.started(run)
        clock.now += seconds
        progress.done(run, 0.9, "ok")
    assert progress.eta() == "1m50s"
    progress.started(RUNS[1])
    progress.failed(RUNS[1], "boom")
    assert progress.eta() == "1m40s"


def test_a_full_disk_is_printed_once_with_a_remedy_until_the_cell_continues(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = Progress(4, console, RUNS)
    waiting = "waiting: the results folder cannot be written to: No space left on device"
    with console.capture() as capture:
        for phase in ("loading", waiting, waiting, "training", waiting):
            progress.phase(RUNS[0], phase)
    cell = str(RUNS[0].cell)
    once = f"{waiting}\n  free disk space or correct the permissions; {cell} then continues\n"
    assert capture.get() == once * 2
