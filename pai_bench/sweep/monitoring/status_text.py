"""Text output of a Status: the lines and tables printed by `pai-bench status`."""

from __future__ import annotations

import io
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pai_bench import results
from pai_bench.sweep.execution.eta import duration
from pai_bench.sweep.monitoring.status import CellState, Failure, Running, Status, Waiting
from pai_bench.sweep.planning.expected_cells import slug

SHOWN = 20
"""Maximum number of rows shown of each kind; --json has all."""

WIDE = 240
"""Width in columns if the output is not a terminal."""

_MARKS = {"running": "r", "queued": "q", "failed": "f", "stale": "s", "unknown": "?", "collapsed": "c", "diverged": "d"}
_STYLES = {"running": "cyan", "queued": "blue", "failed": "red", "stale": "yellow", "unknown": "magenta"}


def headline(status: Status) -> str:
    """Return the status in one line."""
    counts = ", ".join(f"{n} {state}" for state, n in status.counts().items() if n or state == "done")
    left = "" if status.seconds_left is None else f"; about {duration(status.seconds_left)} left at the present pace"
    return f"{len(status.cells)} cells: {counts}{left}"


def render(status: Status) -> Group:
    """Return the whole status as a renderable for a console."""
    return Group(*_parts(status))


def as_text(status: Status) -> str:
    """Return the whole status as plain text."""
    screen = Console(highlight=False, width=WIDE, file=io.StringIO())
    screen.print(render(status))
    return "".join(f"{line.rstrip()}\n" for line in screen.file.getvalue().splitlines())  # type: ignore[attr-defined]


def _parts(status: Status) -> Iterator[RenderableType]:
    yield Text(f"results: {status.root}", style="dim")
    yield Text(headline(status), style="bold")
    groups: dict[tuple[str, str, str], list[CellState]] = defaultdict(list)
    for cell in status.cells:
        groups[cell.cell.dataset, cell.cell.model, cell.recipe].append(cell)
    for (dataset, model, recipe), group in groups.items():
        yield Text(f"\n{dataset} · {model} · recipe {recipe}")
        yield _grid(group)
    if marks := _used(status.cells):
        yield Text("done/planned; " + ", ".join(f"{_MARKS[name]} {name}" for name in marks), style="dim")
    if status.running:
        yield Text("\nrunning")
        yield _running(status.running[:SHOWN])
        yield from _more(len(status.running))
    if status.failures:
        yield Text("\nfailed")
        for failure in status.failures[:SHOWN]:
            yield from _failure(status, failure)
        yield from _more(len(status.failures))
    if status.waiting:
        yield Text("\nwaiting in SLURM's queue")
        for waiting in status.waiting:
            yield from _waiting(waiting)
    if status.notes:
        yield Text("\n" + "\n".join(f"note: {note}" for note in status.notes), style="yellow")


def _grid(cells: Sequence[CellState]) -> Table:
    places: dict[tuple[str, float], list[CellState]] = defaultdict(list)
    for cell in cells:
        places[cell.cell.method, cell.cell.sparsity].append(cell)
    sparsities = sorted({sparsity for _, sparsity in places})
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("method", no_wrap=True)
    for sparsity in sparsities:
        table.add_column(f"{sparsity:g}")
    for method in dict.fromkeys(method for method, _ in places):
        table.add_row(Text(method), *(_square(places.get((method, sparsity), ())) for sparsity in sparsities))
    return table


def _square(cells: Sequence[CellState]) -> Text:
    """Format the counts of one grid square, for example "3/5 1r 1f"."""
    if not cells:
        return Text("")
    states = Counter(cell.state for cell in cells) + Counter(cell.flag for cell in cells if cell.flag)
    done = states["done"]
    text = Text(f"{done}/{len(cells)}", style="green" if done == len(cells) else "")
    for name, mark in _MARKS.items():
        if states[name]:
            text.append(f" {states[name]}{mark}", style=_STYLES.get(name, "yellow"))
    return text


def _used(cells: Sequence[CellState]) -> list[str]:
    seen = {cell.state for cell in cells} | {cell.flag for cell in cells}
    return [name for name in _MARKS if name in seen]


def _running(running: Sequence[Running]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    for claim in running:
        epoch = f" epoch {claim.epoch or 0}/{claim.epochs}" if claim.epochs else ""
        left = "" if claim.seconds_left is None else f"{duration(claim.seconds_left)} left"
        silent = f"silent for {duration(claim.silent)}" if claim.verdict == "unknown" else ""
        table.add_row(
            Text(f"  {slug(claim.cell)}"), Text(f"{claim.phase or 'starting'}{epoch}"), left, Text(claim.where), silent
        )
    return table


def _failure(status: Status, failure: Failure) -> Iterator[Text]:
    root = "" if status.root == results.resolve_root() else f" --results {shlex.quote(str(status.root))}"
    yield Text(f"  {failure.count} x {failure.cause}", style="red")
    yield Text(f"      pai-bench logs {shlex.quote(slug(failure.example))}{root}")


def _waiting(waiting: Waiting) -> Iterator[Text]:
    tasks = f"{waiting.n_tasks} task{'s' if waiting.n_tasks > 1 else ''} ({waiting.n_cells} cells)"
    yield Text(f"  {tasks}: {waiting.words} [{waiting.reason}]", style="red" if waiting.remedy else "")
    if waiting.remedy:
        yield Text(f"      they will not start by themselves: {waiting.remedy}")


def _more(total: int) -> Iterator[Text]:
    if total > SHOWN:
        yield Text(f"  … and {total - SHOWN} more (--json has all)", style="dim")
