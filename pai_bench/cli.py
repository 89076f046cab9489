"""The command line: arguments to calls, nothing else. Torch is imported by the commands that need it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.exceptions import TyperException

from pai_bench import __version__
from pai_bench.errors import PaiBenchError, unknown

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pruning at initialisation, measured: run a sweep, then make its report.",
)
messages = Console(stderr=True, soft_wrap=True)

FAILED, USAGE, INCOMPLETE, INTERRUPTED = 1, 2, 3, 130

Results = Annotated[
    Path | None,
    typer.Option("--results", envvar="PAI_BENCH_RESULTS", help="Folder of the results.  [default: results]"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="PAI_BENCH_DATA", help="Folder of the data sets.  [default: ~/.cache/pai-bench/data]"
    ),
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="Python file that registers methods or models; may be repeated.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]


def _say(text: str) -> None:
    messages.print(text, highlight=False, markup=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


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


def _nearest_sparsities(context: typer.Context, values: dict[str, str | None]) -> dict[str, str | None]:
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


@app.command()
def sweep(
    context: typer.Context,
    methods: Annotated[
        str | None,
        typer.Option(envvar="PAI_BENCH_METHODS", help="For instance snip,prospr:steps=10,lr=0.5.  [default: all]"),
    ] = None,
    datasets: Annotated[str, typer.Option(envvar="PAI_BENCH_DATASETS", help="For instance digits,cifar10.")] = "digits",
    models: Annotated[str | None, typer.Option(envvar="PAI_BENCH_MODELS", help="[default: the data set's own]")] = None,
    recipe: Annotated[
        str | None, typer.Option(envvar="PAI_BENCH_RECIPE", help="Training recipe.  [default: the data set's own]")
    ] = None,
    sparsities: Annotated[
        str | None,
        typer.Option(envvar="PAI_BENCH_SPARSITIES", help="Fractions removed, for instance 0.9,0.98."),
    ] = None,
    densities: Annotated[
        str | None, typer.Option(envvar="PAI_BENCH_DENSITIES", help="Fractions kept, instead of --sparsities.")
    ] = None,
    compressions: Annotated[
        str | None, typer.Option(envvar="PAI_BENCH_COMPRESSIONS", help="1/density, instead of --sparsities.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(envvar="PAI_BENCH_SEEDS", help="For instance 0-4 or 0,3,7.")] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="Only these cells, for instance 'method=snip,sparsity>=0.95'.")
    ] = None,
    retry: Annotated[str | None, typer.Option(help="'failed': run failed cells again.")] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Run cells again that are done; new results replace old.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="PAI_BENCH_WORKERS", min=1, help="Worker processes.  [default: one a GPU, else one a core]"
        ),
    ] = None,
    results: Results = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run every cell of a grid that has no result yet; typed again, it does what is missing."""
    from pai_bench.sweep import command

    del config, verbose
    options = command.Options(
        methods=methods,
        datasets=datasets,
        models=models,
        recipe=recipe,
        **_nearest_sparsities(
            context, {"sparsities": sparsities, "densities": densities, "compressions": compressions}
        ),
        seeds=seeds,
        filter=filter_,
        retry=retry,
        redo=redo,
        dry_run=dry_run,
        workers=workers,
        results=results,
        data_dir=data_dir,
        plugins=tuple(plugin or ()),
        as_json=as_json,
    )
    failed = command.run(options, messages)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def report(
    results: Results = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.  [default: report in the results folder]")
    ] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--from", help="Tidy .csv or .parquet table to read as well; may be repeated.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when a planned cell has no result.")] = False,
    config: Config = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make the accuracy-against-sparsity figure and table from the results that are there."""
    from pai_bench.analysis.command import run

    del config, verbose
    if not run(results, out, tuple(tables or ()), as_json, messages) and strict:
        raise typer.Exit(INCOMPLETE)


@app.command("list")
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


def main() -> None:
    """Run the command line; every error is two lines and an exit code, tracebacks only with -v."""
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    try:
        code = app(standalone_mode=False)
    except PaiBenchError as error:
        if verbose:
            messages.print_exception()
        _say(f"error: {error.cause}")
        _say(f"  {error.remedy}")
        code = USAGE
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except TyperException as error:
        _say(f"error: {error.format_message()}")
        context = getattr(error, "ctx", None)
        _say(f"  see {context.command_path if context else 'pai-bench'} --help")
        code = USAGE
    except PermissionError as error:
        if verbose:
            messages.print_exception()
        _say(f"error: no permission to use {error.filename}")
        _say("  choose another folder (--results, --out) or change its permissions")
        code = USAGE
    if code == INTERRUPTED:
        _say("interrupted: finished cells are kept; the same command goes on from here")
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
