"""`pai-bench sweep` on a cluster: plan, print the plan, submit the jobs, and optionally wait for them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from pai_bench import results
from pai_bench.core.atomic import check_writable
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.results import mask_files
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.planning import cost, request
from pai_bench.sweep.planning.plan import Plan, PlannedRun, jobs, make_plan
from pai_bench.sweep.planning.plan_text import compilations
from pai_bench.sweep.slurm import crashes, in_flight, profiles, sbatch, sizing, trust, wording
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, installed
from pai_bench.sweep.slurm.ledger import PASSING, complaints
from pai_bench.sweep.slurm.lock import submitting
from pai_bench.sweep.slurm.submitter import SubmissionSettings, Submitter, pack
from pai_bench.sweep.slurm.wait import follow


@dataclass(frozen=True)
class Options:
    """Command-line options of a sweep that apply only to SLURM, as typed."""

    profile: str | None = None
    settings: tuple[str, ...] = ()
    cells_per_job: int | None = None
    canary: bool = False
    wait: bool = False
    any_code: bool = False


@dataclass(frozen=True)
class Sweep:
    """A checked request for a sweep: its runs, their settings, and the options of the plan."""

    runs: Sequence[Run]
    settings: RunSettings
    retry_failed: bool
    dry_run: bool
    as_json: bool
    lines: Sequence[str]
    """Lines that describe the plan to the user."""


@dataclass(frozen=True)
class _Situation:
    """A plan together with the state of the jobs submitted earlier."""

    plan: Plan
    flight: in_flight.InFlight
    ended_jobs: Mapping[str, str]


def reachable() -> bool:
    """Return True when jobs can be submitted from here: SLURM is installed and configured, and this is not a job.

    Raises: PaiBenchError when SLURM is configured and does not respond. Training on this host instead would be wrong,
        because it is probably a login node.
    """
    # A sweep inside a job runs on the resources of this job.
    if not installed() or "SLURM_JOB_ID" in os.environ:
        return False
    try:
        Controller(seconds=30).limits()
    except ControllerUnavailable as error:
        # This message means that there is no slurm.conf: the commands are installed, but no cluster is set up.
        if "configuration source" in str(error):
            return False
        raise PaiBenchError(f"SLURM does not respond: {error}", "try again later, or use --where local") from None
    return True


def run(sweep: Sweep, options: Options, messages: Console) -> int:
    """Submit the missing cells.

    Returns the number of cells that failed while the command waited (0 without --wait), or 1 when SLURM did not accept
    all tasks.

    Raises: PaiBenchError for invalid settings, before anything is submitted.
    """
    if not installed():
        raise PaiBenchError(
            "the SLURM commands sbatch and squeue were not found on PATH",
            "run the command on a login node, or use --where local",
        )
    sbatch.check_folder(sweep.settings.root)
    if not sweep.dry_run:
        check_writable(sweep.settings.root, "--results")
    profile = profiles.load(options.profile or profiles.DEFAULT, options.settings)
    for plugin in sweep.settings.plugins:
        if plugin.suffix not in mask_files.SUFFIXES:
            # The job would refuse such a plug-in, but only after its wait in the queue.
            trust.check(plugin)
    settings = sweep.settings
    if not sweep.dry_run:
        settings = replace(settings, plugins=(*settings.plugins, *request.keep_masks(sweep.runs, settings.root)))
    submission_settings = SubmissionSettings(settings, profile, options.cells_per_job, options.any_code)
    controller = Controller()
    try:
        controller.limits()
    except ControllerUnavailable as error:
        raise PaiBenchError(f"SLURM does not respond: {error}", "try again later, or use --where local") from None
    owner = Owner.current()

    def say(text: str) -> None:
        messages.print(text, highlight=False, markup=False)

    # The lock covers planning too, because two submitters with one view of the folder would submit the same cells.
    with nullcontext() if sweep.dry_run else submitting(sweep.settings.root, owner, say):
        situation = _look(sweep, controller)
        plan = situation.plan
        for line in (*plan.damaged, *complaints(sweep.settings.root), *sweep.lines, *wording.notes(situation.flight)):
            say(line)
        submitter = None
        say(plan.summary(verb="submit"))
        if plan.todo:
            work = pack(plan, _durations(plan, sweep.settings.root, profile), submission_settings, options.canary)
            submitter = Submitter(submission_settings, work, controller, situation.ended_jobs)
            say(wording.announce(work, submission_settings))
            for line in compilations((*work.canaries, *work.tasks)):
                say(line)
        if sweep.as_json:
            states = [{**planned.key.as_dict(), "state": planned.state} for planned in plan.runs]
            print(json.dumps({"summary": plan.summary(verb="submit"), "cells": states}, indent=1))
        if sweep.dry_run:
            if submitter:
                wording.show(submitter, sweep.as_json)
            return 0
        # The plan precedes the submission, so that `status` and `report` list its cells even if sbatch fails.
        plan.write(sweep.settings.root)
        refused = 0
        if submitter:
            _forget(sweep, plan)
            submission = submitter.submit(owner, say)
            wording.report(submission, sum(controller.calls.values()), say)
            refused = int(submission.cause is not None)
            if refused and not submission.accepted and not submission.n_unknown:
                return refused
    if not options.wait:
        if plan.todo or situation.flight.tasks:
            say("follow it with: pai-bench status --watch 30; end it with: pai-bench cancel")
        return refused or _failed_before(plan)
    left = sum(item.state == "failed" for item in set(plan.runs) - set(plan.todo))
    return _wait(sweep, plan, controller, messages) or refused or left


def _failed_before(plan: Plan) -> int:
    """Return the number of failed cells of a plan without cells to run, queued or running; 0 for any other plan."""
    if plan.todo or any(item.state in ("queued", "running", "unknown") for item in plan.runs):
        return 0
    return sum(item.state == "failed" for item in plan.runs)


def _look(sweep: Sweep, controller: Controller) -> _Situation:
    """Make the plan, and exclude the cells that submitted jobs will run."""
    flight = in_flight.survey(sweep.settings.root, controller, heal=not sweep.dry_run)
    held = claims.survey(sweep.settings.root, flight.jobs)
    gone = {claim.owner.job for claim in held if claim.verdict == "dead" and claim.owner.job is not None}
    if flight.jobs is not None:
        # slurmctld purges ended jobs after some minutes; accounting still has their end states.
        forgotten = controller.forgotten(gone - flight.jobs.keys())
        flight = replace(flight, jobs={**forgotten, **flight.jobs})
    # Read the results after the queue: a cell that ends between the two reads is then counted as done.
    plan = make_plan(
        sweep.runs,
        sweep.settings.root,
        retry_failed=sweep.retry_failed,
        redo=sweep.settings.redo,
        set_aside=not sweep.dry_run,
        jobs=flight.jobs,
    )
    given_up: set[str] = set()
    if not sweep.dry_run and flight.jobs is not None:
        given_up = crashes.count(sweep.settings.root, plan.runs, held, flight)
    if not sweep.dry_run:
        _tidy(sweep.settings.root, held, flight)
    busy = dict.fromkeys(flight.unknown, "unknown")
    for task in flight.tasks:
        busy |= dict.fromkeys(task.names, "queued" if task.waits else "running")
    # The end state of a purged job may be unknown; any end state lets the new jobs take over its claims.
    ended_jobs = {job: (flight.jobs or {}).get(job, "COMPLETED") for job in gone}
    planned, todo = [], []
    due = set(plan.todo)
    for item in plan.runs:
        cell = item.key.name
        runs = item in due or (item.state == "failed" and _passing(sweep.settings.root, item))
        if cell in given_up:
            item, runs = replace(item, state="failed"), sweep.retry_failed
        if cell in busy and (item.state != "done" or sweep.settings.redo) and (runs or item.state != "failed"):
            # A live claim is stronger evidence than a missing row in squeue: the cell stays "running".
            if (item.state, busy[cell]) != ("running", "unknown"):
                item = replace(item, state=busy[cell])
        elif runs:
            todo.append(item)
        planned.append(item)
    return _Situation(Plan(tuple(planned), tuple(todo), plan.damaged), flight, ended_jobs)


def _tidy(root: Path, held: Sequence[claims.ClaimStatus], flight: in_flight.InFlight) -> None:
    """Remove claims and checkpoints that dead workers left behind for finished cells."""
    claims.clear(root, held)
    results.tidy(root, flight.names())


def _passing(root: Path, item: PlannedRun) -> bool:
    """Return True when a cell failed for a reason outside the cell (changed code, environment)."""
    note = results.read_failure(root, item.key)
    return note is not None and note.kind in PASSING


def _forget(sweep: Sweep, plan: Plan) -> None:
    """Reset the failed cells that are retried, and with --redo all planned cells, so that they start from scratch.

    The checkpoints are removed here and not in the task, because a requeued task must resume from its checkpoints.
    """
    if sweep.settings.redo:
        for item in plan.todo:
            results.drop_checkpoints(sweep.settings.root, item.key)
    failed = [item for item in plan.todo if item.state == "failed"]
    for item in failed:
        results.clear_failure(sweep.settings.root, item.key)
    crashes.forget(sweep.settings.root, [item.key.name for item in failed])


def _durations(plan: Plan, root: Path, profile: profiles.Profile) -> dict[Run, float]:
    """Return the expected seconds of each planned cell, from earlier results on the same kind of device.

    A cell without an estimate gets the longest other estimate, or the target duration of a task.
    """
    runs = [run for job in jobs(plan) for run in job.runs]
    found = cost.estimate(runs, root, _device(runs, root, profile))
    longest = max((e.seconds for e in found if e.seconds is not None), default=sizing.TASK_SECONDS)
    return {run: longest if e.seconds is None else e.seconds for run, e in zip(runs, found, strict=True)}


def _device(runs: Sequence[Run], root: Path, profile: profiles.Profile) -> str:
    """Return the device name of the jobs as recorded in earlier results, or the profile's GPU type without results."""
    if not profile.gpus:
        return "cpu"
    gpu = profile.gpu_type or ""
    for dataset, model in {(run.cell.dataset, run.cell.model) for run in runs}:
        for method in sorted((root / "runs" / dataset / model).glob("*")):
            for place in sorted(method.glob("*.json"))[-3:]:
                with suppress(PaiBenchError, OSError):
                    device = str(results.read_plain(place)["provenance"].get("device"))
                    if device != "cpu" and gpu.lower() in device.lower():
                        return device
    return gpu.upper() or "GPU"


def _wait(sweep: Sweep, plan: Plan, controller: Controller, messages: Console) -> int:
    """Wait for the cells in flight, and print their outcome; returns the number of cells without a result."""
    ours = [item for item in plan.runs if item in set(plan.todo) or item.state in ("queued", "running", "unknown")]
    ended = follow(sweep.settings.root, ours, controller, messages)
    _tidy(sweep.settings.root, claims.survey(sweep.settings.root, ended.flight.jobs), ended.flight)
    if ended.n_failed:
        messages.print(f"{ended.n_failed} cells failed: see pai-bench logs --failed", highlight=False)
    for note in wording.notes(ended.flight):
        messages.print(note, highlight=False, markup=False)
    if ended.lost:
        messages.print(
            f"{len(ended.lost)} cells have no result, and no job or process runs them: the same command resumes them",
            highlight=False,
        )
    if ended.stuck:
        messages.print(f"{len(ended.stuck)} cells wait for an action of the user", highlight=False)
    return ended.n_failed + len(ended.lost) + len(ended.stuck)
