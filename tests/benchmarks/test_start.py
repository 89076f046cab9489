"""Processor time until the command line shows its help, relative to the import of its only large library."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial

from tests.benchmarks.conftest import Compare

HELP = "import sys; sys.argv = ['pai-bench', '--help']; from pai_bench.cli.program import main; main()"


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help(compare: Compare) -> None:
    run = partial(subprocess.run, check=True, stdout=subprocess.PIPE, text=True)
    shown = compare(
        lambda: run([sys.executable, "-c", HELP]),
        lambda: run([sys.executable, "-c", "import typer"]),
        "of importing typer",
        15,
        most=2.5,
        clock=children_seconds,
    )
    assert "sweep" in shown.stdout
