"""Overrides of single recipe values by the user: parsed, checked like a recipe file, and added to the recipe's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import product
from typing import Any

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.recipes.loading import KINDS, checked_value
from pai_bench.recipes.schema import TABLES, Recipe, check, is_mechanism

SOURCE = "--set"
"""Source that is recorded for a value set by the user."""
MAX_NAME = 120
"""Maximal length of a recipe's name, which is part of file names; a hash replaces the values of longer names."""

Settings = tuple[tuple[str, str], ...]
"""Pairs (table.key, text of the value) with unique keys."""


def parse_settings(texts: Iterable[str], option: str = SOURCE) -> Settings:
    """Parse texts such as "train.epochs=20".

    Raises: PaiBenchError for another form, an unknown key, and a repeated key.
    """
    known = [f"{table}.{f.name}" for table, kind in TABLES.items() for f in fields(kind)]
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise PaiBenchError(f"{option} {text!r} cannot be read", "write table.key=value, as in train.epochs=20")
        if key not in known:
            error = unknown("key", key, known)
            raise PaiBenchError(f"{option}: {error.cause}", error.remedy)
        if key in found:
            raise PaiBenchError(f"{option} gives {key} twice", f"give it once, as in {key}={found[key]},{value}")
        found[key] = value
    return tuple(sorted(found.items()))


def variants(recipe: Recipe, settings: Settings) -> tuple[Recipe, ...]:
    """Return the recipe with these values; a list for a scalar key gives one recipe per item.

    Raises: PaiBenchError for a value of the wrong type or out of range.
    """
    choices = [[(key, value) for value in _read(key, text)] for key, text in settings]
    return tuple(dict.fromkeys(_with_values(recipe, dict(values)) for values in product(*choices)))


def _with_values(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    own = recipe.values()
    changed = {key: value for key, value in values.items() if value != own[key.split(".")[0]][key.split(".")[1]]}
    if not changed:
        return recipe
    tables: dict[str, Any] = {}
    for key, value in changed.items():
        table, _, name = key.partition(".")
        tables[table] = replace(tables.get(table, getattr(recipe, table)), **{name: value})
    sources = tuple((key, SOURCE if key in changed else source) for key, source in recipe.sources)
    # A mechanism gives the same numbers, so that its results have the same name.
    named = {key: value for key, value in changed.items() if not is_mechanism(key, value)}
    result = replace(recipe, name=_name(recipe.name, named), sources=sources, **tables)
    check(result, SOURCE)
    return result


def _name(recipe: str, changed: dict[str, Any]) -> str:
    """Join the recipe's name and the changed values, sorted by key."""
    parts = [f"{key}={_text(value)}" for key, value in sorted(changed.items())]
    name = "+".join([recipe, *parts])
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256("+".join(parts).encode()).hexdigest()[:8]
    return f"{recipe}+{len(parts)}-values-{digest}"


def _read(key: str, text: str) -> list[Any]:
    """Parse the values for a key: a single value if the key takes a list, else one value per item."""
    table, _, name = key.partition(".")
    kind = next(str(f.type) for f in fields(TABLES[table]) if f.name == name)
    items = [item.strip() for item in text.split(",")] if text else []
    words, expected, inner = KINDS[kind]
    if expected is tuple:
        return [checked_value(SOURCE, key, tuple(_value(item, inner) for item in items), kind)]
    if not items:
        raise PaiBenchError(f"{SOURCE}: {key} has no value", f"write {words}")
    return [checked_value(SOURCE, key, _value(item, expected), kind) for item in items]


def _value(text: str, kind: type | None) -> Any:
    """Convert a text for a key of type `kind` as far as possible; `checked_value` rejects the rest."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text


def _text(value: Any) -> str:
    """Return the canonical text of a value: numbers in the shortest form, only characters valid in file names."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # The shortest text, so that 0.1 and 1e-1 give one name and one file.
        return repr(value).removesuffix(".0").replace("e+", "e")
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in str(value)
    )
