"""Comparison of a published point with its recipe: network, training, and epoch of the accuracy."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pai_bench.cells import DENSE
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Recipe, load, parse_settings, variants

LEVELS = ("exact", "near", "context")
"""Levels of a match from the best to the worst; `near` has small differences, `context` another protocol."""

COMPARED = ("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay", "schedule", "milestones", "gamma")
"""Keys of a recipe's table [train] whose values must be equal."""

_WORDS = {
    "epochs": "epochs",
    "batch_size": "batch size",
    "lr": "learning rate",
    "momentum": "momentum",
    "nesterov": "Nesterov momentum",
    "weight_decay": "weight decay",
    "schedule": "schedule",
    "milestones": "drops at epochs",
    "gamma": "drop factor",
}


@dataclass(frozen=True)
class Difference:
    """A difference between a published point and a recipe, and the best match that it allows."""

    text: str
    level: str
    methods: tuple[str, ...] = ()
    """Published names of the methods concerned; empty for all."""


@dataclass(frozen=True)
class Protocol:
    """Training of some published networks on some data sets, as the released code or the paper states it."""

    paper: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    """Published names."""
    source: str
    train: Mapping[str, Any]
    """Values by key of `COMPARED`; a missing key is not known."""
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Point:
    """Columns of a published result that determine its match."""

    paper: str
    dataset: str
    model: str
    model_published: str
    method: str
    method_published: str
    n_prunable: int | None
    epoch: str
    recipe: str


def judge(point: Point, among: Sequence[Protocol]) -> tuple[str, str]:
    """Compute the level of the match and the differences in words, separated by "; ".

    A point is a match (exact or near) when network, number of prunable weights and all values of `COMPARED` are known
    and equal to the recipe's. It is exact when the accuracy is the last epoch's and no other difference is listed.

    Raises: PaiBenchError when not exactly one protocol applies to the point, or its recipe cannot be loaded.
    """
    protocol = _protocol(point, among)
    found = [*_network(point), *_training(point, protocol), *_epoch(point)]
    scored = point.method != DENSE  # differences of a method do not apply to the unpruned network
    found += [d for d in protocol.differences if not d.methods or (scored and point.method_published in d.methods)]
    level = max((difference.level for difference in found), key=LEVELS.index, default=LEVELS[0])
    return level, "; ".join(difference.text for difference in found)


def _protocol(point: Point, among: Sequence[Protocol]) -> Protocol:
    fitting = [
        protocol
        for protocol in among
        if protocol.paper == point.paper
        and point.dataset in protocol.datasets
        and point.model_published in protocol.models
    ]
    if len(fitting) != 1:
        raise PaiBenchError(
            f"{len(fitting)} protocols apply to {point.paper}, {point.dataset}, {point.model_published}",
            "list each network of a paper in one protocol of protocols.toml",
        )
    return fitting[0]


def _network(point: Point) -> list[Difference]:
    if not point.model:
        return [Difference("network not in pai-bench", "context")]
    if point.n_prunable is None:
        return [Difference("number of prunable weights not known", "context")]
    ours = prunable_weights().get((point.dataset, point.model))
    if ours is None:
        return [Difference("number of prunable weights not counted for this data set", "context")]
    if ours != point.n_prunable:
        return [Difference(f"{point.n_prunable:,} prunable weights ({point.model}: {ours:,})", "context")]
    return []


def _training(point: Point, protocol: Protocol) -> list[Difference]:
    if not point.recipe:
        return [Difference(f"training of no recipe ({_summary(protocol.train)})", "context")]
    ours = _recipe(point.recipe, point.dataset, point.model).train
    found = []
    for key in COMPARED:
        required = getattr(ours, key)
        if key not in protocol.train:
            found.append(Difference(f"{_WORDS[key]} not known (recipe: {_text(required)})", "context"))
        elif protocol.train[key] != required:
            text = f"{_WORDS[key]} {_text(protocol.train[key])} (recipe: {_text(required)})"
            found.append(Difference(text, "context"))
    return found


def _summary(train: Mapping[str, Any]) -> str:
    """Return the best known values of a training in few words."""
    words = [f"{train['epochs']} epochs"] if "epochs" in train else []
    short = {"batch_size": "batch size", "lr": "lr", "weight_decay": "weight decay", "milestones": "drops at"}
    words += [f"{name} {_text(train[key])}" for key, name in short.items() if key in train]
    return ", ".join(words) or "not known"


def _epoch(point: Point) -> list[Difference]:
    if point.epoch == "last":
        return []
    words = {"best-test": "best test epoch", "best-val": "epoch chosen on validation data"}
    return [Difference(words.get(point.epoch, "epoch not stated"), "near")]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@cache
def _recipe(name: str, dataset: str, model: str) -> Recipe:
    base, *settings = name.split("+")
    (recipe,) = variants(load(base, dataset, model), parse_settings(settings))
    return recipe


@cache
def protocols() -> tuple[Protocol, ...]:
    """Return the protocols of the papers from protocols.toml.

    Raises: PaiBenchError for an unknown key of a recipe, and an unknown level.
    """
    text = resources.files(__package__).joinpath("protocols.toml").read_text(encoding="utf-8")
    return tuple(_read(entry) for entry in tomllib.loads(text)["protocol"])


def _read(entry: Mapping[str, Any]) -> Protocol:
    train = {key: tuple(value) if isinstance(value, list) else value for key, value in entry["train"].items()}
    differences = tuple(
        Difference(item["text"], item["level"], tuple(item.get("methods", ()))) for item in entry.get("difference", ())
    )
    wrong = [key for key in train if key not in COMPARED] + [d.level for d in differences if d.level not in LEVELS]
    if wrong:
        raise PaiBenchError(
            f"protocols.toml: unknown {', '.join(wrong)}", f"keys are {', '.join(COMPARED)}; levels {', '.join(LEVELS)}"
        )
    models, datasets = tuple(entry["models"]), tuple(entry["datasets"])
    return Protocol(entry["paper"], datasets, models, entry["source"], train, differences)


@cache
def prunable_weights() -> dict[tuple[str, str], int]:
    """Return the numbers of prunable weights of the networks by (data set, model), without building them."""
    text = resources.files(__package__).joinpath("prunable.toml").read_text(encoding="utf-8")
    return {
        (dataset, model): count for dataset, counts in tomllib.loads(text).items() for model, count in counts.items()
    }
