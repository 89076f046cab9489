"""Single values of a recipe set by the user: read, checked like a recipe file's, and shown in the recipe's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import product
from typing import Any

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.recipes.loading import KINDS, checked_value
from pai_bench.recipes.schema import TABLES, Recipe, check

SOURCE = "--set"
"""What stands as the source of a value that a user has set."""
MAX_NAME = 120
"""Characters of a recipe's name, which is a part of a file name; with more, a hash stands for the values."""

Settings = tuple[tuple[str, str], ...]
"""(table.key, the text of its value), each key once"""


def parse_settings(texts: Iterable[str], option: str = SOURCE) -> Settings:
    """Read texts such as "train.epochs=20".

    Raises: PaiBenchError for another form, an unknown key, and a key that is given twice.
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
    """The recipe with these values; a list where one value belongs makes a recipe for each of its items.

    Raises: PaiBenchError for a value of the wrong kind, or one that cannot be.
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
    result = replace(recipe, name=_name(recipe.name, changed), sources=sources, **tables)
    check(result, SOURCE)
    return result


def _name(recipe: str, changed: dict[str, Any]) -> str:
    """The recipe's name and the changed values, in the order of their keys."""
    parts = [f"{key}={_text(value)}" for key, value in sorted(changed.items())]
    name = "+".join([recipe, *parts])
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256("+".join(parts).encode()).hexdigest()[:8]
    return f"{recipe}+{len(parts)}-values-{digest}"


def _read(key: str, text: str) -> list[Any]:
    """The values that a text gives to a key: one where the key takes a list, else one for each item."""
    table, _, name = key.partition(".")
    kind = next(str(f.type) for f in fields(TABLES[table]) if f.name == name)
    items = [item.strip() for item in text.split(",")] if text else []
    words, wanted, inner = KINDS[kind]
    if wanted is tuple:
        return [checked_value(SOURCE, key, tuple(_value(item, inner) for item in items), kind)]
    if not items:
        raise PaiBenchError(f"{SOURCE}: {key} is given no value", f"write {words}")
    return [checked_value(SOURCE, key, _value(item, wanted), kind) for item in items]


def _value(text: str, kind: type | None) -> Any:
    """The text as what it looks like, for a key that takes `kind`; the check comes after."""
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
    """The canonical text of a value: numbers as short as they can be, nothing that a file name cannot hold."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in str(value)
    )
