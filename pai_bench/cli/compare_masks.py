"""`pai-bench compare-masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cells import parse_names
from pai_bench.cli.options import AsJson, Results, Verbose
from pai_bench.cli.selecting import ShownCells, ShownDatasets, ShownMethods, selection


def compare_masks(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Mask files, two or more.  [default: the masks of the results]"),
    ] = None,
    results: Results = None,
    shown_methods: ShownMethods = None,
    shown_datasets: ShownDatasets = None,
    shown_cells: ShownCells = None,
    between: Annotated[
        str | None, typer.Option(help="Compare methods, seeds, (scoring) data or granularity.  [default: all four]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for CSV, Markdown, LaTeX and a figure.  [default: print a table]")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare masks: Jaccard index, and its excess over random masks with the same number of weights in each layer."""
    from pai_bench.analysis.masks.command import run

    del verbose
    shown = selection(shown_methods, shown_datasets, shown_cells)
    run(results, files or (), shown, parse_names("--between", between) if between else (), out, as_json)
