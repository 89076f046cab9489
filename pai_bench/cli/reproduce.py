"""`pai-bench reproduce`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cli.options import INTERRUPTED, OK, Results, Verbose, say
from pai_bench.errors import PaiBenchError

LIST, PAGE = "list", "page"


def reproduce(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name of a reproduction; 'list' lists all, 'page' writes docs/reproduction.md.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Smoke test: one seed and a few training steps.")] = False,
    judge: Annotated[bool, typer.Option("--judge", help="Judge the available results; run nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.  [default: reproductions/NAME in the results folder]")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--from", help="Tidy .csv table of results to judge as well; may be repeated.")
    ] = None,
    results: Results = None,
    verbose: Verbose = False,
) -> None:
    """Repeat a published table as a sweep, and give a verdict on each of its values.

    Further options are passed to sweep, for example --dry-run, --workers 1 or --where slurm.
    """
    command = import_module("pai_bench.reproductions.command")
    if name == LIST:
        _no_more(context, quick, judge)
        typer.echo(command.listing())
        return
    if name == PAGE:
        _no_more(context, quick, judge)
        typer.echo(command.write_page(out or Path("docs"), results, tuple(tables or ())))
        return
    reproduction = command.load(name, quick)
    code = OK
    if not judge:
        given = list(context.args)
        # The parser has removed these two options from the arguments that are passed to sweep.
        given += [] if results is None else ["--results", str(results)]
        given += ["--verbose"] if verbose else []
        sweep = context.find_root().command.commands["sweep"]  # type: ignore[attr-defined]
        for arguments in command.sweep_arguments(reproduction):
            say(f"pai-bench sweep {' '.join(_quoted(part) for part in [*arguments, *given])}")
            ended = sweep.main([*arguments, *given], prog_name="pai-bench sweep", standalone_mode=False)
            if ended == INTERRUPTED:  # the program also returns this code, instead of raising KeyboardInterrupt
                raise KeyboardInterrupt
            code = ended or code
        if "--dry-run" in given:
            raise typer.Exit(code)
    elif context.args:
        raise PaiBenchError(f"--judge runs nothing, so {' '.join(context.args)} has no effect", "leave it out")
    text, paths = command.report(reproduction, results, out, tuple(tables or ()))
    typer.echo(text)
    for path in paths:
        typer.echo(path)
    if quick:
        say("a smoke test: its numbers cannot be compared with the published ones")
    if code:
        raise typer.Exit(code)


def _no_more(context: typer.Context, quick: bool, judge: bool) -> None:
    given = [*context.args, *(["--quick"] if quick else []), *(["--judge"] if judge else [])]
    if given:
        raise PaiBenchError(f"{' '.join(given)} does not apply here", "leave it out")


def _quoted(part: str) -> str:
    return part if part.replace("-", "").replace(",", "").replace(".", "").isalnum() else f"'{part}'"
