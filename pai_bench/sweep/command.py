"""`pai-bench sweep`, from its options to its exit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pai_bench import cells, recipes, registry, results
from pai_bench.atomic import check_writable
from pai_bench.errors import PaiBenchError
from pai_bench.sweep import local, planning, workers


@dataclass(frozen=True)
class Options:
    """The options as typed."""

    methods: str | None
    datasets: str
    models: str | None
    recipes: str | None
    settings: tuple[str, ...]
    sparsities: str | None
    densities: str | None
    compressions: str | None
    seeds: str | None
    filter: str | None
    retry: str | None
    redo: bool
    dry_run: bool
    workers: int | None
    checkpoint_every: float
    keep_checkpoints: bool
    hang_after: float
    disk_patience: float
    results: Path | None
    data_dir: Path | None
    plugins: tuple[Path, ...]
    as_json: bool


def request(options: Options) -> planning.Request:
    """The options as a request.

    Raises: PaiBenchError for what cannot be read.
    """
    given = {
        "--sparsities": (options.sparsities, cells.parse_sparsities),
        "--densities": (options.densities, cells.parse_densities),
        "--compressions": (options.compressions, cells.parse_compressions),
    }
    used = [name for name, (text, _) in given.items() if text is not None]
    if len(used) > 1:
        raise PaiBenchError(f"{' and '.join(used)} say the same thing", "give one of them")
    sparsities: tuple[float, ...] = ()
    for text, parse in given.values():
        if text is not None:
            sparsities = parse(text)
    if options.retry not in (None, "failed"):
        raise PaiBenchError(f"--retry {options.retry!r} is not known", "known: failed")
    return planning.Request(
        methods=() if options.methods is None else tuple(cells.split_specs(options.methods)),
        datasets=cells.parse_names("--datasets", options.datasets),
        models=() if options.models is None else cells.parse_names("--models", options.models),
        recipes=() if options.recipes is None else cells.parse_names("--recipes", options.recipes),
        settings=recipes.parse_settings(options.settings),
        sparsities=sparsities,
        seeds=() if options.seeds is None else cells.parse_seeds(options.seeds),
        filter=None if options.filter is None else cells.Filter.parse(options.filter),
    )


def run(options: Options, messages: Console) -> int:
    """Plan, say so, and do what is missing; returns how many cells failed.

    Raises: PaiBenchError for bad input, before anything is started.
    """
    for plugin in options.plugins:
        registry.load_plugin(plugin)
    root = results.resolve_root(options.results)
    asked, masks = planning.with_masks(request(options), root, keep=not options.dry_run)
    plugins = (*options.plugins, *masks)
    runs = planning.expand(asked)
    planning.check(runs, options.data_dir)
    if not options.dry_run:
        check_writable(root, "--results")
    plan = planning.make(
        runs, root, retry_failed=options.retry == "failed", redo=options.redo, set_aside=not options.dry_run
    )
    for cause in plan.damaged:
        messages.print(cause, highlight=False, markup=False)
    for line in (*_grid_lines(plan), *planning.choices(asked).notes):
        messages.print(line, highlight=False, markup=False)
    if options.as_json:
        states = [{**planned.as_dict(), "state": planned.state} for planned in plan.runs]
        print(json.dumps({"summary": plan.summary(), "cells": states}, indent=1))
    elif options.dry_run:
        recipes_differ = len({(p.run.recipe.name, p.run.cell.dataset, p.run.cell.model) for p in plan.runs}) > len(
            {(p.run.cell.dataset, p.run.cell.model) for p in plan.runs}
        )
        for planned in plan.todo:
            print(f"{planned.run.cell} · {planned.run.recipe.name}" if recipes_differ else planned.run.cell)
    work = planning.jobs(plan)
    n_workers = len(workers.places(options.workers, len(work)))
    how = f" in {len(work)} jobs by {n_workers} worker{'s' if n_workers > 1 else ''}" if work else ""
    messages.print(plan.summary() + how, highlight=False, markup=False)
    if options.dry_run:
        return 0
    plan.write(root)
    if not work and not plan.running:
        return 0
    settings = workers.Settings(
        root,
        options.data_dir,
        plugins,
        options.workers,
        options.redo,
        options.checkpoint_every,
        options.keep_checkpoints,
        options.hang_after,
        options.disk_patience,
    )
    return local.run(plan, settings, messages)


def _grid_lines(plan: planning.Plan) -> list[str]:
    """What the plan consists of, a line per data set, model and recipe."""
    lines = []
    groups: dict[tuple[str, str, str], list[cells.Cell]] = {}
    for planned in plan.runs:
        cell = planned.run.cell
        groups.setdefault((cell.dataset, cell.model, planned.run.recipe.name), []).append(cell)
    for (dataset, model, recipe), group in groups.items():
        methods = ",".join(dict.fromkeys(cell.method for cell in group))
        sparsities = ",".join(f"{s:g}" for s in sorted({cell.sparsity for cell in group if cell.method != "dense"}))
        seeds = ",".join(str(seed) for seed in sorted({cell.seed for cell in group}))
        lines.append(f"{dataset} · {model} · recipe {recipe}: {methods}; sparsities {sparsities}; seeds {seeds}")
    return lines
