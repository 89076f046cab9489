"""Reproduction files: sweeps, published values and their sources, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import product
from typing import Any

from pai_bench import cells, recipes
from pai_bench.analysis import published
from pai_bench.errors import PaiBenchError, unknown

MEASURES = ("error", "accuracy")
TABLES = ("summary", "paper", "differs", "hours", "sweep", "quick", "entry", "published", "budgets")


@dataclass(frozen=True)
class Other:
    """A value for the same entry from another source, in per cent; shown, not judged."""

    value: str
    source: str


@dataclass(frozen=True)
class Entry:
    """A published value and the point of the sweep that repeats it."""

    label: str
    dataset: str
    model: str
    method: str
    sparsity: float
    recipe: str
    """Name of the recipe, with the values that the sweep sets."""
    planned: int
    """Number of seeds in the sweep."""
    measure: str
    """One of MEASURES, in per cent."""
    value: str
    """Published value as printed, in per cent."""
    source: str
    spread: float | None = None
    """Published standard deviation in percentage points; None if none was printed."""
    n: int | None = None
    """Number of published runs; None if not stated."""
    others: tuple[Other, ...] = ()

    @property
    def published(self) -> float:
        """Published value as a number."""
        return float(self.value)

    @property
    def tolerance(self) -> float:
        """Published spread, or half a unit of the last printed digit."""
        return half_unit(self.value) if self.spread is None else self.spread


@dataclass(frozen=True)
class Target:
    """An accuracy to reach, and the fewest weights known to reach it."""

    accuracy: float
    weights: int
    source: str


@dataclass(frozen=True)
class Reproduction:
    """A published table, the sweeps that repeat it, and the differences from the published protocol."""

    name: str
    summary: str
    paper: str
    differs: tuple[str, ...]
    sweeps: tuple[Mapping[str, Any], ...]
    """Options of `pai-bench sweep` by long name; `set` is a table of recipe values."""
    quick: Mapping[str, Any]
    """Options that replace those of every sweep in the smoke test."""
    entries: tuple[Entry, ...]
    targets: tuple[Target, ...] = ()
    recipes: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Names of the recipes of the sweeps, by data set and model."""


def half_unit(text: str) -> float:
    """Return half a unit of the last digit of a number as printed: 0.05 for "1.6"."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def names() -> list[str]:
    """Return the names of all reproductions in alphabetical order."""
    files = resources.files(__package__).iterdir()
    return sorted(path.name.removesuffix(".toml") for path in files if path.name.endswith(".toml"))


def load(name: str, quick: bool = False) -> Reproduction:
    """Read a reproduction; with `quick`, its sweeps and recipes are those of the smoke test.

    Raises: PaiBenchError for an unknown name.
    """
    if name not in names():
        raise unknown("reproduction", name, names())
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse(name, text, quick)


def parse(name: str, text: str, quick: bool = False) -> Reproduction:
    """Parse the content of a reproduction file.

    Raises: PaiBenchError for unknown or missing keys, for entries that no sweep covers, and for equal labels.
    """
    content = tomllib.loads(text)
    where = f"{name}.toml"
    for key in content:
        if key not in TABLES:
            raise _at(where, unknown("key", key, TABLES))
    for key in ("summary", "paper", "sweep"):
        if key not in content:
            raise PaiBenchError(f"{where}: {key} is missing", f"add {key}")
    smoke = content.get("quick", {})
    sweeps = tuple(_merged(sweep, smoke) if quick else sweep for sweep in content["sweep"])
    entries = [_entry(where, table, sweeps) for table in content.get("entry", ())]
    for table in content.get("published", ()):
        entries += _selected(where, table, sweeps)
    labels = [entry.label for entry in entries]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise PaiBenchError(f"{where}: entries share a label: {', '.join(sorted(twice))}", "give each its own label")
    targets = tuple(Target(**table) for table in content.get("budgets", {}).get("target", ()))
    if not entries and not targets:
        raise PaiBenchError(f"{where}: there is no published value", "add [[entry]], [[published]] or [budgets]")
    return Reproduction(
        name, content["summary"], content["paper"], tuple(content.get("differs", ())), sweeps, smoke, tuple(entries),
        targets, _recipes(sweeps),
    )  # fmt: skip


def _at(where: str, error: PaiBenchError) -> PaiBenchError:
    return PaiBenchError(f"{where}: {error.cause}", error.remedy)


def _merged(sweep: Mapping[str, Any], smoke: Mapping[str, Any]) -> dict[str, Any]:
    return {**sweep, **smoke, "set": {**sweep.get("set", {}), **smoke.get("set", {})}}


def _entry(where: str, table: Mapping[str, Any], sweeps: tuple[Mapping[str, Any], ...]) -> Entry:
    known = {"label", "dataset", "model", "method", "sparsity", "set", "measure", "value", "source", "spread", "n",
             "others"}  # fmt: skip
    for key in table:
        if key not in known:
            raise _at(where, unknown("key of an entry", key, known))
    label = str(table.get("label", ""))
    if table.get("measure") not in MEASURES:
        raise PaiBenchError(
            f"{where}: entry {label!r} has measure {table.get('measure')!r}", f"write one of {', '.join(MEASURES)}"
        )
    place = {key: table[key] for key in ("dataset", "model", "method", "sparsity")}
    recipe, planned = _recipe(where, label, place, table.get("set", {}), sweeps)
    return Entry(
        label=label,
        **place,
        recipe=recipe,
        planned=planned,
        measure=table["measure"],
        value=str(table["value"]),
        source=table["source"],
        spread=table.get("spread"),
        n=table.get("n"),
        others=tuple(Other(**other) for other in table.get("others", ())),
    )


def _recipe(
    where: str, label: str, place: Mapping[str, Any], values: Mapping[str, Any], sweeps: tuple[Mapping[str, Any], ...]
) -> tuple[str, int]:
    """Return the recipe's name and the number of seeds of the sweep that covers an entry.

    `values` selects one of the values where the sweep sets several of a key.
    """
    for sweep in sweeps:
        datasets, models = (str(sweep[key]).split(",") for key in ("datasets", "models"))
        methods = [*cells.split_specs(str(sweep["methods"])), cells.DENSE]
        if place["dataset"] in datasets and place["model"] in models and place["method"] in methods:
            found = _variants(sweep, place["dataset"], place["model"], values)
            if len(found) == 1:
                return found[0], len(cells.parse_seeds(str(sweep["seeds"])))
            raise PaiBenchError(f"{where}: entry {label!r} fits {len(found)} recipes", "add a table set to the entry")
    raise PaiBenchError(f"{where}: no sweep covers entry {label!r}", "correct the entry or the sweep")


def _variants(sweep: Mapping[str, Any], dataset: str, model: str, values: Mapping[str, Any]) -> list[str]:
    """Return the names of a sweep's recipes with further values."""
    settings = recipes.parse_settings(_settings({**sweep.get("set", {}), **values}))
    loaded = recipes.load(str(sweep["recipes"]), dataset, model)
    return [recipe.name for recipe in recipes.variants(loaded, settings)]


def _recipes(sweeps: tuple[Mapping[str, Any], ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for sweep in sweeps:
        for place in product(str(sweep["datasets"]).split(","), str(sweep["models"]).split(",")):
            found[place] = tuple(dict.fromkeys((*found.get(place, ()), *_variants(sweep, *place, {}))))
    return found


def _selected(where: str, table: Mapping[str, Any], sweeps: tuple[Mapping[str, Any], ...]) -> Iterator[Entry]:
    """Yield an entry for each published row with these columns, at the sparsities of the sweep."""
    rows = published.load()
    chosen = rows[rows["suspect"].fillna("") == ""]
    for column, value in table.items():
        if column not in rows:
            raise _at(where, unknown("column", column, list(rows.columns)))
        chosen = chosen[chosen[column] == value]
    grid = {s for sweep in sweeps for s in cells.parse_sparsities(str(sweep["sparsities"]))}
    for row in chosen.to_dict("records"):
        sparsity = cells.canonical_sparsity(row["sparsity"], 1e-12)
        covered = any(row["method"] in [*cells.split_specs(str(s["methods"])), cells.DENSE] for s in sweeps)
        if not covered or (sparsity not in grid and sparsity > 0):
            continue
        place = {"dataset": row["dataset"], "model": row["model"], "method": row["method"], "sparsity": sparsity}
        pruned = f"{100 * sparsity:.4g} % pruned" if sparsity else "not pruned"
        label = f"{row['method_published']}, {pruned}"
        recipe, planned = _recipe(where, label, place, {}, sweeps)
        missing = {key: row[key] != row[key] or row[key] is None or str(row[key]) == "<NA>" for key in ("std", "n")}
        yield Entry(
            label=label,
            **place,
            recipe=recipe,
            planned=planned,
            measure="accuracy",
            value=f"{100 * row['accuracy']:.2f}",
            source=row["source"],
            spread=None if missing["std"] else 100 * float(row["std"]),
            n=None if missing["n"] else int(row["n"]),
        )


def _settings(values: Mapping[str, Any]) -> list[str]:
    """Return the values of a table `set` as arguments of --set."""
    return [f"{key}={_text(value)}" for key, value in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def sweep_arguments(reproduction: Reproduction) -> list[list[str]]:
    """Return the arguments of `pai-bench sweep` for each sweep of a reproduction."""
    found = []
    for sweep in reproduction.sweeps:
        arguments = [part for key, value in sweep.items() if key != "set" for part in (f"--{key}", _text(value))]
        arguments += [part for text in _settings(sweep.get("set", {})) for part in ("--set", text)]
        found.append(arguments)
    return found
