"""The options that several commands share, and where messages go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

messages = Console(stderr=True, soft_wrap=True)
"""For people, on stderr; data go to stdout."""

OK, FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130

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
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", envvar="PAI_BENCH_SET", help="A value of the recipe, for instance train.epochs=20; may be repeated."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(envvar="PAI_BENCH_SPLIT", help="Measure on 'test' or 'validation'; short for --set data.split=…."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]


def say(text: str) -> None:
    """One message as it is, without markup."""
    messages.print(text, highlight=False, markup=False)
