"""`pai-bench speed`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cells import parse_names
from pai_bench.cli.options import FAILED, AsJson, Plugins, Results, Verbose, messages
from pai_bench.cli.selecting import ShownCells, ShownDatasets, ShownMethods, selection
from pai_bench.errors import PaiBenchError


def _refuse(options: Mapping[str, object], how: str) -> None:
    """Refuse options that have no meaning with, or without, --masks.

    Raises: PaiBenchError if one is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise PaiBenchError(f"{', '.join(given)} cannot be used {how} --masks", f"leave {' and '.join(given)} out")


def speed(
    results: Results = None,
    shown_methods: ShownMethods = None,
    shown_datasets: ShownDatasets = None,
    shown_cells: ShownCells = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(help="Measure --model under the masks of this file instead of results; may be repeated."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of --masks.  [default: the data set's own]")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set of --masks.  [default: digits]")] = None,
    forms: Annotated[
        str, typer.Option(help="Networks to measure beside the dense one: masked, shrunk, 2:4.")
    ] = "masked,shrunk",
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs of a forward pass.")] = 64,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds in which all networks are timed in turn.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a pass on a CPU.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.  [default: a GPU if there is one]")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    redo: Annotated[
        bool, typer.Option("--redo", help="Also measure points that have a record with these settings.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file of the numbers, besides the records.")] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure dense, masked, shrunk and 2:4 networks of finished results on this machine, for the report."""
    del verbose
    of_results = {
        "--methods": shown_methods,
        "--datasets": shown_datasets,
        "--filter": shown_cells,
        "--redo": redo or None,
    }
    _refuse(of_results if masks else {"--model": model, "--dataset": dataset}, "with" if masks else "without")
    shown = selection(shown_methods, shown_datasets, shown_cells)
    from pai_bench.results import resolve_root
    from pai_bench.speed.command import Options, run, run_masks

    names = parse_names("--forms", forms)
    more = {"device": device, "dtype": dtype, "redo": redo, "out": out, "plugins": tuple(plugin or ())}
    options = Options(names, batch_size, rounds, threads, as_json=as_json, **more)  # type: ignore[arg-type]
    if masks:
        run_masks(masks, dataset or "digits", model, options, messages())
    elif not run(resolve_root(results), shown, options, messages()):
        raise typer.Exit(FAILED)
