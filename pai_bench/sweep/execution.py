"""One cell of a sweep, wherever it runs: claimed, resumed from its checkpoint, run, delivered, noted."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.checkpoints import Checkpoints, Interrupted
from pai_bench.experiment import Laboratory, Run
from pai_bench.results import DamagedResult, Epoch
from pai_bench.sweep.claims import Address, Claim, Owner, take
from pai_bench.watch import Watch


@dataclass(frozen=True)
class Ended:
    """How an attempt at a cell ended."""

    kind: str
    """"done", "present" (a result was there), "claimed" (somebody alive has it), "failed", "interrupted", "duplicate"
    (another result was there first) or "unwritten" (the result could not be written; the cell is still to do)."""
    cause: str | None = None
    accuracy: float | None = None
    status: str | None = None


class Stop:
    """Asks the cell that runs to save and stop; may be used in a signal handler."""

    def __init__(self) -> None:
        self.requested = False
        self.checkpoints: Checkpoints | None = None

    def request(self) -> None:
        """Stop at the next step; a cell that is not training yet stops without saving, it has nothing to save."""
        self.requested = True
        if self.checkpoints is not None:
            self.checkpoints.request_stop()


class _Watch(Watch):
    """Passes on what a cell tells to its claim, its log and whoever else watches."""

    def __init__(self, claim: Claim, stop: Stop, watch: Watch) -> None:
        self._claim = claim
        self._stop = stop
        self._watch = watch
        self._phase = ""
        self._epoch_began: tuple[int, float] | None = None

    def phase(self, phase: str) -> None:
        self._phase = phase
        self._claim.beat(phase=phase)
        self._watch.phase(phase)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        now = time.monotonic()
        seconds = None if self._epoch_began is None else now - self._epoch_began[1]
        self._epoch_began = (epoch.epoch, now)
        self._claim.beat(
            epoch=epoch.epoch, epochs=epochs, **({} if seconds is None else {"seconds_per_epoch": seconds})
        )
        self._watch.epoch(epoch, epochs)

    def tick(self) -> None:
        self._claim.tick()
        self._watch.tick()
        if self._stop.requested and self._phase != "training":
            raise Interrupted


def execute(
    run: Run,
    root: Path,
    laboratory: Laboratory,
    owner: Owner,
    *,
    watch: Watch | None = None,
    stop: Stop | None = None,
    redo: bool = False,
    checkpoint_every: float = 60.0,
    keep_checkpoints: bool = False,
    jobs: Mapping[str, str] | None = None,
) -> Ended:
    """Run a cell unless it has a result or somebody alive works on it; whatever happens is on disk afterwards.

    `jobs` maps Slurm jobs to their states, as far as known.
    """
    address = Address(run.cell, run.recipe.name, run.fingerprint())
    place = (root, run.cell, run.recipe.name, address.fingerprint)
    if not redo and _present(place):
        return Ended("present")
    claim = take(root, address, owner, jobs)
    if claim is None:
        return Ended("claimed")
    stop = stop or Stop()
    with claim:
        if not redo and _present(place):
            return Ended("present")  # its owner has just finished it
        if stop.requested:
            return Ended("interrupted")
        checkpoints = Checkpoints(results.checkpoints_folder(*place), owner.attempt, checkpoint_every)
        stop.checkpoints = checkpoints
        try:
            outcome = laboratory.run(run, _Watch(claim, stop, watch or Watch()), checkpoints)
            delivery = results.deliver(root, outcome.result, outcome.masks, owner=owner.id, redo=redo)
        except Interrupted:
            return Ended("interrupted")
        except Exception as error:
            cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no message'}"
            results.write_failure(*place, cause=cause, traceback=traceback.format_exc())
            return Ended("failed", cause)
        finally:
            stop.checkpoints = None
        results.clear_failure(*place)
        if not keep_checkpoints:
            checkpoints.clear()
        return Ended(
            "duplicate" if delivery.duplicate else "done",
            accuracy=outcome.result.accuracy,
            status=outcome.result.status,
        )


def _present(place: tuple[Path, Cell, str, str]) -> bool:
    """Whether a cell has its result; a damaged one is none, and is set aside when ours is delivered."""
    try:
        return results.present(*place)
    except DamagedResult:
        return False
