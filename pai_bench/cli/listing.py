"""`pai-bench list`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from pai_bench.cli.options import AsJson, Plugins, Verbose
from pai_bench.errors import unknown

LISTS = ("methods", "models", "datasets", "recipes", "published")

_WRAPPED = ("paper", "data sets", "description", "hyper-parameters", "match", "epoch", "papers")
"""Columns whose texts may take several lines."""

_NOTES = {
    "methods": """
sees: the scoring data that a method may use: nothing, shape (of one input), inputs, labels (and inputs), or training.
passes: cost of scoring with the defaults, in forward passes over one scoring batch of 100; a backward pass counts as 2.
  Searches (edge-popup, gem-miner) have no number, because they take the passes of a training.
verified: equal to the authors' code (release), to its functions copied by hand (transcribed), or to the formula.
--long adds descriptions, hyper-parameters and the formulas of the cost; --json has all columns.
""",
}
"""Explanations below a table."""


def list_(
    what: Annotated[str, typer.Argument(help="methods, models, datasets, recipes or published")],
    long: Annotated[
        bool,
        typer.Option("--long", "-l", help="Print the table also if stdout is not a terminal, with all descriptions."),
    ] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the available methods, models, data sets, recipes or published results.

    A terminal gets a table with paper, kind, what a method sees, its cost and how it was verified, and --json an object
    with all columns for each name. A pipe or file gets one name per line. Published results are listed by recipe, data
    set and model; --json lists their names, and with --long all columns.
    """
    del verbose
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    for path in plugin or ():
        import_module("pai_bench.pruning.fixed_masks").load_plugin(path)
    columns = import_module("pai_bench.cli.descriptions")
    names = columns.names(what, plugin or ())
    if as_json and (long or what != "published"):
        typer.echo(json.dumps([{"name": name, **columns.describe(what, name)} for name in names]))
    elif as_json:
        typer.echo(json.dumps(names))
    elif long or sys.stdout.isatty():
        lines = [{"name": name, **columns.describe(what, name)} for name in names]
        _show(what, lines, long)
    else:
        typer.echo("\n".join(names))


def _brief(what: str, line: Mapping[str, Any], long: bool) -> dict[str, Any]:
    """Choose the columns of a table.

    Years are part of the papers. Methods have their descriptions below the table, models theirs with `long`. Published
    results omit the parts of their name and show the number of methods.
    """
    left_out = ["year"]
    left_out += ["passes formula", "hyper-parameters", "description"] if what == "methods" else []
    left_out += ["description"] if what == "models" and not long else []
    if what != "published":
        return {column: value for column, value in line.items() if column not in left_out}
    kept = {column: value for column, value in line.items() if column not in ("recipe", "dataset", "model")}
    return {**kept, "methods": len(line["methods"])}


def _show(what: str, lines: Sequence[Mapping[str, Any]], long: bool) -> None:
    """Print a table in the width of the terminal; texts are wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    rows = [_brief(what, line, long) for line in lines]
    columns = list(rows[0]) if rows else []
    for column in columns:
        number = all(isinstance(row[column], (int, float, type(None))) for row in rows)
        justify: Any = "right" if number else "left"
        table.add_column(column, justify=justify, no_wrap=column not in _WRAPPED, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(row[column])) for column in columns))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if what == "methods" and long:
        for line in lines:
            values = _text(line["hyper-parameters"])
            console.print(Text(f"\n{line['name']}{': ' if values else ''}{values}", "bold"))
            cost = f"passes: {line['passes formula']}" if line["passes formula"] else ""
            for text in filter(None, (line["description"], cost)):
                console.print(Text(f"    {text}"))
    if what in _NOTES:
        console.print(Text(_NOTES[what].rstrip()))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={str(item).lower() if isinstance(item, bool) else item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
