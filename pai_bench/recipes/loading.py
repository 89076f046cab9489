"""Loading of recipe files: read, merge the sections for a data set and a model, and check every key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.recipes.schema import SYNONYMS, TABLES, Defaults, Recipe, check, tuples


class NotMeant(PaiBenchError):
    """A recipe does not support a data set."""


def summary(name: str) -> str:
    """Return the summary of a built-in recipe."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text).get("summary", ""))


def datasets(name: str) -> list[str]:
    """Return the names of the data sets that a built-in recipe is meant for."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return sorted(tomllib.loads(text).get("datasets", {}))


def names() -> list[str]:
    """Return the names of all built-in recipes in alphabetical order."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in resources.files(__package__).iterdir()
        if path.name.endswith(".toml") and path.name != "defaults.toml"
    )


def defaults(dataset: str) -> Defaults:
    """Return the defaults of a data set.

    Raises: PaiBenchError when the data set has no defaults.
    """
    table = tomllib.loads(resources.files(__package__).joinpath("defaults.toml").read_text(encoding="utf-8"))
    if dataset not in table:
        raise PaiBenchError(
            f"data set {dataset} has no model, recipe, sparsities and seeds of its own",
            "give all of --models, --recipes, --sparsities and --seeds",
        )
    return Defaults(**tuples(table[dataset]))


def load(name: str, dataset: str, model: str) -> Recipe:
    """Load the recipe `name` (a file if it ends in .toml) for a data set and a model.

    Raises: PaiBenchError with the file and the key for an unknown or missing key or a value of the wrong type;
        NotMeant when the recipe does not support the data set.
    """
    if name.endswith(".toml"):
        where, label = Path(name), Path(name).stem
        try:
            text = where.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise PaiBenchError(f"recipe file {name} cannot be read: {error}", "give the path of a TOML file") from None
    else:
        if name not in names():
            raise unknown("recipe", name, names())
        where, label = Path(f"{name}.toml"), name
        text = resources.files(__package__).joinpath(where.name).read_text(encoding="utf-8")
    return _parse(text, str(where), label, dataset, model)


@cache
def _parse(text: str, where: str, name: str, dataset: str, model: str) -> Recipe:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PaiBenchError(f"{where} is not valid TOML: {error}", "correct that line") from None
    sections = list(_sections(content, where))
    if dataset not in content.get("datasets", {}):
        known = ", ".join(sorted(content.get("datasets", {}))) or "none"
        raise NotMeant(
            f"recipe {name} is not meant for data set {dataset}", f"it is for {known}; choose another --recipe"
        )
    merged: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    for section in sorted(sections, key=lambda section: section.rank):
        if section.applies(dataset, model):
            for table, entries in section.tables.items():
                merged[table] |= entries
    sources = [
        (f"{table}.{f.name}", merged[table][f.name]["source"] if f.name in merged[table] else "default")
        for table, kind in TABLES.items()
        for f in fields(kind)
    ]
    recipe = Recipe(
        name=name,
        dataset=dataset,
        summary=str(content.get("summary", "")),
        sources=tuple(sources),
        **{table: _build(kind, table, merged[table], where) for table, kind in TABLES.items()},
    )
    check(recipe, where)
    if recipe.data.split != "test":  # part of the name, as with --set: results on other images are reported separately
        recipe = replace(recipe, name=f"{name}+data.split={recipe.data.split}")
    return recipe


@dataclass(frozen=True)
class _Section:
    """A section of a recipe file: the data set and models it applies to (None: all), and its tables."""

    dataset: str | None
    models: str | None
    """Comma-separated names."""
    tables: Mapping[str, dict[str, dict[str, Any]]]

    @property
    def rank(self) -> tuple[bool, bool]:
        """Sort key, general sections first: all < a data set < a model < a model on a data set."""
        return self.models is not None, self.dataset is not None

    def applies(self, dataset: str, model: str) -> bool:
        meant = self.models is None or model in [name.strip() for name in self.models.split(",")]
        return meant and self.dataset in (None, dataset)


def _sections(content: Mapping[str, Any], where: str) -> Iterator[_Section]:
    """Yield all sections of a file; the keys of sections that do not apply are checked, too."""
    yield _section(content, where, None, None, ("summary", "datasets", "models"))
    for dataset, inner in _named(content, where, "datasets"):
        yield _section(inner, where, dataset, None, ("models",))
        for models, innermost in _named(inner, where, f"datasets.{dataset}.models"):
            yield _section(innermost, where, dataset, models)
    for models, inner in _named(content, where, "models"):
        yield _section(inner, where, None, models)


def _named(content: Mapping[str, Any], where: str, path: str) -> list[tuple[str, dict[str, Any]]]:
    tables = content.get(path.rpartition(".")[2], {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise PaiBenchError(f"{where}: {path} is not a table of tables", f"write [{path}.NAME]")
    return list(tables.items())


def _section(
    content: Mapping[str, Any], where: str, dataset: str | None, models: str | None, others: tuple[str, ...] = ()
) -> _Section:
    prefix = "".join(
        f"{kind}.{name}." for kind, name in (("datasets", dataset), ("models", models)) if name is not None
    )
    known = [prefix + name for name in (*TABLES, *others)]
    for key in content:
        if prefix + key not in known:
            raise _unknown_key(where, prefix + key, known)
    tables = {table: _table(content, table, where, prefix + table) for table in TABLES if table in content}
    return _Section(dataset, models, tables)


def _unknown_key(where: str, key: str, known: Any) -> PaiBenchError:
    error = unknown("key", key, known)
    return PaiBenchError(f"{where}: {error.cause}", error.remedy)


def _table(content: Mapping[str, Any], table: str, where: str, path: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a table by key, each with `value` and `source`."""
    entries = content.get(table, {})
    known = [f.name for f in fields(TABLES[table])]
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


KINDS: dict[str, tuple[str, type, type | None]] = {
    # annotation: (in words, type, type of the items)
    "int": ("a whole number", int, None),
    "float": ("a number", float, None),
    "bool": ("true or false", bool, None),
    "bool | str": ('"auto", true or false', bool, None),
    "str": ("a text", str, None),
    "tuple[int, ...]": ("a list of whole numbers", tuple, int),
    "tuple[float, ...]": ("a list of numbers", tuple, float),
    "tuple[str, ...]": ("a list of texts", tuple, str),
}


def _build(kind: type, table: str, entries: Mapping[str, Mapping[str, Any]], where: str) -> Any:
    values = {}
    for f in fields(kind):
        if f.name not in entries:
            if f.default is not MISSING:
                continue
            raise PaiBenchError(f"{where}: {table}.{f.name} is missing", f"add it under [{table}]")
        value = tuples(entries[f.name])["value"]
        values[f.name] = checked_value(where, f"{table}.{f.name}", value, str(f.type))
    return kind(**values)


def checked_value(where: str, key: str, value: Any, kind: str) -> Any:
    """Check a value against its annotation `kind`; an integer is converted where a float is expected.

    Raises: PaiBenchError with `where` and the key for a value of another type.
    """
    words, expected, items = KINDS[kind]
    if expected is tuple and isinstance(value, tuple):
        value = tuple(_number(item, items) for item in value)
        good = all(type(item) is items for item in value)
    else:
        # TOML distinguishes 1 and 1.0, users and fingerprints should not.
        value = _number(value, expected)
        # The exact type, because True is an int in Python.
        good = type(value) is expected or (kind == "bool | str" and value == "auto")
    if not good:
        raise PaiBenchError(f"{where}: {key} = {value!r} is not {words}", f"write {words}")
    return SYNONYMS.get((key, value), value)


def _number(value: Any, expected: type | None) -> Any:
    return float(value) if expected is float and type(value) is int else value
