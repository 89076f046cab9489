"""Cells on which jobs die: counted, so that a cell that kills every job is not submitted for ever."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.atomic import write_json
from pai_bench.sweep.claims import Held

MAX_DEATHS = 3
"""A cell on which this many jobs have died is recorded as failed."""
_NOT_ITS_FAULT = ("CANCELLED", "PREEMPTED", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL", "DEADLINE", "REVOKED")


def count(root: Path, held: Iterable[Held], jobs: Mapping[str, str]) -> dict[str, str]:
    """Note the deaths of jobs that had claimed a cell and died on it; returns the causes of the cells that have had
    their share, by name, which are recorded as failed."""
    given_up = {}
    for claim in held:
        job = claim.owner.job
        state = jobs.get(job or "", "gone")
        if job is None or claim.verdict != "dead" or state in _NOT_ITS_FAULT:
            continue
        place = _place(root, results.name(claim.cell, claim.recipe, claim.fingerprint))
        deaths = _read(place)
        deaths[claim.owner.id] = f"{job} {state}"
        write_json(place, deaths)
        if len(deaths) >= MAX_DEATHS:
            address = (root, claim.cell, claim.recipe, claim.fingerprint)
            kind = "oom" if state == "OUT_OF_MEMORY" else "died"
            hint = "; is there enough memory (--slurm mem=…)?"
            cause = f"{len(deaths)} jobs died on it ({', '.join(deaths.values())}){hint}"
            if not results.has_failed(*address):
                results.write_failure(*address, cause=cause, traceback="", kind=kind)
            given_up[results.name(claim.cell, claim.recipe, claim.fingerprint)] = cause
    return given_up


def forget(root: Path, names: Iterable[str]) -> None:
    """Let cells begin to count anew: somebody wants to try them again."""
    for cell in names:
        _place(root, cell).unlink(missing_ok=True)


def _place(root: Path, cell: str) -> Path:
    place = root / "state" / "deaths" / cell
    return place.with_name(f"{place.name}.json")


def _read(place: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        return dict(json.loads(place.read_bytes()))
    return {}
