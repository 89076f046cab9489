"""`pai-bench compare-masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cells import parse_names, split_specs
from pai_bench.cli.options import AsJson, Results, Verbose
from pai_bench.cli.report import condition


def compare_masks(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Mask files, two or more.  [default: the masks of the results]"),
    ] = None,
    results: Results = None,
    shown_methods: Annotated[
        str | None, typer.Option("--methods", help="Only these methods, with their variants.  [default: all]")
    ] = None,
    shown_datasets: Annotated[
        str | None, typer.Option("--datasets", help="Only these data sets.  [default: all]")
    ] = None,
    shown_cells: Annotated[
        str | None, typer.Option("--filter", help="Only these cells, for example 'model=resnet20,sparsity>=0.95'.")
    ] = None,
    between: Annotated[
        str | None, typer.Option(help="Compare methods, seeds or (scoring) data.  [default: methods,seeds,data]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for CSV, Markdown, LaTeX and a figure.  [default: print a table]")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare masks: Jaccard index, and its excess over random masks with the same number of weights in each layer."""
    from pai_bench.analysis.masks.command import run
    from pai_bench.analysis.selection import Selection

    del verbose
    selection = Selection(
        tuple(split_specs(shown_methods)) if shown_methods else (),
        parse_names("--datasets", shown_datasets) if shown_datasets else (),
        condition(shown_cells),
    )
    run(results, files or (), selection, parse_names("--between", between) if between else (), out, as_json)
