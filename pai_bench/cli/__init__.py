"""The command line: parse options, call one function, print. Only commands that need torch import it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["app", "main"]


def main() -> None:
    """Run the program; an interrupt during its import also ends it without a traceback."""
    try:
        from pai_bench.cli import program
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    program.main()


def __getattr__(name: str) -> Any:
    if name == "app":
        # The import is postponed, so that `main` can handle an interrupt during it.
        from pai_bench.cli.program import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
