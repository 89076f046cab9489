"""Build the stub and run its checks on it: python -m tests.cuda_stub [arguments of pytest]."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cuda_stub.build import HERE, build, missing


def run(folder: Path, arguments: Sequence[str] = ()) -> int:
    """Build the stub into `folder`, run the checks in a process on it, and return the exit code of pytest."""
    chosen = list(arguments) if any(not argument.startswith("-") for argument in arguments) else [*arguments, "checks"]
    paths = [str(HERE / "checks") if argument == "checks" else argument for argument in chosen]
    # The checks have names that a collection of tests/ does not match, because they need the preloaded libraries.
    options = ["-n0", "-o", "python_files=check_*.py", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *paths]
    return subprocess.run(command, env={**os.environ, **build(folder)}, cwd=HERE.parents[1]).returncode


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"the stub of the CUDA libraries cannot be built: {reason}")
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(run(Path(temporary), sys.argv[1:]))
