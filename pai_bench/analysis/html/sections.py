"""Tables of the HTML page, from the data of a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from pai_bench import results
from pai_bench.analysis.check.objection import seed_list
from pai_bench.analysis.columns import OURS, PANEL, POINT
from pai_bench.analysis.html.tables import (
    SETTING,
    Column,
    Row,
    Table,
    decimal,
    known,
    percentage,
    sparsity,
    table,
    whole,
    word,
)
from pai_bench.analysis.records import Records

METHOD = word("method", "Method")
SEED = whole("seed", "Seed")


def points(summary: pd.DataFrame) -> Table:
    """Return the table of all points; its numbers equal table.csv."""
    columns = (
        METHOD,
        *SETTING,
        sparsity(),
        whole("n", "n"),
        percentage("mean", "Mean (%)"),
        percentage("std", "Std"),
        percentage("low", "Lowest (%)"),
        percentage("high", "Highest (%)"),
        *(whole(name, title, varies=True) for name, title in _COUNTS),
    )
    intro = (
        "Accuracy over seeds: mean, sample standard deviation (ddof 1; none where runs failed), and range, in per cent."
    )
    found = summary.assign(missing=summary["planned"] - summary["runs"])
    return table("points", "Points", intro, columns, found.to_dict("records"))


_COUNTS = (
    ("missing", "Missing"),
    ("collapsed", "Collapsed"),
    ("diverged", "Diverged"),
    ("at_chance", "At chance"),
    ("tied", "Decided by ties"),
)


def runs(rows: pd.DataFrame, records: Records) -> Table:
    """Return the table of all runs, with links to settings and environment; its numbers equal results.csv."""
    columns = (
        METHOD,
        *SETTING,
        sparsity(),
        SEED,
        percentage("accuracy", "Accuracy (%)"),
        word("status", "Status", varies=True),
        percentage("effective_sparsity", "Effective sparsity (%)", 3),
        whole("n_kept", "Kept weights"),
        decimal("score_seconds", "Scoring (s)"),
        decimal("train_seconds", "Training (s)"),
        Column("mask_hash", "Masks", lambda row: _hash(row.get("mask_hash"))),
        Column("init_hash", "Initial weights", lambda row: _hash(row.get("init_hash"))),
        Column(
            "finished_at", "Finished", lambda row: str(row["finished_at"])[:16] if known(row.get("finished_at")) else ""
        ),
        _link("settings", "Settings", records, 0),
        _link("environment", "Environment", records, 1),
    )
    intro = "Every run that counts, with the hashes of its masks and initial weights, its settings and its environment."
    return table("runs", "Runs", intro, columns, rows.to_dict("records"))


def _link(name: str, title: str, records: Records, part: int) -> Column:
    def text(row: Row) -> str:
        held = records.by_path.get(row.get("path") or "")
        return "" if held is None else Markup('<a href="#{0}-{1}">{1}</a>').format(name, held[part] + 1)

    return Column(name, title, text)


def _hash(value: Any) -> str:
    return str(value)[:8] if known(value) else ""


def failures(root: Path, rows: pd.DataFrame, missing: pd.DataFrame) -> Table:
    """Return the table of failed runs and of planned runs without a result; equal runs of several seeds share a row."""
    causes = _causes(root)
    seeds: dict[tuple[Any, ...], list[int]] = {}
    failed = rows[(rows["status"] != "ok") | rows["at_chance"]]
    for row in failed.to_dict("records"):
        state = "at chance" if row["status"] == "ok" else row["status"]
        seeds.setdefault((*(row[key] for key in POINT), state, _ENDED[state]), []).append(row["seed"])
    for row in missing.to_dict("records"):
        cause = causes.get(tuple(row[key] for key in ("method", *PANEL, "sparsity", "seed")), "")
        seeds.setdefault((*(row[key] for key in POINT), row["state"], cause), []).append(row["seed"])
    found = [
        {**dict(zip((*POINT, "state", "cause"), key, strict=True)), "seeds": seed_list(held), "runs": len(held)}
        for key, held in seeds.items()
    ]
    columns = (METHOD, *SETTING, sparsity(), word("seeds", "Seeds"), whole("runs", "Runs"), word("state", "State"),
               word("cause", "Cause"))  # fmt: skip
    intro = "Runs that failed to learn, which count at their accuracy or at chance, and planned runs without a result."
    return table("failures", "Failures", intro, columns, found)


_ENDED = {
    "collapsed": "a prunable layer kept no weight",
    "diverged": "a loss or an output was not finite",
    "at chance": "the accuracy is at most 1.5 times that of guessing",
}


def _causes(root: Path) -> Mapping[tuple[Any, ...], str]:
    """Return the causes in the failure records, by method, data set, model, recipe, sparsity and seed."""
    found: dict[tuple[Any, ...], str] = {}
    for name in results.names(results.failures_folder(root), ".json"):
        key = results.ResultKey.parse(name)
        failure = None if key is None else results.read_failure(root, key)
        if key is not None and failure is not None:
            cell = key.cell
            found[cell.method, cell.dataset, cell.model, key.recipe, cell.sparsity, cell.seed] = failure.cause
    return found


def costs(rows: pd.DataFrame) -> Table | None:
    """Return the table of seconds by method and setting, or None if no run has a cost."""
    ours = rows[rows["source"] == OURS]
    if ours.empty or not ours[["score_seconds", "train_seconds"]].notna().any(axis=None):
        return None
    found = []
    for key, group in ours.groupby(["method", *PANEL, "device"], sort=False, dropna=False):
        seconds = group[["score_seconds", "train_seconds"]]
        found.append(
            {
                **dict(zip(["method", *PANEL, "device"], key, strict=True)),
                "source": OURS,
                "runs": len(group),
                "scoring": float(seconds["score_seconds"].median()),
                "training": float(seconds["train_seconds"].median()),
                "hours": float(seconds.sum().sum()) / 3600,
            }
        )
    columns = (
        METHOD,
        *SETTING,
        word("device", "Device", varies=True),
        whole("runs", "Runs"),
        decimal("scoring", "Scoring, median (s)"),
        decimal("training", "Training, median (s)"),
        decimal("hours", "Total (h)", 3),
    )
    intro = "Seconds of scoring and training of one run, and hours of all runs."
    return table("cost", "Cost", intro, columns, found)


def settings(records: Records) -> Iterator[dict[str, Any]]:
    """Yield the settings of each method, with the number of its recipe in `recipes`."""
    numbers = {values: number for number, values in enumerate(_recipe_texts(records), 1)}
    for number, one in enumerate(records.settings, 1):
        yield {
            "number": number,
            "method": one.method,
            "recipe": one.recipe,
            "recipe_number": numbers[one.recipe_values],
            "version": one.method_version,
            "hyperparameters": ", ".join(f"{key} = {value}" for key, value in one.hyperparameters),
            "fingerprint": one.fingerprint[:16],
            "data": one.data_origin,
            "plugins": ", ".join(name for name, _ in one.plugins),
        }


def recipes(records: Records) -> Iterator[dict[str, Any]]:
    """Yield each recipe with its values, in the order of their first use."""
    for number, text in enumerate(_recipe_texts(records), 1):
        names = dict.fromkeys(one.recipe for one in records.settings if one.recipe_values == text)
        values = [
            (f"{part}.{key}", json.dumps(value) if not isinstance(value, str) else value)
            for part, entries in json.loads(text).items()
            for key, value in (entries.items() if isinstance(entries, dict) else [("", entries)])
        ]
        yield {"number": number, "names": ", ".join(names), "values": values}


def _recipe_texts(records: Records) -> list[str]:
    return list(dict.fromkeys(one.recipe_values for one in records.settings))


def environments(records: Records) -> Iterator[dict[str, Any]]:
    """Yield the environments of the results."""
    counts = [0] * len(records.environments)
    for _, number in records.by_path.values():
        counts[number] += 1
    for number, (one, count) in enumerate(zip(records.environments, counts, strict=True), 1):
        yield {
            "number": number,
            "runs": count,
            "code": f"commit {one.commit[:12]}" if one.commit else f"sources {one.source_hash[:12]}",
            "dirty": one.dirty[:12],
            "versions": ", ".join(f"{name} {version}" for name, version in one.versions),
            "host": one.host,
            "platform": one.platform,
            "device": one.device,
        }


def inline(text: str) -> Markup:
    """Return a text with its `code` between backticks as <code>."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )
