"""`pai-bench list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from pai_bench.cli.options import AsJson, Plugins, Verbose
from pai_bench.errors import unknown

LISTS = ("methods", "models", "datasets", "recipes", "published")


def list_(
    what: Annotated[str, typer.Argument(help="methods, models, datasets, recipes or published")],
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Include descriptions also if stdout is not a terminal, and in --json.")
    ] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the available methods, models, data sets, recipes or published results.

    On a terminal, each has a description. A pipe or file gets one name per line, and --json a list of names.
    Published results are listed by recipe, data set and model.
    """
    del verbose
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    for path in plugin or ():
        import_module("pai_bench.pruning.fixed_masks").load_plugin(path)
    names = _names(what, plugin or ())
    if as_json:
        typer.echo(json.dumps([{"name": name, **_describe(what, name)} for name in names] if long else names))
    elif long or sys.stdout.isatty():
        _show([_brief(what, {"name": name, **_describe(what, name)}) for name in names])
    else:
        typer.echo("\n".join(names))


def _brief(what: str, line: dict[str, Any]) -> dict[str, Any]:
    """Shorten a line for a terminal: published results omit the parts of their name and show the number of methods."""
    if what != "published":
        return line
    kept = {column: value for column, value in line.items() if column not in ("recipe", "dataset", "model")}
    return {**kept, "methods": len(line["methods"])}


def _names(what: str, plugins: Sequence[Path]) -> list[str]:
    from pai_bench.core import method_index, model_index

    if what == "methods" and method_index.is_complete(plugins):
        return list(method_index.builtin())
    if what == "models" and model_index.is_complete(plugins):
        return list(model_index.builtin())
    homes = {"methods": "scoring.registry", "models": "models", "datasets": "datasets.files", "recipes": "recipes"}
    homes["published"] = "analysis.published"
    return list(import_module(f"pai_bench.{homes[what]}").names())


def _describe(what: str, name: str) -> dict[str, Any]:
    """Return the columns of the list, as texts and numbers."""
    if what == "methods":
        return _method(name)
    if what == "models":
        text, count = import_module("pai_bench.models").describe(name)
        return {"parameters": count, "description": text}
    if what == "datasets":
        info = import_module("pai_bench.datasets.files").info(name)
        return {
            "images": str(info),
            "classes": info.classes,
            "training": info.train,
            "test": info.test,
        }
    if what == "published":
        summary: dict[str, Any] = import_module("pai_bench.analysis.published").describe(name)
        return summary
    return {"description": import_module("pai_bench.recipes").summary(name)}


def _method(name: str) -> dict[str, Any]:
    """Return the description of a method; for a plug-in's method, taken from its class."""
    from pai_bench.core import method_index

    entry = method_index.builtin().get(name)
    if entry is not None:
        values, text = dict(entry.hyperparameters), entry.sentence
    else:
        cls = import_module("pai_bench.scoring.registry").method_class(name)
        values = {field.name: field.default for field in fields(cls)}
        # A dataclass without a docstring gets its signature as its docstring.
        own = cls.__doc__ or ""
        text = "" if own.startswith(f"{cls.__name__}(") else method_index.first_sentence(own)
    return {"hyper-parameters": values, "description": text}


def _show(lines: Sequence[dict[str, Any]]) -> None:
    """Print a table whose last column is wrapped to the width of the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = list(lines[0]) if lines else []
    for column in columns:
        number = all(isinstance(line[column], int) for line in lines)
        table.add_column(column, justify="right" if number else "left", no_wrap=column == "name", overflow="fold")
    for line in lines:
        table.add_row(*(Text(_text(line[column])) for column in columns))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={str(item).lower() if isinstance(item, bool) else item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
