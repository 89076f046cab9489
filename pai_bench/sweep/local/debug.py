"""The place `--where debug`: run one cell after the other in the calling process, under a debugger for example."""

from __future__ import annotations

from rich.console import Console

from pai_bench.experiment import process
from pai_bench.experiment.runner import CellRunner
from pai_bench.sweep.execution.attempt import execute
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.execution.shared import shared
from pai_bench.sweep.planning.plan import Plan, jobs


def run(plan: Plan, settings: RunSettings, messages: Console) -> int:
    """Run the cells to do; return the number of cells without a result, including cells claimed by other processes."""
    process.prepare()
    owner = Owner.current()
    runner = CellRunner(settings.data_dir, None, *shared(settings, owner))
    left = 0
    for job in jobs(plan):
        for run in job.runs:
            ended = execute(run, settings, runner, owner)
            left += ended.kind in ("failed", "unwritten", "claimed")
            messages.print(f"{run.cell}: {ended.cause or ended.kind}", highlight=False, markup=False)
    for planned in plan.running:
        messages.print(f"{planned.run.cell}: another process has claimed it", highlight=False, markup=False)
    return left + len(plan.running)
