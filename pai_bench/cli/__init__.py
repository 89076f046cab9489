"""The command line: arguments to calls, nothing else. Torch is imported by the commands that need it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["app", "main"]


def main() -> None:
    """Run the program; an interrupt while it is being loaded ends it without a traceback too."""
    try:
        from pai_bench.cli import program
    except KeyboardInterrupt:
        sys.exit(130)
    program.main()


def __getattr__(name: str) -> Any:
    if name == "app":
        from pai_bench.cli.program import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
