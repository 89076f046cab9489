"""Tests of the contents of the wheel."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_wheel_has_every_data_file_of_every_package() -> None:
    for package in SETTINGS["packages"]:
        patterns = SETTINGS["package-data"].get(package, [])
        folder = ROOT.joinpath(*package.split("."))
        data = [file.name for file in folder.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")]
        left_out = [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)]
        assert not left_out, f"package-data of {package} in pyproject.toml lacks {left_out}"


def test_every_pattern_of_data_files_matches_a_file() -> None:
    for package, patterns in SETTINGS["package-data"].items():
        folder = ROOT.joinpath(*package.split("."))
        assert all(any(folder.glob(pattern)) for pattern in patterns), package


def test_the_oldest_torch_can_be_installed_with_the_constraints_of_its_ci_job() -> None:
    """It excludes the pinned triton and setuptools, without which pip resolves the other pins."""
    (edit,) = re.findall(r"run: sed -i (.*) constraints\.txt", (ROOT / ".github/workflows/ci.yml").read_text())
    edit = edit.replace("${{ matrix.torch }}", "2.11.0").replace("${{ matrix.torchvision }}", "0.26.0")
    command = ["sed", *shlex.split(edit), str(ROOT / "constraints.txt")]
    edited = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {line.partition("==")[0] for line in edited}
    assert {"torch==2.11.0", "torchvision==0.26.0"} <= set(edited) and "numpy" in names
    assert not {"triton", "setuptools"} & names
