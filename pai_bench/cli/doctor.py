"""`pai-bench doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cli.options import FAILED, AsJson, DataDir, Results, Verbose, say
from pai_bench.cli.settings import _config as read_config
from pai_bench.errors import PaiBenchError

BROKEN = "pai_bench.cli.doctor.broken"


def _config(context: typer.Context, value: Path | None) -> Path | None:
    """Read the config file as other commands do, but report an error in it as a finding instead of exiting."""
    try:
        return read_config(context, value)
    except PaiBenchError as error:
        context.meta[BROKEN] = error
        return value


def doctor(
    context: typer.Context,
    profile: Annotated[str | None, typer.Option(help="SLURM profile to check.  [default: generic]")] = None,
    job: Annotated[bool, typer.Option("--job", help="Also submit a short job, and check its environment.")] = False,
    results: Results = None,
    data_dir: DataDir = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", callback=_config, is_eager=True, help="TOML file with options as keys."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check this machine, its disk, the data and SLURM before a sweep; print a remedy for every problem."""
    from pai_bench.doctor import command

    del config, verbose
    settings = context.meta.get(BROKEN)
    if not command.run(results, data_dir, profile=profile, job=job, as_json=as_json, settings=settings, say=say):
        raise typer.Exit(FAILED)
