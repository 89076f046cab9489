"""The command `pai-bench status`: print a status once or repeatedly."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.monitoring import status, status_text
from pai_bench.sweep.slurm.cached_survey import CachedSurvey
from pai_bench.sweep.slurm.controller import Controller

PATIENCE = 20.0
"""Timeout of squeue in seconds; short, because a user waits for the status."""


def run(folder: Path | None, every: float | None, as_json: bool, filter_text: str | None = None) -> bool:
    """Print the status of a results folder; with `every`, repeat at this interval in seconds until all cells ended.

    A filter selects the cells. Returns True if every selected cell has a result.

    Raises: PaiBenchError when the folder contains no cell, or none that the filter selects.
    """
    root = results.resolve_root(folder)
    survey = CachedSurvey(root, Controller(PATIENCE))
    found = _look(root, survey, filter_text)
    if not found.cells:
        raise PaiBenchError(
            f"there is no plan and no result in {root}", "run pai-bench sweep first, or name the folder with --results"
        )
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
    elif every is None:
        _print(found)
    else:
        with suppress(KeyboardInterrupt):
            found = _watch(root, survey, found, filter_text, every)
    return found.counts()["done"] == len(found.cells)


def _look(root: Path, survey: CachedSurvey, filter_text: str | None) -> status.Status:
    return status.collect(root, survey.look(), filter_text)


def _print(found: status.Status) -> None:
    screen = Console(highlight=False)
    if screen.is_terminal:
        screen.print(status_text.render(found))
    else:
        print(status_text.as_text(found), end="")


def _watch(
    root: Path, survey: CachedSurvey, found: status.Status, filter_text: str | None, every: float
) -> status.Status:
    """Print the status repeatedly: redraw it on a terminal, or append a line to a log."""
    screen = Console(highlight=False)
    with Live(console=screen, auto_refresh=False) if screen.is_terminal else nullcontext() as live:
        while True:
            if live is None:
                now = datetime.now().astimezone().isoformat(timespec="seconds")
                print(f"{now} {status_text.headline(found)}", flush=True)
            else:
                live.update(status_text.render(found), refresh=True)
            if found.ended():
                return found
            time.sleep(every)
            found = _look(root, survey, filter_text)
