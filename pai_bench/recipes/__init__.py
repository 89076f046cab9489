"""Everything but the cell that moves a number: TOML files in which each value names its source, and the fingerprint.

A recipe file holds `summary`, the tables [init], [train], [data] and [scoring], and a table [datasets.NAME] for each
data set it is meant for, with the values that differ there. Each value is written `key = { value = …, source = "…" }`.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pai_bench.errors import PaiBenchError, unknown

SCHEDULES = ("step", "cosine")
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Init:
    """How the weights are drawn: the name of a scheme of `pai_bench.models`."""

    scheme: str


@dataclass(frozen=True)
class Train:
    """SGD and its schedule; lengths in epochs."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    """On every parameter, biases and norms too, as in all the papers' code."""
    schedule: str
    """"step": times `gamma` at each of `milestones`; "cosine": to 0 at the end."""
    milestones: tuple[int, ...]
    gamma: float
    warmup_epochs: float
    """Linear from 0."""
    evaluate_every: int
    """The last epoch is always evaluated."""


@dataclass(frozen=True)
class Data:
    """Augmentation of training images, and normalisation by channel in units of [0, 1]."""

    padding: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Scoring:
    """The data that methods score with: class-balanced training images, not augmented."""

    batch_size: int
    batches: int
    """Where the method has no number of its own."""
    dtype: str


@dataclass(frozen=True)
class Recipe:
    """A recipe as it applies to one data set."""

    name: str
    dataset: str
    init: Init
    train: Train
    data: Data
    scoring: Scoring
    summary: str = field(default="", compare=False)
    sources: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """(table.key, where its value is from)"""

    def values(self) -> dict[str, dict[str, Any]]:
        """All values by table and key, as plain data."""
        return {table: asdict(getattr(self, table)) for table in _TABLES}

    def as_dict(self) -> dict[str, Any]:
        """Name, data set and values; `from_dict` reads it."""
        return {"name": self.name, "dataset": self.dataset, **self.values()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_dict` wrote, without summary and sources."""
        tables = {name: kind(**_tuples(plain[name])) for name, kind in _TABLES.items()}
        return cls(name=plain["name"], dataset=plain["dataset"], **tables)


_TABLES: dict[str, type] = {"init": Init, "train": Train, "data": Data, "scoring": Scoring}


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@dataclass(frozen=True)
class Defaults:
    """What a sweep takes for a data set when nothing is said."""

    model: str
    recipe: str
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]


def names() -> list[str]:
    """All recipes that come with pai-bench, in alphabetical order."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in resources.files(__package__).iterdir()
        if path.name.endswith(".toml") and path.name != "defaults.toml"
    )


def defaults(dataset: str) -> Defaults:
    """The defaults of a data set.

    Raises: PaiBenchError when there are none.
    """
    table = tomllib.loads(resources.files(__package__).joinpath("defaults.toml").read_text(encoding="utf-8"))
    if dataset not in table:
        raise unknown("data set", dataset, table)
    return Defaults(**_tuples(table[dataset]))


def load(name: str, dataset: str) -> Recipe:
    """The recipe `name` (or the file, when it ends in .toml) for a data set.

    Raises: PaiBenchError that names the file and the key for anything unknown, missing or of the wrong kind, and
        when the recipe is not meant for the data set.
    """
    if name.endswith(".toml"):
        where, label = Path(name), Path(name).stem
        try:
            text = where.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PaiBenchError(f"recipe file {name} cannot be read: {error}", "give the path of a TOML file") from None
    else:
        if name not in names():
            raise unknown("recipe", name, names())
        where, label = Path(f"{name}.toml"), name
        text = resources.files(__package__).joinpath(where.name).read_text(encoding="utf-8")
    return _parse(text, str(where), label, dataset)


@cache
def _parse(text: str, where: str, name: str, dataset: str) -> Recipe:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PaiBenchError(f"{where} is not valid TOML: {error}", "mend that line") from None
    for key in content:
        if key not in (*_TABLES, "summary", "datasets"):
            raise _unknown_key(where, key, (*_TABLES, "summary", "datasets"))
    meant = content.get("datasets", {})
    if not isinstance(meant, dict) or not all(isinstance(table, dict) for table in meant.values()):
        raise PaiBenchError(f"{where}: datasets is not a table of tables", "write [datasets.NAME]")
    for key, table in meant.items():
        for inner in table:
            if inner not in _TABLES:
                raise _unknown_key(where, f"datasets.{key}.{inner}", [f"datasets.{key}.{known}" for known in _TABLES])
    if dataset not in meant:
        known = ", ".join(sorted(meant)) or "none"
        raise PaiBenchError(
            f"recipe {name} is not meant for data set {dataset}", f"it is for {known}; choose another --recipe"
        )
    parts: dict[str, Any] = {}
    sources: list[tuple[str, str]] = []
    for table, kind in _TABLES.items():
        merged = {
            **_table(content, table, where, table),
            **_table(meant[dataset], table, where, f"datasets.{dataset}.{table}"),
        }
        parts[table] = _build(kind, table, merged, where)
        sources += [(f"{table}.{key}", entry["source"]) for key, entry in merged.items()]
    recipe = Recipe(
        name=name, dataset=dataset, summary=str(content.get("summary", "")), sources=tuple(sources), **parts
    )
    _check(recipe, where)
    return recipe


def _unknown_key(where: str, key: str, known: Any) -> PaiBenchError:
    error = unknown("key", key, known)
    return PaiBenchError(f"{where}: {error.cause}", error.remedy)


def _table(content: Mapping[str, Any], table: str, where: str, path: str) -> dict[str, dict[str, Any]]:
    """The entries of a table by key, each with `value` and `source`."""
    entries = content.get(table, {})
    known = [f.name for f in fields(_TABLES[table])]
    if not isinstance(entries, dict):
        raise PaiBenchError(f"{where}: {path} is not a table", f"write [{path}]")
    for key, entry in entries.items():
        if key not in known:
            raise _unknown_key(where, f"{path}.{key}", [f"{path}.{name}" for name in known])
        if not isinstance(entry, dict) or set(entry) != {"value", "source"} or not isinstance(entry["source"], str):
            raise PaiBenchError(
                f"{where}: {path}.{key} does not give a value and its source",
                f'write {key} = {{ value = …, source = "where it is from" }}',
            )
    return entries


_KINDS: dict[str, tuple[str, type, type | None]] = {
    # annotation: (in words, type, type of the items)
    "int": ("a whole number", int, None),
    "float": ("a number", float, None),
    "bool": ("true or false", bool, None),
    "str": ("a text", str, None),
    "tuple[int, ...]": ("a list of whole numbers", tuple, int),
    "tuple[float, ...]": ("a list of numbers", tuple, float),
}


def _build(kind: type, table: str, entries: Mapping[str, Mapping[str, Any]], where: str) -> Any:
    values = {}
    for f in fields(kind):
        if f.name not in entries:
            raise PaiBenchError(f"{where}: {table}.{f.name} is missing", f"add it under [{table}]")
        words, wanted, items = _KINDS[str(f.type)]
        value = _tuples(entries[f.name])["value"]
        if wanted is tuple and isinstance(value, tuple):
            value = tuple(_number(item, items) for item in value)
            good = all(type(item) is items for item in value)
        else:
            value = _number(value, wanted)
            good = type(value) is wanted
        if not good:
            raise PaiBenchError(f"{where}: {table}.{f.name} = {value!r} is not {words}", f"write {words}")
        values[f.name] = value
    return kind(**values)


def _number(value: Any, wanted: type | None) -> Any:
    return float(value) if wanted is float and type(value) is int else value


def _check(recipe: Recipe, where: str) -> None:
    train, data, scoring = recipe.train, recipe.data, recipe.scoring

    def positive(x: float) -> bool:
        return 0 < x < math.inf

    def not_negative(x: float) -> bool:
        return 0 <= x < math.inf

    rules: list[tuple[str, Any, bool, str]] = [
        ("train.epochs", train.epochs, positive(train.epochs), "1 or more"),
        ("train.batch_size", train.batch_size, positive(train.batch_size), "1 or more"),
        ("train.lr", train.lr, positive(train.lr), "above 0"),
        ("train.momentum", train.momentum, 0 <= train.momentum < 1, "in [0, 1)"),
        ("train.nesterov", train.nesterov, not train.nesterov or train.momentum > 0, "false when momentum is 0"),
        ("train.weight_decay", train.weight_decay, not_negative(train.weight_decay), "0 or more"),
        ("train.schedule", train.schedule, train.schedule in SCHEDULES, " or ".join(SCHEDULES)),
        ("train.milestones", train.milestones, list(train.milestones) == sorted(train.milestones), "ascending"),
        ("train.gamma", train.gamma, positive(train.gamma), "above 0"),
        ("train.warmup_epochs", train.warmup_epochs, 0 <= train.warmup_epochs < train.epochs, "in [0, epochs)"),
        ("train.evaluate_every", train.evaluate_every, positive(train.evaluate_every), "1 or more"),
        ("data.padding", data.padding, not_negative(data.padding), "0 or more"),
        (
            "data.std",
            data.std,
            all(map(positive, data.std)) and len(data.std) == len(data.mean),
            "above 0, as many as mean",
        ),
        ("scoring.batch_size", scoring.batch_size, positive(scoring.batch_size), "1 or more"),
        ("scoring.batches", scoring.batches, positive(scoring.batches), "1 or more"),
        ("scoring.dtype", scoring.dtype, scoring.dtype in DTYPES, " or ".join(DTYPES)),
    ]
    for key, value, good, allowed in rules:
        if not good:
            raise PaiBenchError(f"{where}: {key} = {value!r} cannot be", f"it must be {allowed}")


def fingerprint(payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain data, whatever the order of its keys."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def result_fingerprint(
    *,
    method_name: str,
    method_version: int,
    hyperparameters: Mapping[str, Any],
    dataset: str,
    model: str,
    recipe: Recipe,
    trainer_version: int,
) -> str:
    """The validity of a result: of all that moves its number but sparsity and seed, which name it.

    Hyper-parameters with the defaults filled in. Paths, workers, hosts and the recipe's name are not in it.
    """
    return fingerprint(
        {
            "method": {"name": method_name, "version": method_version, "hyperparameters": dict(hyperparameters)},
            "dataset": dataset,
            "model": model,
            "recipe": recipe.values(),
            "trainer": trainer_version,
        }
    )
