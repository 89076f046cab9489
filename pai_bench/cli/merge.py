"""`pai-bench merge`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pai_bench.cli.options import FAILED, AsJson, Verbose, say

if TYPE_CHECKING:
    from pai_bench.results.merging import Merged


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Results folders, two or more.")],
    out: Annotated[Path, typer.Option(help="Results folder to write to; it may contain an unfinished merge.")],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Merge results folders with their masks and plans; exit with 1 if results contradict each other.

    Results of one cell with different numbers are named, and none of them is copied. After an interruption, run the
    same command again.
    """
    from pai_bench.results.merging import merge as merge_folders

    del verbose
    merged = merge_folders(folders, out)
    for line in _lines(merged):
        say(line)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "complete": merged.complete, **asdict(merged)}, indent=1))
    else:
        typer.echo(str(out))
    if not merged.complete:
        raise typer.Exit(FAILED)


def _lines(merged: Merged) -> list[str]:
    counts = [f"{merged.copied} results copied", f"{merged.present} already there"]
    counts += [f"{merged.repeated} in several folders"] if merged.repeated else []
    counts += [f"{merged.without_masks} without masks"] if merged.without_masks else []
    lines = [f"{', '.join(counts)}; {merged.plans} plans; {merged.failures} failure records"]
    for conflict in merged.conflicts:
        lines.append(f"conflict: {conflict.name}: not copied")
        for place, *values in zip(conflict.files, *conflict.differs.values(), strict=True):
            shown = (f"{key} {_text(value)}" for key, value in zip(conflict.differs, values, strict=True))
            lines.append(f"  {place}: {', '.join(shown)}")
    if merged.conflicts:
        lines.append(
            "  equal settings and seeds gave different numbers, for example on different hardware: decide which file"
            " is valid, remove the others with their masks, and run the same command again"
        )
    lines += [f"not copied: {line}" for line in merged.damaged]
    if merged.several_settings:
        lines.append(
            "results with different settings or versions; a report uses those of the newest plan, and lists the others"
            f" as stale: {', '.join(merged.several_settings)}"
        )
    return lines


def _text(value: Any) -> str:
    """Format a field of a result: a learning curve as its number of epochs, a hash as its first digits."""
    if isinstance(value, list):
        return f"of {len(value)} epochs"
    return value[:8] if isinstance(value, str) else str(value)
