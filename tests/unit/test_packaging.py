"""Tests of the contents of the wheel."""

from __future__ import annotations

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
