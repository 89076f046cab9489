"""What a result was made with: the sources, the versions, the machine and the job."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("pai-bench", "torchvision", "numpy")


@cache
def source_hash() -> str:
    """SHA-256 (hex) of the Python and TOML files of the harness and its methods; a wheel's is that of its checkout."""
    digest = hashlib.sha256()
    for name, path in sorted(_sources().items()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> dict[str, Path]:
    """The source files by their place in the installed package, where methods lie inside and not beside it."""
    inside = PACKAGE / "methods"
    methods = inside if inside.is_dir() else PACKAGE.parent / "methods"
    found = {}
    for prefix, root in (("", PACKAGE), ("methods/", methods)):
        for path in root.rglob("*"):
            name = prefix + path.relative_to(root).as_posix()
            if name.startswith("profiles/"):  # SLURM settings; a checkout has them elsewhere
                continue
            # An editor's lock is a link to nothing, named ".#snip.py".
            if path.suffix in (".py", ".toml") and not path.name.startswith(".") and path.is_file():
                found[name] = path
    return found


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


@cache
def _commit() -> tuple[str | None, str | None]:
    """The commit of this checkout and the hash of what differs from it (None when clean, or without git)."""
    if not (PACKAGE.parent / ".git").exists():
        return None, None
    commit, difference = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    dirty = hashlib.sha256(difference.encode()).hexdigest() if difference else None
    return (commit.strip() if commit else None), dirty


@cache
def _versions() -> dict[str, str]:
    # torch says which build it is, which its package metadata does not.
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def collect() -> dict[str, Any]:
    """Commit, hash of the uncommitted difference, hash of the sources, versions, host, and the cluster job if any."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty_diff_hash": dirty,
        "source_hash": source_hash(),
        "versions": _versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
    }
