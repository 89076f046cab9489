"""Records of `pai-bench speed`: one JSON file below speed/ for each result and setting of the measurement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pai_bench.cells import Cell
from pai_bench.core.atomic import parse_json, read_bytes, write_json
from pai_bench.results.key import ResultKey


@dataclass(frozen=True)
class Setting:
    """Setting of a measurement; only records of equal settings are compared."""

    device: str
    dtype: str
    threads: int
    batch_size: int
    rounds: int
    torch: str
    """Version of torch."""

    def __str__(self) -> str:
        """Return the setting for captions and headings."""
        threads = "" if "cuda" in self.device.lower() else f", {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.device}{threads}, {self.dtype}, batches of {self.batch_size}, {self.rounds} rounds"


@dataclass(frozen=True)
class FormSpeed:
    """Speed and size of one form of a network (see `speed.forms`)."""

    form: str
    seconds: float
    """Median seconds of a forward pass; `_low` and `_high` are the quantiles 0.1 and 0.9 over the rounds."""
    seconds_low: float
    seconds_high: float
    ratio: float
    """Speed-up: dense seconds / own seconds, median over the rounds; of "dense", two timings of the same network."""
    ratio_low: float
    ratio_high: float
    repeats: int
    parameters: int
    flops: int
    peak_bytes: int


@dataclass(frozen=True)
class Speed:
    """Measured speed of the forms of one result's network."""

    cell: Cell
    recipe: str
    fingerprint: str
    mask_hash: str
    setting: Setting
    forms: tuple[FormSpeed, ...]
    absent: dict[str, str]
    """Reasons of the forms that the network does not have."""
    finished_at: str

    @property
    def key(self) -> ResultKey:
        """Key of the result."""
        return ResultKey(self.cell, self.recipe, self.fingerprint)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row of plain data for each form."""
        about = {**asdict(self.cell), "recipe": self.recipe, **asdict(self.setting), "finished_at": self.finished_at}
        return [{**about, **asdict(form)} for form in self.forms]


def speed_path(root: Path, key: ResultKey, setting: Setting) -> Path:
    """Return the path of the record of a result in a setting."""
    text = json.dumps(asdict(setting), sort_keys=True)
    return root / "speed" / f"{key.name}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def write_speed(root: Path, speed: Speed) -> Path:
    """Write a record atomically; an earlier one of the same result and setting is replaced."""
    place = speed_path(root, speed.key, speed.setting)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, asdict(speed))
    return place


def read_speed(place: Path) -> Speed | None:
    """Read a record; None for a file that is missing or damaged."""
    try:
        plain = parse_json(read_bytes(place))
        values = {field.name: plain[field.name] for field in fields(Speed)}
        values["cell"], values["setting"] = Cell(**plain["cell"]), Setting(**plain["setting"])
        values["forms"] = tuple(FormSpeed(**form) for form in plain["forms"])
        return Speed(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_speeds(root: Path) -> tuple[list[Speed], list[Path]]:
    """Return all readable records, sorted by path, and the paths of the others."""
    found: list[Speed] = []
    damaged: list[Path] = []
    places: Sequence[Path] = sorted((root / "speed").rglob("*.json"))
    for place in places:
        if (speed := read_speed(place)) is None:
            damaged.append(place)
        else:
            found.append(speed)
    return found, damaged
