"""The specification of a chunk: all that its tasks need to know, in one file that their job reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.core.atomic import as_json, parse_json, reason, replacing
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm import trust

SCHEMA = 1

LEDGER = "ledger.jsonl"
"""The name of the ledger beside the specifications of a sweep."""


@dataclass(frozen=True)
class Entry:
    """A cell in a chunk."""

    cell: Cell
    recipe: Mapping[str, Any]
    fingerprint: str

    @property
    def name(self) -> str:
        """The path of its result below runs/, without .json."""
        return results.name(self.cell, self.recipe["name"], self.fingerprint)


@dataclass(frozen=True)
class Spec:
    """All that the tasks of a chunk need to know."""

    sweep: str
    token: str
    root: Path
    code: Mapping[str, str]
    """Hashes of the sources that the sweep was planned with: of pai-bench, and of each plug-in."""
    any_code: bool
    data_dir: Path | None
    plugins: tuple[Path, ...]
    redo: bool
    requeue: bool
    gpus: int
    checkpoint_every: float
    keep_checkpoints: bool
    disk_patience: float
    patience: float
    """Seconds that a task has from the warning until it is killed."""
    ended_jobs: Mapping[str, str]
    """States of jobs that had claimed cells of these and have ended."""
    tasks: tuple[tuple[Entry, ...], ...]
    pack: int | None = None
    """Cells at a time in a task; None: as many as are fastest there."""

    @property
    def folder(self) -> Path:
        """The folder of the chunk: the script that sbatch was given, the tasks' output, their stops."""
        return results.sweeps_folder(self.root) / self.sweep / self.token

    @property
    def place(self) -> Path:
        """The path of the specification."""
        return path_of(self.root, self.sweep, self.token)

    def write(self) -> Path:
        """Write it; the path is all that a task is handed."""
        recipes: list[Mapping[str, Any]] = []
        tasks = []
        for task in self.tasks:
            lines = []
            for entry in task:
                if entry.recipe not in recipes:
                    recipes.append(entry.recipe)
                fields = {**asdict(entry.cell), "fingerprint": entry.fingerprint, "name": entry.name}
                lines.append({**fields, "recipe": recipes.index(entry.recipe)})
            tasks.append(lines)
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain |= {"schema": SCHEMA, "root": str(self.root), "plugins": [str(path) for path in self.plugins]}
        plain |= {"data_dir": self.data_dir and str(self.data_dir), "recipes": recipes, "tasks": tasks}
        trust.make_folder(self.place.parent)
        with replacing(self.place) as file:
            file.write(as_json(plain))
            trust.close_file(file.fileno())
        return self.place

    @classmethod
    def read_trusted(cls, place: Path) -> Spec:
        """Read the specification of this job's task.

        Raises: PaiBenchError when it cannot be read, when it, its folder or the ledger belongs to somebody else or can
            be written by others, or when it is that of another chunk.
        """
        try:
            for path in (place.parent, place.with_name(LEDGER)):
                with suppress(FileNotFoundError):
                    trust.check(path)
            spec = cls._parse(place, trust.read(place))
        except OSError as error:
            raise PaiBenchError(f"{place} cannot be read: {reason(error)}", "sweep again") from None
        if (spec.sweep, spec.token) != (place.parent.name, place.stem):
            raise PaiBenchError(f"{place} is the specification of {spec.sweep}, {spec.token}", "sweep again")
        return spec

    @classmethod
    def read(cls, place: Path) -> Spec:
        """Raises: PaiBenchError when it cannot be read."""
        try:
            return cls._parse(place, place.read_bytes())
        except OSError as error:
            raise PaiBenchError(f"{place} cannot be read: {reason(error)}", "sweep again") from None

    @classmethod
    def _parse(cls, place: Path, content: bytes) -> Spec:
        try:
            plain = parse_json(content)
            if plain.pop("schema") > SCHEMA:
                raise ValueError("a newer pai-bench wrote it")
            recipes = plain.pop("recipes")
            plain["tasks"] = tuple(
                tuple(
                    Entry(Cell(*(line[name] for name in _CELL)), recipes[line["recipe"]], line["fingerprint"])
                    for line in task
                )
                for task in plain["tasks"]
            )
            plain |= {"root": Path(plain["root"]), "plugins": tuple(Path(path) for path in plain["plugins"])}
            return cls(**{**plain, "data_dir": plain["data_dir"] and Path(plain["data_dir"])})
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise PaiBenchError(f"{place} cannot be read: {type(error).__name__}: {error}", "sweep again") from None


_CELL = ("method", "dataset", "model", "sparsity", "seed")


def path_of(root: Path, sweep: str, token: str) -> Path:
    """Return the path of the specification of a chunk."""
    return results.sweeps_folder(root) / sweep / f"{token}.json"


def names(content: bytes) -> tuple[tuple[str, ...], ...] | None:
    """Return the names of the cells of each task of a specification; None when it is damaged."""
    try:
        found = tuple(tuple(line["name"] for line in task) for task in parse_json(content)["tasks"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if all(type(name) is str for task in found for name in task) else None
