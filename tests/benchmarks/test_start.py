"""Processor time until the command line shows its help, in comparison with the import of its only large library."""

from __future__ import annotations

import resource
import subprocess
import sys

ROUNDS = 5
MOST = 2.5


def processor_seconds(code: str) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return used() - before


def test_help_starts_within_a_small_multiple_of_the_import_of_typer() -> None:
    show = "import sys; sys.argv = ['pai-bench', '--help']; from pai_bench.cli.program import main; main()"
    # The runs alternate, so that a change of the machine's speed affects both; the minimum is the least disturbed run.
    pairs = [(processor_seconds("import typer"), processor_seconds(show)) for _ in range(ROUNDS)]
    assert min(helped for _, helped in pairs) <= MOST * min(imported for imported, _ in pairs)
