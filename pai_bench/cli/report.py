"""`pai-bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cli.options import INCOMPLETE, AsJson, Results, Verbose, messages
from pai_bench.cli.settings import Config


def report(
    results: Results = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.  [default: report in the results folder]")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--from", help="Tidy .csv or .parquet table to read as well; may be repeated.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when a planned cell has no result.")] = False,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make the accuracy-against-sparsity figure and table from the available results."""
    from pai_bench.analysis.command import run

    del config, verbose
    if not run(results, out, tuple(tables or ()), as_json, messages) and strict:
        raise typer.Exit(INCOMPLETE)
