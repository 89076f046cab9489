"""Checks of the data sets: those that the plans of the results folder need, and a list of the others on disk."""

from __future__ import annotations

from pathlib import Path

from pai_bench import results
from pai_bench.datasets import files
from pai_bench.doctor.checks import FAILED, OK, Check, Checks, tried


def checks(root: Path, data_dir: Path | None) -> Checks:
    """Check each data set that a plan needs; the others are only listed as present or absent."""
    planned = {line["dataset"] for plan in results.plans(root) for line in plan["cells"]}
    known = files.names()
    for name in sorted(planned):
        if name in known:
            yield tried(f"data {name}", "see pai-bench data check", lambda name=name: _needed(name, data_dir))  # type: ignore[misc]
    yield tried("data", "choose another folder with --data-dir", lambda: _others(data_dir, planned))


def _needed(name: str, data_dir: Path | None) -> Check:
    found = files.check(name, data_dir)
    if found.problem is not None:
        return Check(f"data {name}", FAILED, found.problem.cause, found.problem.remedy)
    return Check(f"data {name}", OK, found.origin)


def _others(data_dir: Path | None, planned: set[str]) -> Check:
    others = [name for name in files.names() if name not in planned]
    there = [name for name in others if files.present(name, data_dir)]
    absent = [name for name in others if name not in there]
    found = f"{files.data_root(data_dir)}: also on disk: {', '.join(there) or 'none'}"
    return Check("data", OK, found + (f"; absent, and not planned: {', '.join(absent)}" if absent else ""))
