"""Dense trainings that cells of pruning after training share, whatever their sparsities and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pai_bench.core import plugins
from pai_bench.experiment import provenance
from pai_bench.experiment.run import Run
from pai_bench.experiment.score_cache import FileCache
from pai_bench.training.cooperative import Task

MAGIC = b"pai-bench dense training 1"
ENDING = ".training"


class FirstTrainings:
    """States of dense trainings at their ends, in files that processes share, else the last one in memory.

    The files are only a help: a state that is damaged, missing or not writable is trained again, to the same bits.
    Within a process one cell at a time trains towards a state, and the others wait for it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = None if folder is None else FileCache(folder, MAGIC, ENDING)
        self._last: tuple[str, Mapping[str, Any]] | None = None
        self._training: dict[str, object] = {}
        """Owner of each state that a cell of this process trains towards."""

    @contextmanager
    def of(self, run: Run, identity: Mapping[str, str], device: str) -> Iterator[_First | None]:
        """Yield the first training of a run; None for methods that do not train the dense network first.

        `identity` has the hashes of initial weights and data.
        """
        scorer = run.scorer()
        if not (getattr(scorer, "starts_dense", False) and hasattr(scorer, "rewinding")):
            yield None
            return
        # The dense training precedes any scoring.
        tables = {name: table for name, table in run.recipe.values().items() if name != "scoring"}
        follows = (
            # A state is a sequence of floating-point operations: another version or device would give other bits.
            (provenance.source_hash(), plugins.plugins(), torch.__version__, device),
            (run.cell.dataset, run.cell.model, run.cell.seed, identity["init_hash"], identity["data_hash"], tables),
        )
        first = _First(self, repr(follows))
        try:
            yield first
        finally:
            first.release()

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return a state, or None."""
        if self._files is not None:
            return self._files.read(key)
        return self._last[1] if self._last is not None and self._last[0] == key else None

    def store(self, key: str, state: Mapping[str, Any]) -> None:
        """Store a state; write errors are ignored."""
        if self._files is not None:
            self._files.write(key, state)
        else:
            self._last = key, _copied(state)

    def take(self, key: str, owner: object) -> bool:
        """Return True if `owner` is to train towards a state, False while another cell of this process does."""
        return self._training.setdefault(key, owner) is owner

    def release(self, key: str, owner: object) -> None:
        """Let another cell train towards a state."""
        if self._training.get(key) is owner:
            del self._training[key]


class _First:
    """The first training of one cell."""

    def __init__(self, trainings: FirstTrainings, key: str) -> None:
        self._trainings = trainings
        self._key = key

    def awaited(self, pause: Callable[[], Task[None]]) -> Task[Mapping[str, Any] | None]:
        """Return the state at the end, or None if this cell is to train."""
        while not self._trainings.take(self._key, self):
            yield from pause()
        return self._trainings.find(self._key)

    def store(self, state: Mapping[str, Any]) -> None:
        """Share the state at the end of this cell's first training."""
        # Weights to rewind to depend on the method, and `jump` keeps those of the cell itself.
        self._trainings.store(self._key, {**state, "rewound": {}})
        self.release()

    def release(self) -> None:
        """Let another cell train."""
        self._trainings.release(self._key, self)


def _copied(value: Any) -> Any:
    """Return nested plain values with copies of their tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
