"""Settings of a run: the options of a sweep that apply to each of its cells, on this machine and in a SLURM job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pai_bench.errors import PaiBenchError


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run. A new option is a field here, an option of `pai-bench sweep`, and its use in `attempt`.

    The command line of a worker and the specification of a SLURM job hold these settings as plain data.
    """

    root: Path
    """The results root."""
    data_dir: Path | None = None
    """The folder of the data sets; None for the default folder."""
    plugins: tuple[Path, ...] = ()
    """Plug-in files to load before the run."""
    redo: bool = False
    """Run cells that have a result, and ignore cached scores."""
    checkpoint_every: float = 60.0
    """Seconds between two checkpoints of a cell."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of finished cells."""
    disk_patience: float = 300.0
    """Seconds for which writes to an unusable results folder (a full disk) are retried."""
    pack: int | None = None
    """Number of cells that a process trains at once; None for the number that is fastest on the device."""

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data for JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunSettings:
        """Read settings from plain data; settings that an earlier version did not write have their defaults.

        Raises: TypeError for unknown names or a missing results root.
        """
        return cls(**{name: _parsed(_TYPES.get(name, ""), value) for name, value in plain.items()})

    def to_json(self) -> str:
        """Return the settings as one argument of a command line."""
        return json.dumps(self.as_dict())

    @classmethod
    def from_json(cls, text: str) -> RunSettings:
        """Read settings from one argument of a command line."""
        return cls.from_dict(json.loads(text))


_TYPES = {field.name: str(field.type) for field in fields(RunSettings)}
NAMES = frozenset(_TYPES)
"""Names of the settings."""


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parsed(kind: str, value: Any) -> Any:
    if "Path" not in kind or value is None:
        return value
    return tuple(map(Path, value)) if kind.startswith("tuple") else Path(value)


def parse_pack(text: str) -> int | None:
    """Parse the value of `--pack`; return None for "auto".

    Raises: PaiBenchError for anything else.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise PaiBenchError(f"invalid --pack {text!r}", 'use "auto" or an integer >= 1')
