"""`pai-bench list`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pai_bench.cli.options import AsJson, Plugins, Verbose
from pai_bench.errors import unknown


def list_(
    what: Annotated[str, typer.Argument(help="methods, models, datasets or recipes")],
    plugin: Plugins = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the methods, models, data sets or recipes there are."""
    from importlib import import_module

    del verbose
    homes = {"methods": "registry", "models": "models", "datasets": "datasets", "recipes": "recipes"}
    if what not in homes:
        raise unknown("list", what, homes)
    for path in plugin or ():
        import_module("pai_bench.registry").load_plugin(path)
    names = import_module(f"pai_bench.{homes[what]}").names()
    typer.echo(json.dumps(names) if as_json else "\n".join(names))
