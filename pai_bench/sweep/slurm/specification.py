"""Specification of a chunk: one file with everything that its tasks need, read by the job."""

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
from pai_bench.results import ResultKey
from pai_bench.sweep.execution.settings import NAMES, RunSettings
from pai_bench.sweep.slurm import trust

SCHEMA = 1

LEDGER = "ledger.jsonl"
"""File name of the ledger, which is in the same folder as the specifications of a sweep."""


@dataclass(frozen=True)
class Entry:
    """A cell in a chunk."""

    cell: Cell
    recipe: Mapping[str, Any]
    fingerprint: str

    @property
    def key(self) -> ResultKey:
        """The key of the cell's result."""
        return ResultKey(self.cell, self.recipe["name"], self.fingerprint)


@dataclass(frozen=True)
class Spec:
    """Settings and cells of the tasks of a chunk."""

    sweep: str
    token: str
    settings: RunSettings
    code: Mapping[str, str]
    """Source hashes of pai-bench and of each plug-in at the time of planning."""
    any_code: bool
    requeue: bool
    gpus: int
    patience: float
    """Seconds that a task may spend on saving its cells after the warning signal, before SLURM kills it."""
    ended_jobs: Mapping[str, str]
    """End states of jobs that hold claims on cells of this chunk."""
    tasks: tuple[tuple[Entry, ...], ...]

    @property
    def root(self) -> Path:
        """The results root."""
        return self.settings.root

    @property
    def folder(self) -> Path:
        """The folder of the chunk, with the batch script, the tasks' output, and the records of their stops."""
        return results.sweeps_folder(self.root) / self.sweep / self.token

    @property
    def place(self) -> Path:
        """The path of the specification."""
        return path_of(self.root, self.sweep, self.token)

    def write(self) -> Path:
        """Write the specification; returns its path, which is the only argument of a task."""
        recipes: list[Mapping[str, Any]] = []
        tasks = []
        for task in self.tasks:
            lines = []
            for entry in task:
                # A chunk may have thousands of cells with the same recipe, which is stored once.
                if entry.recipe not in recipes:
                    recipes.append(entry.recipe)
                # The name lets `status` and `sweep` identify the cells without parsing cells and recipes.
                fields = {**asdict(entry.cell), "fingerprint": entry.fingerprint, "name": entry.key.name}
                lines.append({**fields, "recipe": recipes.index(entry.recipe)})
            tasks.append(lines)
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "settings"}
        plain |= {**self.settings.as_dict(), "schema": SCHEMA, "recipes": recipes, "tasks": tasks}
        trust.make_folder(self.place.parent)
        with replacing(self.place) as file:
            file.write(as_json(plain))
            # The mode is set before the file gets its final name, so that no other user can write to it in between.
            trust.close_file(file.fileno())
        return self.place

    @classmethod
    def read_trusted(cls, place: Path) -> Spec:
        """Read the specification of this job's task.

        Raises: PaiBenchError when the file cannot be read, when the file, its folder or the ledger belongs to another
            user or is writable by others, or when the content belongs to another chunk.
        """
        try:
            # A user who can write to the folder can replace the file, whatever the file's own mode.
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
        """Read a specification without checking the owner of the file.

        Raises: PaiBenchError when the file cannot be read.
        """
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
            settings = RunSettings.from_dict({name: plain.pop(name) for name in NAMES & plain.keys()})
            return cls(settings=settings, **plain)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise PaiBenchError(f"{place} cannot be read: {type(error).__name__}: {error}", "sweep again") from None


_CELL = ("method", "dataset", "model", "sparsity", "seed")


def path_of(root: Path, sweep: str, token: str) -> Path:
    """Return the path of the specification of a chunk."""
    return results.sweeps_folder(root) / sweep / f"{token}.json"


def names(content: bytes) -> tuple[tuple[str, ...], ...] | None:
    """Return the names of the cells of each task in a specification; None when the content is damaged."""
    try:
        found = tuple(tuple(line["name"] for line in task) for task in parse_json(content)["tasks"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if all(type(name) is str for task in found for name in task) else None
