"""`pai-bench sweep`."""

from __future__ import annotations

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
from pai_bench.cli.settings import TYPED, Config, nearest_sparsities, recipe_settings, source
from pai_bench.sweep.execution.settings import RunSettings, parse_pack

if TYPE_CHECKING:
    from pai_bench.sweep.placement import Sources


def sweep(
    context: typer.Context,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "--method",
            envvar="PAI_BENCH_METHODS",
            help="For example snip,prospr:steps=10,lr=0.5.  [default: as in make demo; 'all': all except costly ones]",
        ),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            "--controls",
            envvar="PAI_BENCH_CONTROLS",
            help="Also run each method with shuffled masks, re-initialised weights, inverted scores, masks sampled by"
            " score, random masks or single weights with its layer counts:"
            " shuffle,reinit,invert,sample,quota-of,unstructured.",
        ),
    ] = None,
    datasets: Annotated[
        str,
        typer.Option("--datasets", "--dataset", envvar="PAI_BENCH_DATASETS", help="For example digits,cifar10."),
    ] = "digits",
    models: Annotated[
        str | None,
        typer.Option("--models", "--model", envvar="PAI_BENCH_MODELS", help="[default: the data set's own]"),
    ] = None,
    recipes: Annotated[
        str | None,
        typer.Option(
            "--recipes", "--recipe", envvar="PAI_BENCH_RECIPES", help="Names or files.  [default: the data set's own]"
        ),
    ] = None,
    set_: Set = None,
    split: Split = None,
    scoring_data: ScoringData = None,
    effective: Effective = None,
    granularity: Granularity = None,
    sparsities: Annotated[
        str | None,
        typer.Option(
            "--sparsities",
            "--sparsity",
            envvar="PAI_BENCH_SPARSITIES",
            help="Fractions of the weights removed, for example 0.9,0.98.",
        ),
    ] = None,
    densities: Annotated[
        str | None, typer.Option(envvar="PAI_BENCH_DENSITIES", help="Fractions kept, instead of --sparsities.")
    ] = None,
    compressions: Annotated[
        str | None, typer.Option(envvar="PAI_BENCH_COMPRESSIONS", help="1/density, instead of --sparsities.")
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(envvar="PAI_BENCH_BUDGETS", help="Weights kept, instead of --sparsities; for example 30,45."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", envvar="PAI_BENCH_SEEDS", help="For example 0-4 or 0,3,7.")
    ] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Only these cells, for example 'method=snip,sparsity>=0.95'.")
    ] = None,
    retry: Annotated[str | None, typer.Option(help="'failed': run failed cells again.")] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Run finished cells again; new results replace old ones.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, one line per method (with -v per cell), and stop.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="PAI_BENCH_WORKERS", min=1, help="Worker processes.  [default: one per GPU, else one per core]"
        ),
    ] = None,
    pack: Annotated[
        str,
        typer.Option(
            envvar="PAI_BENCH_PACK",
            help="Cells that a worker runs at a time; auto: the fastest number measured on a GPU, 1 on a CPU.",
        ),
    ] = "auto",
    checkpoint_every: Annotated[
        float, typer.Option(envvar="PAI_BENCH_CHECKPOINT_EVERY", min=0, help="Seconds between checkpoints of a cell.")
    ] = RunSettings.checkpoint_every,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the checkpoints of finished cells.")
    ] = False,
    hang_after: Annotated[
        float,
        typer.Option(
            envvar="PAI_BENCH_HANG_AFTER", min=1, help="Seconds without progress after which a worker is killed."
        ),
    ] = 1800.0,
    disk_patience: Annotated[
        float,
        typer.Option(envvar="PAI_BENCH_DISK_PATIENCE", min=0, help="Seconds to retry writing to a full disk."),
    ] = RunSettings.disk_patience,
    where: Annotated[
        str,
        typer.Option(
            envvar="PAI_BENCH_WHERE", help="local, slurm, debug (in this process), or auto: slurm where it is set up."
        ),
    ] = "auto",
    profile: Annotated[
        str | None,
        typer.Option(
            envvar="PAI_BENCH_PROFILE", help="SLURM: the cluster's profile, a name or file.  [default: generic]"
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="SLURM: a value of the profile, key=value; may be repeated.")
    ] = None,
    cells_per_job: Annotated[
        int | None, typer.Option(min=1, help="SLURM: cells per task.  [default: 45 minutes of work]")
    ] = None,
    canary: Annotated[
        bool,
        typer.Option("--canary", help="SLURM: run one cell per data set and model first, the rest if these succeed."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="SLURM: follow the jobs to their end.")] = False,
    any_code: Annotated[
        bool, typer.Option("--any-code", help="SLURM: let jobs run even if the code has changed since the plan.")
    ] = False,
    results: Results = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run all cells of a grid that have no result; after an interruption, run the same command again."""
    # A mistyped name is reported before the imports below, which load torch.
    hints.check_names(methods, datasets, plugin)
    from pai_bench.results import resolve_root
    from pai_bench.sweep import command
    from pai_bench.sweep.slurm.command import Options as SlurmOptions

    del config, set_, split, scoring_data, effective, granularity
    options = command.Options(
        methods=methods,
        controls=controls,
        datasets=datasets,
        models=models,
        recipes=recipes,
        settings=recipe_settings(context),
        **nearest_sparsities(
            context,
            {"sparsities": sparsities, "densities": densities, "compressions": compressions, "budgets": budgets},
        ),
        seeds=seeds,
        filter=filter_,
        retry=retry,
        dry_run=dry_run,
        workers=workers,
        hang_after=hang_after,
        run=RunSettings(
            root=resolve_root(results),
            data_dir=data_dir,
            plugins=tuple(plugin or ()),
            redo=redo,
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            disk_patience=disk_patience,
            pack=parse_pack(pack),
        ),
        as_json=as_json,
        verbose=verbose,
        where=where,
        slurm=SlurmOptions(profile, tuple(slurm or ()), cells_per_job, canary, wait, any_code),
        given=_given(context),
    )
    failed = command.run(options, messages())
    if failed:
        raise typer.Exit(FAILED)


_OF_SLURM = ("profile", "slurm", "cells_per_job", "canary", "wait", "any_code")
_OF_THIS_MACHINE = ("workers", "hang_after")


def _given(context: typer.Context) -> Sources:
    """Return the sources of the options that have an effect in one place only."""
    from pai_bench.sweep.placement import Sources

    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    said = {name: source(context, parameters[name]) for name in (*_OF_SLURM, *_OF_THIS_MACHINE)}
    names = {name: str(parameters[name].opts[0]) for name in said}
    return Sources(
        typed=tuple(names[name] for name in _OF_SLURM if said[name] == TYPED),
        elsewhere={
            names[name].lstrip("-"): said[name]
            for name in _OF_SLURM
            if said[name] not in (TYPED, "default") and context.params[name]
        },
        where=source(context, parameters["where"]),
        typed_here=tuple(names[name] for name in _OF_THIS_MACHINE if said[name] == TYPED),
    )
