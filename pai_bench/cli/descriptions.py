"""Columns of `pai-bench list`. Built-in methods and models are described without torch and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from pai_bench.core import method_index, model_index
from pai_bench.core.facts import Facts

TYPICAL_BATCH = 100
"""Size of the scoring batch for which the list states the cost of methods: that of most recipes."""

_HOMES = {
    "methods": "scoring.registry",
    "models": "models",
    "datasets": "datasets.files",
    "recipes": "recipes",
    "published": "analysis.published",
}


def names(what: str, plugins: Sequence[Path]) -> list[str]:
    """Return the names of the entries of a list; `plugins` have been loaded."""
    if what == "methods" and method_index.is_complete(plugins):
        return list(method_index.builtin())
    if what == "models" and model_index.is_complete(plugins):
        return list(model_index.builtin())
    return list(import_module(f"pai_bench.{_HOMES[what]}").names())


def describe(what: str, name: str) -> dict[str, Any]:
    """Return the columns of an entry besides its name: texts, numbers, lists, and None where nothing is known."""
    if what == "methods":
        return _method(name)
    if what == "models":
        return {**_paper(what, name), **_model(name)}
    if what == "datasets":
        return {**_paper(what, name), **_dataset(name)}
    if what == "published":
        summary: dict[str, Any] = import_module("pai_bench.analysis.published").describe(name)
        return summary
    recipes = import_module("pai_bench.recipes")
    return {**_paper(what, name), "data sets": recipes.datasets(name), "description": recipes.summary(name)}


def _paper(what: str, name: str) -> dict[str, Any]:
    """Return the first paper of an entry and its year, from the bibliography of reports."""
    paper = import_module("pai_bench.analysis.bibliography").paper_of(what, name)
    return {"paper": paper, "year": Facts(paper).year}


def _method(name: str) -> dict[str, Any]:
    """Return the facts and the description of a method; for a plug-in's method, taken from its class."""
    entry = method_index.builtin().get(name)
    values: dict[str, Any]
    if entry is not None:
        values, text, facts = dict(entry.hyperparameters), entry.sentence, entry.facts
    else:
        registry = import_module("pai_bench.scoring.registry")
        cls = registry.method_class(name)
        values = {field.name: field.default for field in fields(cls)}
        # A dataclass without a docstring gets its signature as its docstring.
        own = cls.__doc__ or ""
        text = "" if own.startswith(f"{cls.__name__}(") else method_index.first_sentence(own)
        facts = registry.facts(name)
    return {
        "paper": facts.paper,
        "year": facts.year,
        "kind": facts.kind,
        "sees": facts.sees,
        "rounds": values.get("rounds", 1),
        "passes": _cost(facts, values),
        "passes formula": facts.passes,
        "verified": facts.verified,
        "hyper-parameters": values,
        "description": text,
    }


def _cost(facts: Facts, hyperparameters: Mapping[str, Any]) -> float | int | None:
    """Return the cost of scoring with these hyper-parameters and one batch of TYPICAL_BATCH samples."""
    cost = facts.cost({**hyperparameters, "batches": 1, "batch_size": TYPICAL_BATCH})
    if cost is None:
        return None
    return int(cost) if cost == int(cost) else round(cost, 6)


def _model(name: str) -> dict[str, Any]:
    entry = model_index.builtin().get(name)
    if entry is not None:
        return {"kind": entry.kind, "parameters": entry.parameters, "description": entry.description}
    text, count = import_module("pai_bench.models").describe(name)
    return {"kind": "", "parameters": count, "description": text}


def _dataset(name: str) -> dict[str, Any]:
    source = import_module("pai_bench.datasets.files").source(name)
    info = source.info
    return {
        "kind": info.kind,
        "input": str(info),
        "classes": info.classes,
        "training": info.train,
        "test": info.test,
        "verified": "MD5" if source.files else "",
    }
