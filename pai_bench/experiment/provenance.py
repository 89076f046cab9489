"""Provenance of a result: source code, package versions, machine and cluster job."""

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
    """Return the SHA-256 (hex) of the package's Python and TOML files; a checkout and its wheel have the same one."""
    digest = hashlib.sha256()
    for name, path in sorted(_sources().items()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> dict[str, Path]:
    """Return the source files by path inside the installed package, where methods/ is a subpackage."""
    inside = PACKAGE / "methods"
    methods = inside if inside.is_dir() else PACKAGE.parent / "methods"
    found = {}
    for prefix, root in (("", PACKAGE), ("methods/", methods)):
        for path in root.rglob("*"):
            name = prefix + path.relative_to(root).as_posix()
            # SLURM settings and released results; not inside the package in a checkout
            if name.startswith(("profiles/", "reference/")):
                continue
            # An editor's lock file is a dangling symbolic link, named for example ".#snip.py".
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
    """Return the commit of the checkout and the hash of its uncommitted diff (None when clean or without git)."""
    if not (PACKAGE.parent / ".git").exists():
        return None, None
    # The hash of the diff tells two uncommitted states apart without storing the code in each result.
    commit, difference = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    dirty = hashlib.sha256(difference.encode()).hexdigest() if difference else None
    return (commit.strip() if commit else None), dirty


@cache
def _versions() -> dict[str, str]:
    # torch.__version__ includes the build (such as +cu126), unlike the package metadata.
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def attempt(name: str, device: str) -> dict[str, str]:
    """Describe an attempt at a cell for the record of a cell that a later attempt finishes."""
    return {"attempt": name, "host": socket.gethostname(), "device": device}


def collect() -> dict[str, Any]:
    """Collect commit, hash of the uncommitted diff, hash of the sources, versions, host, and the cluster job if any."""
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
