"""Recipe and provenance of each result, which the tables of a report do not contain; read from the result files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.errors import PaiBenchError


@dataclass(frozen=True)
class Environment:
    """Code and machine that computed results."""

    commit: str
    """Commit of the checkout, or "" for an installed package."""
    dirty: str
    """SHA-256 of the uncommitted changes, or ""."""
    source_hash: str
    """SHA-256 of the sources of pai-bench."""
    versions: tuple[tuple[str, str], ...]
    """Versions of Python and packages, by name."""
    host: str
    platform: str
    device: str


@dataclass(frozen=True)
class Settings:
    """Settings of a method, equal for all results with one fingerprint."""

    fingerprint: str
    method: str
    recipe: str
    method_version: int
    hyperparameters: tuple[tuple[str, Any], ...]
    recipe_values: str
    """Values of the recipe as JSON with sorted keys."""
    data_origin: str
    """Copy of the data set."""
    plugins: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Records:
    """Settings and environments of the results of a folder, each once, and their indexes by path of the result."""

    settings: tuple[Settings, ...]
    environments: tuple[Environment, ...]
    by_path: Mapping[str, tuple[int, int]]
    """Indexes of settings and environment."""

    def dirty(self) -> dict[str, str]:
        """Return the hash of the uncommitted changes by path, for results of such code."""
        return {
            path: self.environments[environment].dirty
            for path, (_, environment) in self.by_path.items()
            if self.environments[environment].dirty
        }


def read(rows: pd.DataFrame) -> Records:
    """Read the result files of `rows` (see `Collection.rows`); without rows of tables and removed files."""
    settings: dict[Settings, int] = {}
    environments: dict[Environment, int] = {}
    by_path = {}
    for path in rows["path"].dropna() if "path" in rows else ():
        try:
            plain = results.read_plain(Path(path))
        except (OSError, PaiBenchError):
            continue  # replaced or removed since it was collected
        key = settings.setdefault(_settings(plain), len(settings))
        by_path[path] = key, environments.setdefault(_environment(plain["provenance"]), len(environments))
    return Records(tuple(settings), tuple(environments), by_path)


def _settings(plain: Mapping[str, Any]) -> Settings:
    provenance = plain["provenance"]
    return Settings(
        plain["fingerprint"],
        plain["method"],
        plain["recipe"],
        plain["method_version"],
        tuple(sorted(plain["hyperparameters"].items())),
        # As text, because the settings are keys of a dict.
        json.dumps(plain["recipe_values"], sort_keys=True),
        str(provenance.get("data_origin") or ""),
        _pairs(provenance.get("plugins")),
    )


def _environment(provenance: Mapping[str, Any]) -> Environment:
    def text(key: str) -> str:
        return str(provenance.get(key) or "")

    return Environment(
        text("commit"),
        text("dirty_diff_hash"),
        text("source_hash"),
        _pairs(provenance.get("versions")),
        text("host"),
        text("platform"),
        text("device"),
    )


def _pairs(table: Any) -> tuple[tuple[str, str], ...]:
    """Return the items of a JSON object as texts; results of other versions may hold anything."""
    return tuple((str(key), str(value)) for key, value in table.items()) if isinstance(table, dict) else ()
