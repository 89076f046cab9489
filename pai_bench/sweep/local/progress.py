"""Progress display of a running sweep on stderr: a live bar on a terminal, or an occasional line in a log."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import mean
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from pai_bench.sweep.execution import eta as pace
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.planning.expected_cells import slug

if TYPE_CHECKING:  # `pai-bench status` imports this module and must not wait for torch
    from pai_bench.experiment.runner import Run

QUIET_SECONDS = 30.0

NARROWEST_BAR, WIDEST_BAR = 10, 30
"""Columns."""


@dataclass
class _Running:
    """A running cell of this sweep: its start time and its epochs."""

    began: float
    what: str = "starting"
    training_since: float | None = None
    first: int = 0
    """The first epoch that ended in this sweep; earlier epochs come from a checkpoint."""
    epoch: int = 0
    epochs: int | None = None
    epoch_ended: float = 0.0

    def going(self, kind: pace.Kind, now: float) -> pace.RunningCell:
        each = None
        if self.epoch and self.training_since is not None:
            each = (self.epoch_ended - self.training_since) / (self.epoch - self.first + 1)
        return pace.RunningCell(kind, now - self.began, self.epoch, self.epochs, each)


def _kind(run: Run) -> pace.Kind:
    return run.cell.dataset, run.cell.model, run.recipe.name


class Progress:
    """Counter and display of a sweep's progress; a context manager and the Observer of a Pool."""

    def __init__(self, total: int, console: Console, todo: Iterable[Run] = ()) -> None:
        """Take the number of cells of the sweep, and the runs that this process does."""
        self.total = total
        self.console = console
        self.n_done = 0
        self.n_elsewhere = 0
        """Number of cells done by other processes."""
        self.n_failed = 0
        self.causes: dict[Run, str] = {}
        self.unwritten: str | None = None
        """The reason why results cannot be written, if any."""
        self._others: set[Run] = set()
        self._running: dict[Run, _Running] = {}
        self._most = 1
        """The largest number of cells that ran here at the same time."""
        self._waiting = Counter(map(_kind, todo))
        """Number of cells to run here that have not begun, by kind."""
        self._seconds: defaultdict[pace.Kind, list[float]] = defaultdict(list)
        """Durations in seconds of the cells done here, by kind."""
        self._end: float | None = None
        """The expected end of the sweep, updated at each event."""
        self._drawn: list[int] = []
        """Width in columns of each line drawn on the terminal."""
        self._began = time.monotonic()
        self._said = self._began
        self._live = Live(console=console, get_renderable=lambda: self, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
        self._say()

    def eta(self) -> str:
        """Return the estimated time left, which counts down between events; "?" before the first epoch has ended."""
        return "?" if self._end is None else duration(max(0.0, self._end - time.monotonic()))

    def _update_end(self) -> None:
        """Update the expected end from the durations of finished cells and the epochs of running ones."""
        now = time.monotonic()
        going = [cell.going(_kind(run), now) for run, cell in self._running.items()]
        left = self.total - self.n_done - self.n_failed - len(going) - len(self._others)
        todo = list(self._waiting.elements())[: max(left, 0)]
        todo += [("", "", "")] * (left - len(todo))
        known = {kind: mean(seconds) for kind, seconds in self._seconds.items()}
        seconds = pace.seconds_left(going, todo, known, at_a_time=min(self._most, len(going) + len(todo)))
        if seconds is not None:
            self._end = now + seconds

    def line(self) -> str:
        """Return the progress in one line."""
        return f"{self._counts()}, {duration(time.monotonic() - self._began)} elapsed, ETA {self.eta()}"

    def _counts(self) -> str:
        others = f" ({len(self._others)} by others)" if self._others else ""
        running = len(self._running) + len(self._others)
        return f"{self.n_done}/{self.total} done, {running} running{others}, {self.n_failed} failed"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Render bar, counts and ETA in one line, followed by one line per running cell, as many as fit."""
        # Some terminals wrap a line that fills the last column.
        width = options.max_width - 1
        texts = [self.line(), f"{self._counts()}, ETA {self.eta()}"]
        text = next((text for text in texts if len(text) + 1 + NARROWEST_BAR <= width), texts[-1])
        bar = min(WIDEST_BAR, width - len(text) - 1)
        cells = [f"  {cell.what:<12} {slug(run.cell)}" for run, cell in self._running.items()]
        room = max(1, console.height - 3)
        if len(cells) > room:
            cells[room - 1 :] = [f"  … and {len(cells) - room + 1} more"]
        lines = [_cut(cell, width, "dim") for cell in cells]
        folded = sum(-(-length // options.max_width) - 1 for length in self._drawn if length)
        if folded:  # a terminal that was made narrower has wrapped the lines drawn before
            yield Control(*[(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * folded)
        if bar >= NARROWEST_BAR:
            done = ProgressBar(total=max(self.total, 1), completed=self.n_done + self.n_failed, width=bar)
            head = Table.grid(padding=(0, 1))
            head.add_row(done, Text(text, no_wrap=True))
            yield head
        else:
            yield _cut(text, width)
        yield from lines
        self._drawn = [min(max(bar, 0) + 1 + len(text), width), *(line.cell_len for line in lines)]

    def _say(self) -> None:
        self._said = time.monotonic()
        self.console.print(self.line(), highlight=False)

    def tick(self) -> None:
        if not self.console.is_terminal and time.monotonic() - self._said >= QUIET_SECONDS:
            self._say()

    def started(self, run: Run) -> None:
        self._others.discard(run)
        self._waiting[_kind(run)] -= 1
        self._running[run] = _Running(time.monotonic())
        self._most = max(self._most, len(self._running))

    def _cell(self, run: Run) -> _Running:
        return self._running.setdefault(run, _Running(time.monotonic()))

    def phase(self, run: Run, phase: str) -> None:
        cell = self._cell(run)
        if phase.startswith("waiting") and phase != cell.what:  # once, and not at every attempt
            remedy = f"free disk space or correct the permissions; {run.cell} then continues"
            self.console.print(f"{phase}\n  {remedy}", highlight=False, markup=False, soft_wrap=True)
        cell.what = phase
        if phase == "training" and cell.training_since is None:
            cell.training_since = time.monotonic()

    def epoch(self, run: Run, epoch: int, epochs: int) -> None:
        cell, now = self._cell(run), time.monotonic()
        cell.what = f"epoch {epoch}/{epochs}"
        cell.first = cell.first or epoch
        cell.epoch, cell.epochs, cell.epoch_ended = epoch, epochs, now
        self._update_end()
        self.tick()

    def done(self, run: Run, accuracy: float | None, status: str) -> None:
        cell = self._running.pop(run, None)
        self.n_done += 1
        if cell is not None:
            self._seconds[_kind(run)].append(time.monotonic() - cell.began)
        self._update_end()
        if status != "ok":
            measured = "" if accuracy is None else f", accuracy {100 * accuracy:.2f} %"
            self.console.print(f"{status}: {run.cell}{measured}", highlight=False)
        self.tick()

    def elsewhere(self, run: Run) -> None:
        self._running.pop(run, None)
        self._others.add(run)

    def done_elsewhere(self, run: Run) -> None:
        self._running.pop(run, None)
        self._others.discard(run)
        self.n_done += 1
        self.n_elsewhere += 1
        self._update_end()
        self.tick()

    def failed(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self._others.discard(run)
        self.n_failed += 1
        self._update_end()
        # Print only the first cell of each cause; the final summary counts them all.
        if cause not in self.causes.values():
            self.console.print(f"failed: {run.cell}: {cause}", highlight=False, markup=False)
        self.causes[run] = cause

    def unwritable(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self._others.clear()
        self.unwritten = cause

    def lost(self, run: Run, cause: str) -> None:
        if self._running.pop(run, None) is not None:
            self._waiting[_kind(run)] += 1
        self.console.print(f"lost: {run.cell}: {cause}; it will be run again", highlight=False)


def _cut(text: str, width: int, style: str = "") -> Text:
    """Truncate a line to `width` columns, with an ellipsis."""
    line = Text(text, style=style, no_wrap=True, overflow="ellipsis")
    line.truncate(max(width, 1), overflow="ellipsis")
    return line
