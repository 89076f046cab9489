"""Command `pai-bench report --check`: list the objections to a results folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from pai_bench.analysis import records
from pai_bench.analysis.check.objection import Objection
from pai_bench.analysis.check.rules import find
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.statistics import compare_controls, summarise

SHOWN = 5
"""Number of places that the text lists for an objection; JSON lists all."""


def run(collection: Collection, as_json: bool, margin: float) -> bool:
    """Print the objections to stdout; return True if there is none.

    margin: difference in accuracy (fraction) up to which a control equals its method.
    """
    dirty = records.read(collection.rows).dirty()
    found = find(collection, summarise(collection), compare_controls(collection, margin), dirty)
    if as_json:
        print(json.dumps({"objections": [asdict(objection) for objection in found]}, indent=1))
    else:
        print("\n".join(lines(found)))
    return not found


def lines(objections: Sequence[Objection]) -> Iterable[str]:
    """Return the objections as text."""
    if not objections:
        return ["no objection"]
    return [line for objection in objections for line in _lines(objection)]


def _lines(objection: Objection) -> list[str]:
    more = len(objection.where) - SHOWN
    return [
        f"{objection.code}: {objection.cause}",
        *(f"    {place}" for place in objection.where[:SHOWN]),
        *([f"    and {more} more (--json lists all)"] if more > 0 else []),
        f"  remedy: {objection.remedy}",
    ]
