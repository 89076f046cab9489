"""settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep on this machine: folders, plug-ins, number of workers (None: as many as fit) and options."""

    results: Path
    data_dir: Path | None = None
    plugins: tuple[Path, ...] = ()
    workers: int | None = None
    redo: bool = False
    checkpoint_every: float = 60.0
    keep_checkpoints: bool = False
    hang_after: float = 1800.0
    disk_patience: float = 300.0
    pack: int | None = None
    """Cells at a time in a worker; None selects the fastest number on its device."""

    def arguments(self) -> list[str]:
        """Return the command line arguments that pass the settings to a worker."""
        told = ["--results", str(self.results), "--checkpoint-every", str(self.checkpoint_every)]
        told += ["--disk-patience", str(self.disk_patience)]
        if self.data_dir is not None:
            told += ["--data-dir", str(self.data_dir)]
        for plugin in self.plugins:
            told += ["--plugin", str(plugin)]
        if self.pack is not None:
            told += ["--pack", str(self.pack)]
        return told + ["--redo"] * self.redo + ["--keep-checkpoints"] * self.keep_checkpoints
