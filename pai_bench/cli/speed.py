"""`pai-bench speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cells import parse_names
from pai_bench.cli.options import FAILED, AsJson, Plugins, Results, Verbose, messages
from pai_bench.cli.selecting import ShownCells, ShownDatasets, ShownMethods, selection


def speed(
    results: Results = None,
    shown_methods: ShownMethods = None,
    shown_datasets: ShownDatasets = None,
    shown_cells: ShownCells = None,
    forms: Annotated[
        str, typer.Option(help="Networks to measure beside the dense one: masked, shrunk, 2:4.")
    ] = "masked,shrunk",
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs of a forward pass.")] = 64,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds in which all networks are timed in turn.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a pass on a CPU.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.  [default: a GPU if there is one]")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    redo: Annotated[bool, typer.Option("--redo", help="Measure again what has a record of this setting.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file of the numbers, besides the records.")] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure dense, masked, shrunk and 2:4 networks of finished results on this machine; report shows the records."""
    del verbose
    shown = selection(shown_methods, shown_datasets, shown_cells)
    from pai_bench.results import resolve_root
    from pai_bench.speed.command import Options, run

    names = parse_names("--forms", forms)
    more = {"device": device, "dtype": dtype, "redo": redo, "out": out, "plugins": tuple(plugin or ())}
    options = Options(names, batch_size, rounds, threads, as_json=as_json, **more)  # type: ignore[arg-type]
    if not run(resolve_root(results), shown, options, messages()):
        raise typer.Exit(FAILED)
