"""Recipes: all settings besides the cell that affect a result, as TOML files with sources, and the fingerprint.

A recipe file has a `summary`, the tables [init], [train], [data] and [scoring], and a table [datasets.NAME] for each
supported data set, with the values that differ for it ([datasets.NAME.train] and so on). Values that depend on the
model are under [models.NAME], and values that depend on both under [datasets.NAME.models.NAME]; a model's NAME may be
a list, as in [models."vgg16-bn,vgg19-bn".train]. Each value is written `key = { value = …, source = "…" }`.
A key with a default may be omitted. A value equal to the default is excluded from the fingerprint, so that adding a key
keeps old results valid. For this reason such a default must never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pai_bench.recipes.loading import datasets, defaults, load, names, summary
from pai_bench.recipes.overrides import SOURCE as SET_BY_USER
from pai_bench.recipes.overrides import Settings, parse_settings, variants
from pai_bench.recipes.schema import (
    DTYPES,
    SCHEDULES,
    SCORING_DATA,
    TABLES,
    Data,
    Defaults,
    Init,
    Recipe,
    Scoring,
    Train,
)
from pai_bench.recipes.selection import Choice, Choices, choose

__all__ = [
    "DTYPES",
    "SCHEDULES",
    "SCORING_DATA",
    "SET_BY_USER",
    "TABLES",
    "Choice",
    "Choices",
    "Data",
    "Defaults",
    "Init",
    "Recipe",
    "Scoring",
    "Settings",
    "Train",
    "choose",
    "datasets",
    "defaults",
    "fingerprint",
    "load",
    "names",
    "parse_settings",
    "result_fingerprint",
    "summary",
    "variants",
]


def fingerprint(payload: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of plain data, independent of the order of its keys."""
    # A canonical text: sorted keys and no blanks. NaN is refused because it is not JSON.
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
    method_source: str | None = None,
    model_source: str | None = None,
) -> str:
    """Return the fingerprint of a result: a hash of everything that affects its numbers, except sparsity and seed.

    Pass hyper-parameters with the defaults filled in. `method_source` and `model_source` are the hashes of the source
    files of a plug-in's method and model. Paths, workers, hosts and the recipe's name are not included.
    """
    method = {"name": method_name, "version": method_version, "hyperparameters": dict(hyperparameters)}
    payload: dict[str, Any] = {
        "method": method,
        "dataset": dataset,
        "model": model,
        "recipe": recipe.identity(),
        "trainer": trainer_version,
    }
    if method_source is not None:
        method["source"] = method_source
    if model_source is not None:
        payload["model_source"] = model_source
    return fingerprint(payload)
