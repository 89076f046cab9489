"""What a running sweep shows: a live bar on a terminal, a quiet line now and then in a log. All on stderr."""

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

if TYPE_CHECKING:  # what shows a status shows durations too, and must not wait for torch
    from pai_bench.experiment.runner import Run

QUIET_SECONDS = 30.0

NARROWEST_BAR, WIDEST_BAR = 10, 30
"""Columns."""


@dataclass
class _Running:
    """A cell that runs here: the time it began, and what is known of its epochs."""

    began: float
    what: str = "starting"
    training_since: float | None = None
    first: int = 0
    """The first epoch that ended here; earlier ones are from a checkpoint."""
    epoch: int = 0
    epochs: int | None = None
    epoch_ended: float = 0.0

    def going(self, kind: pace.Kind, now: float) -> pace.Going:
        each = None
        if self.epoch and self.training_since is not None:
            each = (self.epoch_ended - self.training_since) / (self.epoch - self.first + 1)
        return pace.Going(kind, now - self.began, self.epoch, self.epochs, each)


def _kind(run: Run) -> pace.Kind:
    return run.cell.dataset, run.cell.model, run.recipe.name


class Progress:
    """Counts cells and shows how far the sweep is; a context manager and the Observer of a Pool."""

    def __init__(self, total: int, console: Console, todo: Iterable[Run] = ()) -> None:
        """`total` cells are waited for; `todo` are those of them that are to be run here."""
        self.total = total
        self.console = console
        self.n_done = 0
        self.n_elsewhere = 0
        """Of those done, how many others have done."""
        self.n_failed = 0
        self.causes: dict[Run, str] = {}
        self.unwritten: str | None = None
        """Why results cannot be written, if so."""
        self._others: set[Run] = set()
        self._running: dict[Run, _Running] = {}
        self._most = 1
        """Cells that have run here at the same time."""
        self._waiting = Counter(map(_kind, todo))
        """Cells to run here that have not begun, by kind."""
        self._seconds: defaultdict[pace.Kind, list[float]] = defaultdict(list)
        """Durations of the cells that were done here."""
        self._end: float | None = None
        """The time at which all is expected to be done, as of the last event."""
        self._drawn: list[int] = []
        """Columns of each line on the terminal."""
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
        """The time left, which falls while nothing is heard of the cells; "?" before the first epoch has ended."""
        return "?" if self._end is None else duration(max(0.0, self._end - time.monotonic()))

    def _look_ahead(self) -> None:
        """Expect the end anew, from the durations of cells that were done and the epochs of those that run."""
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
        """The state in one line."""
        return f"{self._counts()}, {duration(time.monotonic() - self._began)} elapsed, ETA {self.eta()}"

    def _counts(self) -> str:
        others = f" ({len(self._others)} by others)" if self._others else ""
        running = len(self._running) + len(self._others)
        return f"{self.n_done}/{self.total} done, {running} running{others}, {self.n_failed} failed"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Bar, counts and ETA in one line, and a line for each cell that runs, as many as fit."""
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
        if folded:  # the terminal was made narrower and has folded what was drawn
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
        cell.what = phase
        if phase == "training" and cell.training_since is None:
            cell.training_since = time.monotonic()
        if phase.startswith("waiting"):
            self.console.print(f"{phase}; {run.cell} is kept in memory", highlight=False, markup=False)

    def epoch(self, run: Run, epoch: int, epochs: int) -> None:
        cell, now = self._cell(run), time.monotonic()
        cell.what = f"epoch {epoch}/{epochs}"
        cell.first = cell.first or epoch
        cell.epoch, cell.epochs, cell.epoch_ended = epoch, epochs, now
        self._look_ahead()
        self.tick()

    def done(self, run: Run, accuracy: float | None, status: str) -> None:
        cell = self._running.pop(run, None)
        self.n_done += 1
        if cell is not None:
            self._seconds[_kind(run)].append(time.monotonic() - cell.began)
        self._look_ahead()
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
        self._look_ahead()
        self.tick()

    def failed(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self._others.discard(run)
        self.n_failed += 1
        self._look_ahead()
        # The first cell of each cause is named at once; all are counted at the end.
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
        self.console.print(f"lost: {run.cell}: {cause}; it is run again", highlight=False)


def _cut(text: str, width: int, style: str = "") -> Text:
    """One line, with an ellipsis where it is too long."""
    line = Text(text, style=style, no_wrap=True, overflow="ellipsis")
    line.truncate(max(width, 1), overflow="ellipsis")
    return line
