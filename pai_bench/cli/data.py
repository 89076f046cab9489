"""The commands `pai-bench data list|fetch|check|add`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pai_bench.cli.commands import Command
from pai_bench.cli.options import FAILED, USAGE, AsJson, DataDir, Plugins, Verbose, messages, say
from pai_bench.datasets import files
from pai_bench.errors import PaiBenchError

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="List, fetch, check and add data sets. Sweeps never download.",
)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Data sets.", show_default=False)]
QUIET_SECONDS = 10.0


@dataclass
class _Lines:
    """Progress of a download in a log: one line every few seconds."""

    last: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        say(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        if time.monotonic() - self.last > QUIET_SECONDS:
            self.last = time.monotonic()
            say(f"{name}: {_bytes(done)} of {_bytes(total) if total else 'unknown size'}")


@dataclass
class _Bar:
    """Progress of a download on a terminal: a bar."""

    bar: Progress
    tasks: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        say(text)

    def progress(self, name: str, done: int, total: int | None) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=total)
        self.bar.update(self.tasks[name], completed=done, total=total)


@contextmanager
def _observer() -> Iterator[files.Observer]:
    if not messages().is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages()) as bar:
        yield _Bar(bar)


def _bytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _load(plugins: list[Path] | None) -> None:
    for path in plugins or ():
        import_module("pai_bench.core.plugins").load_plugin(path)


def _where(name: str, root: Path | None) -> Path:
    source = files.source(name)
    return files.data_root(root) / source.folder / ("" if source.files else source.tree)


def _row(name: str, check: files.Check, root: Path | None) -> dict[str, Any]:
    source = files.source(name)
    no_files = not source.files and not source.tree
    return {
        "name": name,
        "state": check.state,
        "origin": None if check.problem else check.origin,
        "bytes": check.size or None,
        "where": None if no_files else str(_where(name, root)),
        "fetchable": bool(source.archives),
        "problem": check.problem.cause if check.problem else None,
    }


def _show(lines: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(lines, indent=1))
        return
    width = max((len(line["name"]) for line in lines), default=0)
    typer.echo(f"{'name':<{width}}  {'state':<8}  {'size':>9}  place")
    for line in lines:
        size = _bytes(line["bytes"]) if line["bytes"] else "-"
        typer.echo(f"{line['name']:<{width}}  {line['state']:<8}  {size:>9}  {line['where'] or '-'}")
        if line["state"] == "refused" and line["problem"]:
            typer.echo(f"{'':<{width}}  {line['problem']}")


@app.command("list", cls=Command)
def list_(data_dir: DataDir = None, plugin: Plugins = None, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the data sets with their state on disk, size and location."""
    del verbose
    _load(plugin)
    _show([_row(name, files.check(name, data_dir), data_dir) for name in files.names()], as_json)


@app.command(cls=Command)
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Data sets.  [default: all on disk]")
    ] = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Hash and read the files again, and compare them with the original or the accepted copy."""
    del verbose
    _load(plugin)
    lines, bad = [], 0
    for name in names or [name for name in files.names() if files.present(name, data_dir)]:
        # Remembered hashes would hide damage that changes neither the size nor the time of a file.
        found = files.check(name, data_dir, rehash=True)
        line = _row(name, found, data_dir)
        problem = found.problem or _unreadable(name, data_dir)
        if problem is not None:
            bad += 1
            line["problem"] = problem.cause
            say(f"{name}: {problem.cause}")
            say(f"  {problem.remedy}")
        lines.append(line)
    _show(lines, as_json)
    if bad:
        raise typer.Exit(FAILED)


def _unreadable(name: str, root: Path | None) -> PaiBenchError | None:
    try:
        if not files.source(name).streamed:
            files.load(name, root)
    except PaiBenchError as error:
        return error
    return None


@app.command(cls=Command)
def fetch(
    names: Names,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(envvar="PAI_BENCH_MIRROR", help="URL of a folder to try first; may be repeated."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Fetch data sets from official sources or mirrors, resume an interrupted fetch, and verify the files."""
    del verbose
    _load(plugin)
    failed = unusable = 0
    for name in names:
        # An unknown name is refused before the first download.
        files.source(name)
    with _observer() as observer:
        for name in names:
            try:
                found = files.fetch(name, data_dir, observer, tuple(mirror or ()))
                problem = found.problem or _unreadable(name, data_dir)
            except PaiBenchError as error:
                problem = error
                unusable += not isinstance(error, files.FetchFailed)
            if problem is None:
                say(f"{name}: {found.state}, in {_where(name, data_dir)}")
            else:
                failed += 1
                say(f"error: {problem.cause}")
                say(f"  {problem.remedy}")
    if failed:
        raise typer.Exit(USAGE if unusable else FAILED)


@app.command(cls=Command)
def add(
    name: Annotated[str, typer.Argument(help="A data set.")],
    origin: Annotated[Path, typer.Option("--from", help="Folder that contains its files or its archive.")],
    accept_checksum: Annotated[
        bool,
        typer.Option(
            "--accept-checksum", help="Accept a copy that differs from the original; results record its checksum."
        ),
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Link to the files instead of copying them.")] = False,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    verbose: Verbose = False,
) -> None:
    """Add a copy of a data set that is already on disk."""
    del verbose
    _load(plugin)
    found = files.add(name, origin, data_dir, accept_checksum=accept_checksum, link=link)
    problem = found.problem or _unreadable(name, data_dir)
    if problem is not None:
        if found.state == "accepted":
            files.refuse(name, data_dir)  # refuse an unreadable copy before it is used in a plan
        raise problem
    say(f"{name}: {found.origin}, in {_where(name, data_dir)}")
