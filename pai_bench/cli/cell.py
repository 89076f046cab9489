"""The commands `pai-bench prune` and `pai-bench train`.

`_options` reads the parameters that both share from the context; the functions do not use these themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pai_bench.cli import hints
from pai_bench.cli.options import (
    FAILED,
    AsJson,
    DataDir,
    Effective,
    Granularity,
    Plugins,
    Results,
    ScoringData,
    Set,
    Split,
    Verbose,
    messages,
)
from pai_bench.cli.settings import Config, recipe_settings, refuse_lists

if TYPE_CHECKING:
    from pai_bench.sweep.single_cell import Options

Dataset = Annotated[str, typer.Option("--dataset", "--datasets")]
Model = Annotated[str | None, typer.Option("--model", "--models", help="[default: the data set's own]")]
Recipe = Annotated[
    str | None, typer.Option("--recipe", "--recipes", help="Name or file.  [default: the data set's own]")
]
Seed = Annotated[int, typer.Option("--seed", "--seeds", min=0)]
Only = Annotated[
    str | None, typer.Option("--only", help="Layers or weights to prune, patterns separated by commas: layer4.*")
]
Exclude = Annotated[str | None, typer.Option("--exclude", help="Layers or weights not to prune, such as fc,conv1.")]


def _options(context: typer.Context, method: str | None) -> Options:
    """Return the options that both commands share; names are checked before torch is loaded.

    --only and --exclude are short forms of two settings of --set.
    """
    refuse_lists(context)
    given = context.params
    plugins = tuple(map(Path, given["plugin"] or ()))
    hints.check_names(method, given["dataset"], plugins)
    from pai_bench.sweep.single_cell import Options

    short = {f"scoring.{key}": given[key] for key in ("only", "exclude")}
    return Options(
        dataset=given["dataset"],
        model=given["model"],
        recipe=given["recipe"],
        settings=(*recipe_settings(context), *(f"{key}={value}" for key, value in short.items() if value is not None)),
        seed=given["seed"],
        data_dir=None if given["data_dir"] is None else Path(given["data_dir"]),
        plugins=plugins,
        as_json=given["as_json"],
    )


def prune(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="File of the masks, .npz.")],
    method: Annotated[str, typer.Option("--method", "--methods", help="For example prospr:steps=10.")] = "snip",
    dataset: Dataset = "digits",
    model: Model = None,
    recipe: Recipe = None,
    set_: Set = None,
    split: Split = None,
    scoring_data: ScoringData = None,
    effective: Effective = None,
    granularity: Granularity = None,
    only: Only = None,
    exclude: Exclude = None,
    sparsity: Annotated[
        str, typer.Option("--sparsity", "--sparsities", help="Fraction of the weights removed.")
    ] = "0.9",
    seed: Seed = 0,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make the masks of one cell, identical to the masks in a sweep, and show the weights that they keep."""
    options = _options(context, method)
    from pai_bench.sweep import single_cell

    single_cell.prune(options, method, sparsity, out)


def train(
    context: typer.Context,
    masks: Annotated[Path, typer.Option(help="File of masks by parameter name: .npz, or written by torch.save.")],
    dataset: Dataset = "digits",
    model: Model = None,
    recipe: Recipe = None,
    set_: Set = None,
    split: Split = None,
    only: Only = None,
    exclude: Exclude = None,
    seed: Seed = 0,
    redo: Annotated[bool, typer.Option("--redo", help="Train again; the new result replaces the old one.")] = False,
    results: Results = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train one network under your own masks, with the same initial weights and data as all methods."""
    options = _options(context, None)
    from pai_bench.sweep import single_cell

    if not single_cell.train(options, masks, results, redo, messages()):
        raise typer.Exit(FAILED)
