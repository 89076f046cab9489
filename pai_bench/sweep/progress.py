"""What a running sweep shows: a live bar on a terminal, a quiet line now and then in a log. All on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # what shows a status shows durations too, and must not wait for torch
    from pai_bench.experiment import Run

QUIET_SECONDS = 30.0


def duration(seconds: float) -> str:
    """Seconds as 42s, 3m05s, 2h07m, or from two days on as 2.5 days or 117 days."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 2 * 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    days = whole / 86400
    return f"{days:,.0f} days" if days >= 10 else f"{round(days, 1):g} days"


class Progress:
    """Counts cells and shows how far the sweep is; a context manager and the Observer of a Pool."""

    def __init__(self, total: int, console: Console) -> None:
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
        self._running: dict[Run, str] = {}
        self._began = time.monotonic()
        self._said = self._began
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

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
        """The time left at the rate so far; "?" before the first cell has ended."""
        ended = self.n_done + self.n_failed
        if not ended:
            return "?"
        return duration((time.monotonic() - self._began) / ended * (self.total - ended))

    def line(self) -> str:
        """The state in one line."""
        elapsed = duration(time.monotonic() - self._began)
        others = f" ({len(self._others)} by others)" if self._others else ""
        return (
            f"{self.n_done}/{self.total} done, {len(self._running) + len(self._others)} running{others}, "
            f"{self.n_failed} failed, "
            f"{elapsed} elapsed, ETA {self.eta()}"
        )

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.total, completed=self.n_done + self.n_failed, width=30)
        table.add_row(bar, Text(self.line()))
        for run, what in self._running.items():
            table.add_row("", Text(f"{run.cell}: {what}", style="dim"))
        return table

    def _say(self) -> None:
        self._said = time.monotonic()
        self.console.print(self.line(), highlight=False)

    def tick(self) -> None:
        if not self.console.is_terminal and time.monotonic() - self._said >= QUIET_SECONDS:
            self._say()

    def started(self, run: Run) -> None:
        self._others.discard(run)
        self._running[run] = "starting"

    def phase(self, run: Run, phase: str) -> None:
        self._running[run] = phase
        if phase.startswith("waiting"):
            self.console.print(f"{phase}; {run.cell} is kept in memory", highlight=False, markup=False)

    def epoch(self, run: Run, epoch: int, epochs: int) -> None:
        self._running[run] = f"epoch {epoch}/{epochs}"
        self.tick()

    def done(self, run: Run, accuracy: float | None, status: str) -> None:
        self._running.pop(run, None)
        self.n_done += 1
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
        self.tick()

    def failed(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self._others.discard(run)
        self.n_failed += 1
        # The first cell of each cause is named at once; all are counted at the end.
        if cause not in self.causes.values():
            self.console.print(f"failed: {run.cell}: {cause}", highlight=False, markup=False)
        self.causes[run] = cause

    def unwritable(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self._others.clear()
        self.unwritten = cause

    def lost(self, run: Run, cause: str) -> None:
        self._running.pop(run, None)
        self.console.print(f"lost: {run.cell}: {cause}; it is run again", highlight=False)
