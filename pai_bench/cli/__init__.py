"""The command line: arguments to calls, nothing else. Torch is imported by the commands that need it."""

from pai_bench.cli.program import app, main

__all__ = ["app", "main"]
