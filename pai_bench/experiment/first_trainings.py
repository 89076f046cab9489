"""Dense trainings that cells of pruning after training share, whatever their sparsities and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from pai_bench.core import plugins
from pai_bench.experiment import provenance
from pai_bench.experiment.run import Run
from pai_bench.experiment.score_cache import FileCache
from pai_bench.results import ResultKey
from pai_bench.scoring.problem import Scorer
from pai_bench.training.cooperative import Task, waiting

Claim = AbstractContextManager[Any]
Claims = Callable[[Path, ResultKey], Claim | None]
"""Function that claims the work of a path for a cell; it returns None while another process has the claim."""

LOOK_SECONDS = 2.0
"""Seconds between two looks for the state that another process trains towards."""

MAGIC = b"pai-bench dense training 1"
ENDING = ".training"


def trains_dense_first(scorer: Scorer) -> bool:
    """Return True for methods that train the dense network before they prune it."""
    return getattr(scorer, "starts_dense", False) and hasattr(scorer, "rewinding")


class FirstTrainings:
    """States of dense trainings at their ends, in files that processes share, else the last one in memory.

    The files are only a help: a state that is damaged, missing or not writable is trained again, to the same bits.
    One cell at a time trains towards a state, and the others wait for it: within a process always, and between
    processes as far as there are claims.
    """

    def __init__(self, folder: Path | None = None, claims: Claims | None = None) -> None:
        """Take the folder of the files, and the function that claims a training; None for none."""
        self._claims = claims
        self._files = None if folder is None else FileCache(folder, MAGIC, ENDING)
        self._last: tuple[str, Mapping[str, Any]] | None = None
        self._training: dict[str, object] = {}
        """Owner of each state that a cell of this process trains towards."""

    @contextmanager
    def of(self, run: Run, identity: Mapping[str, str], device: str) -> Iterator[_First | None]:
        """Yield the first training of a run; None for methods that do not train the dense network first.

        `identity` has the hashes of initial weights and data.
        """
        if not trains_dense_first(run.scorer()):
            yield None
            return
        # The dense training precedes any scoring.
        tables = {name: table for name, table in run.recipe.values().items() if name != "scoring"}
        follows = (
            # A state is a sequence of floating-point operations: another version or device would give other bits.
            (provenance.source_hash(), plugins.plugins(), torch.__version__, device),
            (run.cell.dataset, run.cell.model, run.cell.seed, identity["init_hash"], identity["data_hash"], tables),
        )
        first = _First(self, repr(follows), run.key())
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

    def claim(self, key: str, cell: ResultKey) -> Claim | None:
        """Claim the training towards a state for a cell; return None while another process has the claim."""
        if self._files is None or self._claims is None:
            return nullcontext()
        with suppress(OSError):
            return self._claims(self._files.place(key).with_suffix(".claim"), cell)
        return nullcontext()  # claims only save work: without one, the cell trains

    def take(self, key: str, owner: object) -> bool:
        """Return True if `owner` is to train towards a state, False while another cell of this process does."""
        return self._training.setdefault(key, owner) is owner

    def release(self, key: str, owner: object) -> None:
        """Let another cell train towards a state."""
        if self._training.get(key) is owner:
            del self._training[key]


class _First:
    """The first training of one cell."""

    def __init__(self, trainings: FirstTrainings, key: str, cell: ResultKey) -> None:
        self._trainings = trainings
        self._key = key
        self._cell = cell
        self._claim: Claim | None = None

    def awaited(self, pause: Callable[[], Task[None]]) -> Task[Mapping[str, Any] | None]:
        """Return the state at the end, or None if this cell is to train."""
        while not self._trainings.take(self._key, self):
            yield from pause()
        known = self._trainings.find(self._key)
        while known is None and not self._claimed():
            yield from waiting(LOOK_SECONDS, pause)
            known = self._trainings.find(self._key)
        # The last owner of the claim may have stored the state just before it gave the claim back.
        known = known or self._trainings.find(self._key)
        if known is not None:
            self.release()
        return known

    def _claimed(self) -> bool:
        """Return True if this process has the claim."""
        if self._claim is None:
            self._claim = self._trainings.claim(self._key, self._cell)
            if self._claim is not None:
                self._claim.__enter__()
        return self._claim is not None

    def store(self, state: Mapping[str, Any]) -> None:
        """Share the state at the end of this cell's first training."""
        # The weights to rewind to depend on the method: `jump` keeps the ones that the cell itself saved.
        self._trainings.store(self._key, {**state, "rewound": {}})
        self.release()

    def release(self) -> None:
        """Let another cell train."""
        if self._claim is not None:
            self._claim.__exit__(None, None, None)
            self._claim = None
        self._trainings.release(self._key, self)


def _copied(value: Any) -> Any:
    """Return nested plain values with copies of their tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
