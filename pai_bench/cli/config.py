"""`pai-bench config`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from pai_bench.cli.options import say
from pai_bench.cli.settings import (
    SHORT_FORMS,
    nearest_sparsities,
    profile_path,
    recipe_settings,
    setting_source,
    source,
)

if TYPE_CHECKING:
    from pai_bench.recipes import Choice

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show the sources of option and recipe values.",
)

_NOT_SETTINGS = {"config", "as_json", "verbose", "dry_run", "set_", "help", *SHORT_FORMS}
_SPARSITY = ("sparsities", "densities", "compressions", "budgets")


@app.callback()
def _group() -> None:
    """Show the sources of option and recipe values."""


@app.command("show", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def show(context: typer.Context) -> None:
    """Show every value that a sweep with these options would use, with its source.

    Accepts the options of sweep, including --json: pai-bench config show -c paper.toml --datasets cifar10.
    """
    from pai_bench import recipes
    from pai_bench.cells import parse_names

    root = context.find_root()
    command = root.command.commands["sweep"]  # type: ignore[attr-defined]
    sweep = command.make_context("sweep", list(context.args), parent=root)
    if sweep.params["plugin"]:
        from importlib import import_module

        for path in sweep.params["plugin"]:
            import_module("pai_bench.pruning.fixed_masks").load_plugin(path)
    options, taken = _options(sweep), _taken(sweep)
    found = recipes.choose(
        parse_names("--datasets", sweep.params["datasets"]),
        () if sweep.params["models"] is None else parse_names("--models", sweep.params["models"]),
        () if sweep.params["recipes"] is None else parse_names("--recipes", sweep.params["recipes"]),
        recipes.parse_settings(recipe_settings(sweep)),
    )
    chosen = [_choice(sweep, choice, taken) for choice in found.choices]
    profile = profile_path()
    if sweep.params["as_json"]:
        plain = {"profile": str(profile), "profile_read": profile.is_file(), "options": options, "recipes": chosen}
        typer.echo(json.dumps(plain, indent=1))
        return
    say(f"user's profile: {profile} ({'read' if profile.is_file() else 'does not exist'})")
    for note in found.notes:
        say(note)
    parts = [("options of sweep", options)]
    for entry in chosen:
        parts.append((f"{entry['dataset']} · {entry['model']} · recipe {entry['recipe']}", entry["values"]))
    typer.echo("\n\n".join(f"{title}\n{_rows(values)}" for title, values in parts))


def _options(sweep: typer.Context) -> dict[str, Any]:
    """Return value and source of each option that is a setting, by long name."""
    values = {**sweep.params, **nearest_sparsities(sweep, {name: sweep.params[name] for name in _SPARSITY})}
    found = {}
    for parameter in sweep.command.params:
        name = str(parameter.name)
        if name in _NOT_SETTINGS or (name in _SPARSITY and values[name] is None):
            continue
        value = values[name]
        stated = re.search(r"\[default: (.*)\]", getattr(parameter, "help", None) or "")
        if value is None or value == ():
            value = f"({stated[1]})" if stated else None
        found[parameter.opts[0].lstrip("-")] = {"value": _plain(value), "source": source(sweep, parameter)}
    return found


def _taken(sweep: typer.Context) -> set[str]:
    """Return the defaults of a data set that options override."""
    given = {"sparsities"} if any(sweep.params[name] is not None for name in _SPARSITY) else set()
    return given | {name for name in ("seeds",) if sweep.params[name] is not None}


def _choice(sweep: typer.Context, choice: Choice, taken: set[str]) -> dict[str, Any]:
    """Return the values and sources of a recipe, and of the options with defaults of the data set."""
    from pai_bench import recipes

    values = {}
    for name in sorted({"sparsities", "seeds"} - taken):
        own = getattr(recipes.defaults(choice.dataset), name)
        values[name] = {"value": list(own), "source": f"default of data set {choice.dataset}"}
    plain = choice.recipe.values()
    for key, where in choice.recipe.sources:
        table, _, name = key.partition(".")
        said = setting_source(sweep, key) if where == recipes.SET_BY_USER else where
        values[key] = {"value": _plain(plain[table][name]), "source": said}
    return {"dataset": choice.dataset, "model": choice.model, "recipe": choice.recipe.name, "values": values}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _rows(values: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [(key, _text(entry["value"]), str(entry["source"])) for key, entry in values.items()]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(
        f"  {key.ljust(widths[0])}  {value.ljust(widths[1])}  {said}".rstrip() for key, value, said in lines
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
