"""Where options come from besides the command line: a config file and the user's profile."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from pai_bench.errors import PaiBenchError, unknown


def _settings_keys(context: typer.Context) -> dict[str, Any]:
    """The options of all commands by the key that a config file gives them: the long name without dashes."""
    root = context.find_root().command
    keys = {}
    for command in root.commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            key = max(parameter.opts, key=len).lstrip("-")
            if key not in ("config", "verbose", "help", "json", "dry-run") and parameter.param_type_name == "option":
                keys[key.replace("-", "_")] = parameter
    return keys


def _read_settings(path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """The settings of a TOML file by parameter name, lists joined by commas as on the command line."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PaiBenchError(f"config file {path} does not exist", "give the path of a TOML file to --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PaiBenchError(f"config file {path} cannot be read: {error}", "give a readable TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise PaiBenchError(f"config file {path} is not valid TOML: {error}", "mend that line") from None
    settings = {}
    for key, value in table.items():
        parameter = keys.get(key.replace("-", "_"))
        if parameter is None:
            complaint = unknown("key", key, keys)
            raise PaiBenchError(f"{path}: {complaint.cause}", complaint.remedy)
        if isinstance(value, dict):
            raise PaiBenchError(f"{path}: {key} is a table", f"write {key} = … above all tables")
        if parameter.multiple:
            value = value if isinstance(value, list) else [value]
        elif isinstance(value, list):
            value = ",".join(str(item) for item in value)
        settings[parameter.name] = value
    return settings


def _config(context: typer.Context, value: Path | None) -> Path | None:
    """Let --config and the user's profile stand behind the command line and the environment."""
    keys = _settings_keys(context)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    profile = home / "pai-bench" / "config.toml"
    settings: dict[str, Any] = {}
    for path in ([profile] if profile.is_file() else []) + ([value] if value is not None else []):
        found = _read_settings(path, keys)
        if _SPARSITY & found.keys():  # three ways to say one thing: the nearer file's way counts
            settings = {key: old for key, old in settings.items() if key not in _SPARSITY}
        settings |= found
    context.default_map = settings
    return value


_SPARSITY = {"sparsities", "densities", "compressions"}


def nearest_sparsities(context: typer.Context, values: dict[str, str | None]) -> dict[str, str | None]:
    """The options for sparsity, without those of a config file where the command line or environment has one."""
    source = {name: context.get_parameter_source(name) for name in values}
    from_file = {name for name in values if source[name] is not None and source[name].name == "DEFAULT_MAP"}  # type: ignore[union-attr]
    if any(value is not None for name, value in values.items() if name not in from_file):
        return {name: None if name in from_file else value for name, value in values.items()}
    return values


Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", callback=_config, is_eager=True, help="TOML file with options as keys."),
]
