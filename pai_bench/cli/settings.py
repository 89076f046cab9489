"""Options from a config file and the user's profile, which have lower priority than the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from pai_bench.errors import PaiBenchError, unknown

ORIGINS = "pai_bench.cli.settings.origins"
"""Key in the context's `meta`: files that set options, by parameter name (for --set: by name and key)."""

TYPED = "command line"
"""Description of the source of an option on the command line."""

_PRIVATE = {"config", "verbose", "help", "json", "dry-run", "version"}
_ONE_CELL = frozenset(("methods", "datasets", "models", "recipes", "sparsities", "seeds"))
_TYPED_ONLY = {
    "sweep": frozenset(("sparsity", "seed")),
    "prune": _ONE_CELL,
    "train": _ONE_CELL,
    # They restrict the output of these commands.
    **dict.fromkeys(("report", "compare-masks", "speed"), frozenset(("methods", "datasets", "filter"))),
}
"""Alternative option names that are not keys of a config file, where they belong to another command."""
_SPARSITY = {"sparsities", "densities", "compressions", "budgets"}
SHORT_FORMS = {
    "split": "data.split",
    "scoring_data": "scoring.data",
    "effective": "scoring.effective",
    "granularity": "scoring.granularity",
}
"""Options that are short for one recipe value, by parameter name."""


def profile_path() -> Path:
    """Return the path of the user's profile, which need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "pai-bench" / "config.toml"


def _settings_keys(context: typer.Context) -> dict[str, Any]:
    """Return the options of all commands by their keys in a config file: the long names without dashes.

    If two commands share a key, the option of this command counts.
    """
    keys: dict[str, Any] = {}
    for command in (*(command for _, command in _commands(context.find_root().command)), context.command):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                names = [name.lstrip("-") for name in parameter.opts if name.startswith("--")]
                if not _PRIVATE.intersection(names):
                    typed_only = _TYPED_ONLY.get(str(command.name), frozenset())
                    keys |= {name.replace("-", "_"): parameter for name in names if name not in typed_only}
    return keys


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all commands below a group, with the words that call each, for example "data add"."""
    for command in getattr(group, "commands", {}).values():
        words = f"{prefix}{command.name}"
        yield words, command
        yield from _commands(command, f"{words} ")


def _refuse_foreign(path: Path, table: dict[str, Any], keys: dict[str, Any], context: typer.Context) -> None:
    """Refuse a key of a sweep file that is an option of other commands only.

    A file for `sweep` and `prune` may hold `seeds` for the one and `seed` for the other.
    """
    own = {key: p for key, p in keys.items() if any(p is parameter for parameter in context.command.params)}
    given = {key.replace("-", "_") for key in table}
    for key in sorted(given & keys.keys() - own.keys()):
        twins = [name for name, parameter in own.items() if f"--{key.replace('_', '-')}" in parameter.opts]
        if given.intersection(twins):
            continue
        owners = [
            words
            for words, command in _commands(context.find_root().command)
            if command is not context.command
            and any(f"--{key.replace('_', '-')}" in parameter.opts for parameter in command.params)
        ]
        *others, last = dict.fromkeys(owners)
        listed = f"{', '.join(others)} and {last}" if others else last
        raise PaiBenchError(
            f"{path}: {key} is an option of {listed}, not a key of a sweep file",
            f"write {twins[0]} instead" if twins else "remove that line; the user's profile may hold it",
        )


def refuse_lists(context: typer.Context) -> None:
    """Refuse a file of --config that gives only a sweep's list where this command takes one value.

    Otherwise the command would use its default. The user's profile may hold such lists, which belong to sweeps.

    Raises: PaiBenchError for such a key, unless the command line, the environment or a file gives the one value.
    """
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name))
        lists = {name.lstrip("-") for name in parameter.opts}.intersection(
            _ONE_CELL & (context.default_map or {}).keys()
        )
        if given is None or given.name != "DEFAULT" or not lists:
            continue
        key, option = lists.pop(), parameter.opts[0]
        if (path := context.meta[ORIGINS].get(key)) is not None and path != profile_path():
            raise PaiBenchError(
                f"{path}: {key} is a list for sweep, and {context.command.name} takes one value",
                f"write {option.lstrip('-')} = …, or give {option} on the command line",
            )


def _read_settings(path: Path, keys: dict[str, Any], sweep: typer.Context | None = None) -> dict[str, Any]:
    """Read the settings of a TOML file by parameter name; lists are joined by commas as on the command line.

    Paths in the file are relative to its folder. `sweep` is the context of the sweep if the file belongs to one.
    """
    # The import is postponed, because most users have no such file.
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise PaiBenchError(f"config file {path} does not exist", "give the path of a TOML file to --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PaiBenchError(f"config file {path} cannot be read: {error}", "give a readable TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise PaiBenchError(f"config file {path} is not valid TOML: {error}", "correct this line") from None
    if sweep is not None:
        _refuse_foreign(path, table, keys, sweep)
    settings: dict[str, Any] = {}
    for key, value in table.items():
        parameter = keys.get(key.replace("-", "_"))
        if parameter is None:
            complaint = unknown("key", key, keys)
            raise PaiBenchError(f"{path}: {complaint.cause}", complaint.remedy)
        if parameter.name in settings:
            raise PaiBenchError(f"{path}: {key} is given twice, by two of its names", "give one of them")
        if isinstance(value, dict):
            if parameter.name != "set_":
                raise PaiBenchError(f"{path}: {key} is a table", f"move {key} = … above all tables")
            items = list(_assignments(value))
        else:
            items = [item for entry in (value if isinstance(value, list) else [value]) for item in _items(path, entry)]
        if any(isinstance(item, str) and not item.strip() for item in items):
            raise PaiBenchError(f"{path}: {key} is empty", "give a value, or remove the line")
        items = [_relative(path, parameter, item) for item in items]
        if parameter.multiple:
            settings[parameter.name] = items
        else:
            settings[parameter.name] = ",".join(map(_text, items)) if isinstance(value, (list, dict)) else items[0]
    return settings


def _items(path: Path, entry: Any) -> list[Any]:
    """Expand an entry of a list; a table like {name = "prospr", steps = [1, 3]} becomes a spec per combination."""
    if not isinstance(entry, dict):
        return [entry]
    if not isinstance(entry.get("name"), str):
        raise PaiBenchError(f"{path}: {entry} has no name", 'write {name = "prospr", steps = [1, 3]}')
    lists = {k: v if isinstance(v, list) else [v] for k, v in entry.items() if k != "name"}
    specs = [
        ",".join(f"{k}={_text(v)}" for k, v in zip(lists, values, strict=True)) for values in product(*lists.values())
    ]
    return [f"{entry['name']}:{spec}" if spec else entry["name"] for spec in specs]


def _assignments(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the --set assignments of a table, with dotted keys or nested tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _assignments(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={','.join(map(_text, value if isinstance(value, list) else [value]))}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _relative(path: Path, parameter: Any, item: Any) -> Any:
    """Return an item with its path (folder, recipe file or mask file), if any, resolved relative to the config file."""
    if not isinstance(item, str):
        return item
    folder = path.absolute().parent
    is_path = parameter.type_descriptor.annotation in (Path, list[Path])
    if is_path or (parameter.name == "recipes" and item.endswith(".toml")):
        return str(folder / Path(item).expanduser())
    if parameter.name == "methods" and item.startswith("file:"):
        return f"file:{folder / Path(item.removeprefix('file:')).expanduser()}"
    return item


def _config(context: typer.Context, value: Path | None) -> Path | None:
    """Apply --config and the user's profile as defaults below the command line and the environment."""
    keys = _settings_keys(context)
    profile = profile_path()
    settings: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for path in ([profile] if profile.is_file() else []) + ([value] if value is not None else []):
        is_sweep_file = path is value and context.command.name == "sweep"
        found = _read_settings(path, keys, context if is_sweep_file else None)
        if _SPARSITY & found.keys():  # they exclude each other; a later file has priority
            settings = {key: old for key, old in settings.items() if key not in _SPARSITY}
        origins |= dict.fromkeys(found, path)
        origins |= {f"set_ {_key(text)}": path for text in found.get("set_", ())}
        if "set_" in found:
            found["set_"] = _nearest(found["set_"], settings.get("set_", []))
        settings |= found
    # The parser uses this map only where the command line and the environment give no value.
    context.default_map = settings
    context.meta[ORIGINS] = origins
    return value


def _key(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _nearest(near: list[str], far: list[str]) -> list[str]:
    """Return all assignments of `near`, and the assignments of `far` to other keys."""
    given = {_key(text) for text in near}
    return [*near, *(text for text in far if _key(text) not in given)]


def _from_file(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def nearest_sparsities(context: typer.Context, values: dict[str, str | None]) -> dict[str, str | None]:
    """Return the sparsity options of the highest priority: command line, environment, or else config file."""
    given = {name: context.get_parameter_source(name) for name, value in values.items() if value is not None}
    for nearest in ("COMMANDLINE", "ENVIRONMENT"):
        near = {name for name, where in given.items() if where is not None and where.name == nearest}
        if near:
            return {name: value if name in near else None for name, value in values.items()}
    return values


def recipe_settings(context: typer.Context) -> tuple[str, ...]:
    """Return all assignments of --set and SHORT_FORMS; for each key, command line and environment override files."""
    layers: dict[bool, list[str]] = {True: list((context.default_map or {}).get("set_", ())), False: []}
    if not _from_file(context, "set_"):
        layers[False] += context.params.get("set_") or ()
    for name, key in SHORT_FORMS.items():
        if (value := context.params.get(name)) is not None:
            layers[_from_file(context, name)].append(f"{key}={_text(value)}")
    return tuple(_nearest(layers[False], layers[True]))


def source(context: typer.Context, parameter: Any) -> str:
    """Describe the source of an option's value."""
    kind = context.get_parameter_source(parameter.name)
    if kind is None or kind.name == "DEFAULT":
        return "default"
    if kind.name == "ENVIRONMENT":
        return f"environment variable {parameter.envvar}"
    return _file(context, parameter.name) if kind.name == "DEFAULT_MAP" else TYPED


def setting_source(context: typer.Context, key: str) -> str:
    """Describe the source of a recipe value."""
    short = [name for name, own in SHORT_FORMS.items() if own == key]
    given = [("set_", [_key(text) for text in context.params.get("set_") or ()]), *((name, [key]) for name in short)]
    for name, keys in given:
        if context.params.get(name) is not None and key in keys and not _from_file(context, name):
            parameter = next(p for p in context.command.params if p.name == name)
            return f"{parameter.opts[0]}, {source(context, parameter)}"
    return f"[set] of {_file(context, f'set_ {key}', *short)}"


def _file(context: typer.Context, *names: str) -> str:
    path = next(context.meta[ORIGINS][name] for name in names if name in context.meta[ORIGINS])
    return f"{path} (user's profile)" if path == profile_path() else str(path)


Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", callback=_config, is_eager=True, help="TOML file with options as keys."),
]
