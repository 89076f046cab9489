"""What a recipe holds, as frozen dataclasses, and which values can be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from pai_bench.errors import PaiBenchError

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
        return {table: asdict(getattr(self, table)) for table in TABLES}

    def identity(self) -> dict[str, dict[str, Any]]:
        """The values that the fingerprint covers: all but those that are at a default."""
        defaults = {
            (table, f.name): f.default
            for table, kind in TABLES.items()
            for f in fields(kind)
            if f.default is not MISSING
        }
        return {
            table: {key: value for key, value in values.items() if defaults.get((table, key), MISSING) != value}
            for table, values in self.values().items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Name, data set and values; `from_dict` reads it."""
        return {"name": self.name, "dataset": self.dataset, **self.values()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_dict` wrote, without summary and sources."""
        tables = {name: kind(**tuples(plain[name])) for name, kind in TABLES.items()}
        return cls(name=plain["name"], dataset=plain["dataset"], **tables)


TABLES: dict[str, type] = {"init": Init, "train": Train, "data": Data, "scoring": Scoring}


def tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of plain data with tuples in the place of lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@dataclass(frozen=True)
class Defaults:
    """What a sweep takes for a data set when nothing is said."""

    model: str
    recipe: str
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]


def check(recipe: Recipe, where: str) -> None:
    """See to it that every value can be.

    Raises: PaiBenchError that names `where`, the key and what it must be.
    """
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
