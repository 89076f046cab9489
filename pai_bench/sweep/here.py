"""`--where debug`: one cell after the other in this very process, where a debugger can look."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pai_bench import host
from pai_bench.experiment import Laboratory
from pai_bench.sweep.execution import execute, shared_scores
from pai_bench.sweep.owners import Owner
from pai_bench.sweep.plan import Plan, jobs


def run(plan: Plan, root: Path, data_dir: Path | None, *, redo: bool, messages: Console) -> int:
    """Run what is to do; returns how many cells failed."""
    host.prepare()
    laboratory, owner = Laboratory(data_dir, scores=shared_scores(root, redo)), Owner.current()
    failed = 0
    for job in jobs(plan):
        for run in job.runs:
            ended = execute(run, root, laboratory, owner, redo=redo)
            failed += ended.kind in ("failed", "unwritten")
            messages.print(f"{run.cell}: {ended.cause or ended.kind}", highlight=False, markup=False)
    return failed
