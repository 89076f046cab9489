"""`pai-bench cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from pai_bench.cli.options import FAILED, Results, Verbose, say
from pai_bench.cli.settings import Config


def cancel(
    results: Results = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Only SLURM tasks of these cells, for example 'method=snip'.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Cancel the SLURM tasks of a results folder and stop its sweeps on this host; finished results are kept."""
    from pai_bench.sweep.monitoring import cancel

    del config, verbose
    if not cancel.run(results, filter_, yes, say, typer.confirm):
        raise typer.Exit(FAILED)
