"""The command line: parse options, call one function, print. Only commands that need torch import it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["app", "is_interrupt", "main"]


def is_interrupt(error: BaseException | None) -> bool:
    """Return True for an interrupt and for an error that an interrupt caused.

    Python before 3.12 raises RuntimeError from an interrupt that arrives while a class is created, as during an import.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def main() -> None:
    """Run the program; an interrupt during its import also ends it without a traceback."""
    try:
        from pai_bench.cli import program
    except (Exception, KeyboardInterrupt) as error:
        if not is_interrupt(error):
            raise
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    program.main()


def __getattr__(name: str) -> Any:
    if name == "app":
        # The import is postponed, so that `main` can handle an interrupt during it.
        from pai_bench.cli.program import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
