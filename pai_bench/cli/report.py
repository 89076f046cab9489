"""`pai-bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pai_bench.cells import parse_names, split_specs
from pai_bench.cli.options import INCOMPLETE, AsJson, Results, Verbose, messages
from pai_bench.cli.selecting import ShownCells, ShownDatasets, ShownMethods, selection
from pai_bench.cli.settings import Config
from pai_bench.errors import PaiBenchError


def report(
    results: Results = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.  [default: report in the results folder]")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--from", help="Tidy .csv or .parquet table to read as well; may be repeated.")
    ] = None,
    shown_methods: ShownMethods = None,
    shown_datasets: ShownDatasets = None,
    shown_cells: ShownCells = None,
    figures: Annotated[
        str | None, typer.Option(help="Figures to draw, by name, or 'all'.  [default: the figures of most papers]")
    ] = None,
    highlight: Annotated[
        str | None, typer.Option(help="Methods in colour, for example prospr,my-method; all others are grey.")
    ] = None,
    baseline: Annotated[str, typer.Option(help="Method that the others are compared with, paired by seed.")] = "erk",
    margin: Annotated[
        float, typer.Option(help="Largest difference, in percentage points, at which a control counts as equivalent.")
    ] = 0.5,
    venue: Annotated[str, typer.Option(help="Widths and fonts of neurips, iclr, icml, ieee or iccv.")] = "neurips",
    width: Annotated[str, typer.Option(help="'full' for the width of the text, or 'column'.")] = "full",
    x: Annotated[str, typer.Option("--x", help="Sparsity axis: density, sparsity or compression.")] = "density",
    published: Annotated[
        str, typer.Option(help="Published numbers to draw: none, exact, near or context, or a .csv or .parquet table.")
    ] = "near",
    suspect: Annotated[
        bool, typer.Option("--suspect", help="Also draw published numbers that are suspected to be wrong.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Show the released results of the same settings beside your own.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write nothing; list the objections of a reviewer, with remedies. Exit with 3 if there are any.",
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when a planned cell has no result.")] = False,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make the figures, with captions, and the tables of a paper from the available results."""
    from pai_bench.analysis.command import check_results, run
    from pai_bench.analysis.figures import Options, chosen

    del config, verbose
    options = Options(
        venue=venue,
        width=width,
        x=x,
        highlight=tuple(split_specs(highlight)) if highlight else (),
        figures=parse_names("--figures", figures) if figures else (),
        published=published,
        suspect=suspect,
        baseline=baseline,
    )
    chosen(options.figures)
    shown = selection(shown_methods, shown_datasets, shown_cells)
    if not 0 < margin < 100:
        raise PaiBenchError(f"--margin {margin:g} is not between 0 and 100", "give percentage points, for example 0.5")
    extra = tuple(tables or ())
    if check:
        if not check_results(results, extra, shown, as_json, margin / 100):
            raise typer.Exit(INCOMPLETE)
        return
    if not run(results, out, extra, as_json, messages(), options, shown, reference, margin / 100) and strict:
        raise typer.Exit(INCOMPLETE)
