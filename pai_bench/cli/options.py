"""Options shared by several commands, and the console for messages."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
    list[Path] | None,
    typer.Option("--plugin", help="Python file that registers methods, models or data sets; may be repeated."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", envvar="PAI_BENCH_SET", help="A value of the recipe, for example train.epochs=20; may be repeated."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(envvar="PAI_BENCH_SPLIT", help="Measure on 'test' or 'validation'; short for --set data.split=…."),
]
ScoringData = Annotated[
    str | None,
    typer.Option(
        "--scoring-data",
        envvar="PAI_BENCH_SCORING_DATA",
        help="Score with train, noise, shuffled-pixels, random-labels or one-class; short for --set scoring.data=….",
    ),
]
Effective = Annotated[
    bool | None,
    typer.Option(
        "--effective",
        envvar="PAI_BENCH_EFFECTIVE",
        help="Count only weights on a path from input to output; short for --set scoring.effective=true.",
    ),
]
Granularity = Annotated[
    str | None,
    typer.Option(
        envvar="PAI_BENCH_GRANULARITY",
        help="Prune by weight, kernel, channel, 2:4 or constant-fan-in; short for --set scoring.granularity=….",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks.")]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Only these cells, for example 'method=snip,sparsity>=0.95'.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]


@cache
def messages() -> Console:
    """Return the console for messages on stderr; stdout is reserved for data."""
    from rich.console import Console  # most of the start-up time of a command that prints no message

    return Console(stderr=True, soft_wrap=True)


def say(text: str) -> None:
    """Print a message verbatim, without markup."""
    messages().print(text, highlight=False, markup=False)
