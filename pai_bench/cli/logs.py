"""`pai-bench logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from pai_bench.cli.options import Results, Verbose, say
from pai_bench.cli.settings import Config


def logs(
    cell: Annotated[
        str | None,
        typer.Argument(help="For example snip/digits/conv8/0.9/0, a part of it, or the path of its result."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="One failed cell for each cause.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="With --failed: every failed cell.")] = False,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="With --failed: only these cells, for example 'method=snip'.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing as the log grows, until the cell ends.")
    ] = False,
    tail: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N lines of each file.")] = None,
    results: Results = None,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Print the log of a cell, the cause of its failure, and the output of its SLURM job."""
    from pai_bench.sweep.monitoring import logs

    del config, verbose
    logs.run(results, cell, filter_, failed=failed, every=all_, follow=follow, tail=tail, say=say)
