"""The command `pai-bench sweep`: from options to the number of failed cells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pai_bench import cells, recipes, results
from pai_bench.core.atomic import check_folder, check_writable
from pai_bench.core.filters import Filter
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import runner
from pai_bench.experiment.runner import Run
from pai_bench.pruning import fixed_masks
from pai_bench.results import float64
from pai_bench.sweep import placement
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.local import debug, worker_process
from pai_bench.sweep.local import run as local
from pai_bench.sweep.planning import checks, cost, cost_text, operations, plan_text, unread_data
from pai_bench.sweep.planning import request as planning
from pai_bench.sweep.planning.plan import Plan, PlannedRun, jobs, make_plan
from pai_bench.sweep.slurm import command as slurm_command


@dataclass(frozen=True)
class Options:
    """Options of the command as given by the user."""

    methods: str | None
    controls: str | None
    datasets: str
    models: str | None
    recipes: str | None
    settings: tuple[str, ...]
    sparsities: str | None
    densities: str | None
    compressions: str | None
    budgets: str | None
    seeds: str | None
    filter: str | None
    retry: str | None
    dry_run: bool
    workers: int | None
    hang_after: float
    run: RunSettings
    as_json: bool
    verbose: bool
    where: str
    slurm: slurm_command.Options
    given: placement.Sources


def request(options: Options) -> planning.Request:
    """Convert the options to a request.

    Raises: PaiBenchError for an option with an invalid value.
    """
    given = {
        "--sparsities": (options.sparsities, cells.parse_sparsities),
        "--densities": (options.densities, cells.parse_densities),
        "--compressions": (options.compressions, cells.parse_compressions),
    }
    used = [name for name, (text, _) in given.items() if text is not None]
    used += ["--budgets"] if options.budgets is not None else []
    if len(used) > 1:
        raise PaiBenchError(f"{' and '.join(used)} exclude each other", "give one of them")
    sparsities: tuple[float, ...] = ()
    for text, parse in given.values():
        if text is not None:
            sparsities = parse(text)
    if options.retry not in (None, "failed"):
        raise PaiBenchError(f"invalid --retry {options.retry!r}", "the allowed value is: failed")
    return planning.Request(
        methods=() if options.methods is None else tuple(cells.split_specs(options.methods)),
        controls=() if options.controls is None else cells.parse_names("--controls", options.controls),
        datasets=cells.parse_names("--datasets", options.datasets),
        models=() if options.models is None else cells.parse_names("--models", options.models),
        recipes=() if options.recipes is None else cells.parse_names("--recipes", options.recipes),
        settings=recipes.parse_settings(options.settings),
        sparsities=sparsities,
        budgets=() if options.budgets is None else cells.parse_budgets(options.budgets),
        seeds=() if options.seeds is None else cells.parse_seeds(options.seeds),
        filter=None if options.filter is None else Filter.parse(options.filter),
    )


def run(options: Options, messages: Console) -> int:
    """Plan the sweep, print the plan, and run the missing cells; return the number of failed cells.

    Raises: PaiBenchError for bad input, before anything is started.
    """
    chosen = placement.choose(options.where, options.slurm, options.given)
    for note in chosen.notes:
        messages.print(note, highlight=False, markup=False)
    options = replace(options, where=chosen.name)
    for plugin in options.run.plugins:
        fixed_masks.load_plugin(plugin)
    root, data_dir = options.run.root, options.run.data_dir
    check_folder(root, "--results")
    asked = planning.with_masks(request(options))
    runs = planning.expand(asked)
    absent = planning.absent_data(runs, data_dir) if options.dry_run else {}
    for error in absent.values():
        messages.print(f"note: {error.cause}\n  before the sweep: {error.remedy}", highlight=False, markup=False)
    checked = checks.check(runs, data_dir, root, forget=not options.dry_run, absent=absent)
    for error in checked.refused:
        messages.print(f"left out: {error.cause}\n  {error.remedy}", highlight=False, markup=False)
    failed = _run(options, checked.runs, asked, messages)
    return failed if options.dry_run else failed + len(runs) - len(checked.runs)


def _run(options: Options, runs: Sequence[Run], asked: planning.Request, messages: Console) -> int:
    """Plan and run the usable runs of a request; return the number of failed cells."""
    root, redo = options.run.root, options.run.redo
    if options.where == "slurm":
        return slurm_command.run(_for_slurm(options, runs, asked), options.slurm, messages)
    if not options.dry_run:
        check_writable(root, "--results")
    plan = make_plan(runs, root, retry_failed=options.retry == "failed", redo=redo, set_aside=not options.dry_run)
    for cause in plan.damaged:
        messages.print(cause, highlight=False, markup=False)
    for line in (*plan_text.grid(runs), *_notes(asked, runs)):
        messages.print(line, highlight=False, markup=False)
    work = jobs(plan)
    places = worker_process.places(options.workers, len(plan.todo))
    todo = [planned.run for planned in plan.todo]
    for line in plan_text.compilations([todo[index :: len(places)] for index in range(len(places))]):
        messages.print(line, highlight=False, markup=False)
    device, costs = _costs(plan, root, places)
    if options.as_json:
        states = [
            {**planned.key.as_dict(), "state": planned.state}
            | ({"estimate": asdict(costs[planned])} if planned in costs else {})
            for planned in plan.runs
        ]
        print(json.dumps({"summary": plan.summary(), "device": device, "cells": states}, indent=1))
    elif options.dry_run:
        for line in plan_text.cells(plan) if options.verbose else plan_text.methods(plan):
            print(line)
    how = f" in {len(work)} jobs by {len(places)} worker{'s' if len(places) > 1 else ''}" if work else ""
    messages.print(plan.summary() + how, highlight=False, markup=False)
    if costs:
        for line in cost_text.lines([p.run for p in costs], list(costs.values()), device, len(places)):
            messages.print(line, highlight=False, markup=False)
    if options.dry_run:
        return 0
    plan.write(root)
    failed_before = sum(planned.state == "failed" for planned in set(plan.runs) - set(plan.todo))
    if not work and not plan.running:
        return failed_before
    settings = replace(options.run, plugins=(*options.run.plugins, *planning.keep_masks(runs, root)))
    if redo:
        for planned in plan.todo:
            results.drop_checkpoints(root, planned.key)
    if options.where == "debug":
        return failed_before + debug.run(plan, settings, messages)
    n_failed = local.run(plan, settings, messages, workers=options.workers, hang_after=options.hang_after)
    if device != "cpu" and (advice := float64.advice(_scored(plan, root))) is not None:
        messages.print(advice, highlight=False, markup=False)
    return failed_before + n_failed


def _notes(asked: planning.Request, runs: Sequence[Run]) -> tuple[str, ...]:
    notes = *planning.choices(asked).notes, *planning.budget_notes(asked), *planning.short_batches(runs)
    return *notes, *unread_data.notes(runs)


def _costs(plan: Plan, root: Path, places: Sequence[str]) -> tuple[str, dict[PlannedRun, cost.Estimate]]:
    """Return the device of the workers and an estimate for each run to do."""
    if not plan.todo:
        return "cpu", {}
    device = runner.device_name(torch.device(places[0]))
    measure = operations.calibrate if device == "cpu" else None
    found = cost.estimate([planned.run for planned in plan.todo], root, device, measure)
    return device, dict(zip(plan.todo, found, strict=True))


def _scored(plan: Plan, root: Path) -> Iterator[dict[str, Any]]:
    """Yield the costs recorded for scoring in the plan's new results."""
    for planned in plan.todo:
        with suppress(OSError, PaiBenchError):
            run = planned.run
            plain = results.read_plain(planned.key.path(root))
            costs = {key: plain["costs"].get(key) for key in ("score_seconds", "train_seconds")}
            yield {**costs, "device": plain["provenance"].get("device"), "scoring_dtype": run.recipe.scoring.dtype}


def _for_slurm(options: Options, runs: Sequence[Run], asked: planning.Request) -> slurm_command.Sweep:
    return slurm_command.Sweep(
        runs=runs,
        settings=options.run,
        retry_failed=options.retry == "failed",
        dry_run=options.dry_run,
        as_json=options.as_json,
        lines=(*plan_text.grid(runs), *_notes(asked, runs)),
    )
