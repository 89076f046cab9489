"""`pai-bench status`."""

from __future__ import annotations

from typing import Annotated

import typer

from pai_bench.cli.options import INCOMPLETE, AsJson, Filter, Results, Verbose
from pai_bench.cli.settings import Config


def status(
    results: Results = None,
    filter_: Filter = None,
    watch: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="SECONDS", help="Repeat at this interval until every cell is done or has failed."
        ),
    ] = None,
    fail_on_missing: Annotated[
        bool, typer.Option("--fail-on-missing", help="Exit with 3 when a planned cell has no result.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show the status of a results folder: cells done, running, queued and failed, with the causes of failures."""
    from pai_bench.sweep.monitoring import command

    del config, verbose
    if not command.run(results, watch, as_json, filter_) and fail_on_missing:
        raise typer.Exit(INCOMPLETE)
