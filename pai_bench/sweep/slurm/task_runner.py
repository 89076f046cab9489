"""Execution of a task inside its job: runs each cell at most once, and resumes cells from their checkpoints."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from pai_bench import results
from pai_bench.core import plugins
from pai_bench.core.atomic import reason
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import process, provenance
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.pruning import fixed_masks
from pai_bench.recipes import Recipe
from pai_bench.results import mask_files
from pai_bench.sweep.execution.attempt import AttemptOutcome, Stop, executing
from pai_bench.sweep.execution.device_fault import DeviceFault
from pai_bench.sweep.execution.owner import STALE_SECONDS, Owner
from pai_bench.sweep.execution.packing import PackedRunner, Sizes
from pai_bench.sweep.execution.shared import shared
from pai_bench.sweep.slurm import crashes, stops, trust
from pai_bench.sweep.slurm.specification import Entry, Spec
from pai_bench.training.cooperative import Task

PAUSE_SECONDS = 60.0
"""Time that a task waits after SIGTERM for SLURM to kill it, before it resumes its cells."""


class WorkFailed(Exception):
    """Failure of some cells of the task; the failure notes in the results folder have the causes."""


class Work:
    """Runner of the cells of one task in a second thread, several at once where that is faster."""

    def __init__(self, spec: str) -> None:
        """Read the specification at the path `spec`.

        Raises: PaiBenchError when the file cannot be read or other users can write to it.
        """
        self.spec = Spec.read_trusted(Path(spec))
        self.index = stops.task_index()
        self.entries = self.spec.tasks[self.index]
        self.owner = Owner.current(self.spec.sweep)
        self._record = stops.place_of(self.spec, self.owner.job)
        stops.started(self._record, self.owner.restart)
        self._made_at = Path(spec).stat().st_mtime
        self._stop = Stop()
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._ended: Counter[str] = Counter()
        self._current: dict[Run, Entry] = {}
        self._suspected: set[str] = set()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._in_thread, name="cells", daemon=True)

    # Methods called in the main thread.

    def run(self) -> None:
        """Run all cells; the main thread polls, so that it can handle signals.

        Raises: WorkFailed when some cells failed, or the exception that ended the cells' thread.
        """
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(0.2)
        self._say(f"ends: {', '.join(f'{count} {kind}' for kind, count in self._ended.items()) or 'nothing done'}")
        if self._error is not None:
            raise self._error
        failed = self._ended["failed"] + self._ended["unwritten"]
        if failed:
            raise WorkFailed(f"{failed} of {len(self.entries)} cells failed; see pai-bench logs --failed")

    def pause(self) -> None:
        """Request that the current cells are saved and paused; only sets a flag, so it is safe in a signal handler."""
        self._stop.request()

    def stop(self) -> bool:
        """Save the current cells and stop; returns True when the job should be requeued."""
        self._ending.set()
        self._stop.request()
        self._thread.join(self.spec.patience)
        saved = "saved" if not self._thread.is_alive() else "not saved in time: the last checkpoint counts"
        self._say(f"stopped by a signal; {saved}")
        progressed = self._has_progressed()
        return self.spec.requeue and progressed

    # Methods called in the cells' thread.

    def _in_thread(self) -> None:
        try:
            self._run()
        except WorkFailed as error:
            self._error = error
        except DeviceFault as fault:
            self._say(str(fault))
            keys = [entry.key for entry in self._current.values()]
            crashes.record_gpu_error(self.spec.root, keys, self.owner.job or self.owner.attempt)
            self._error = fault
        except Exception as error:
            # The error did not come from a cell: a failed cell writes its own note and does not raise.
            self._note("environment", f"{type(error).__name__}: {error}".partition("\n")[0])
            self._error = error

    def _run(self) -> None:
        process.prepare()
        self._say(f"task {self.index} of chunk {self.spec.token}, attempt {self.owner.attempt}")
        settings = self.spec.settings
        for plugin in settings.plugins:
            self._load(plugin)
        self._check()
        runner = CellRunner(settings.data_dir, "cuda" if self.spec.gpus else "cpu", *shared(settings, self.owner))
        sizes = Sizes(runner, settings.pack)
        packed = PackedRunner(runner, sizes, partial(self._start, runner))
        self._suspected = crashes.suspected(self.spec.root, (entry.key.name for entry in self.entries))
        # Last, because another crash would keep the other cells waiting for another job.
        left = deque(sorted(self.entries, key=self._runs_alone))
        deadline: float | None = None
        while left and not self._ending.is_set():
            claimed = self._all(left, packed)
            if self._ending.is_set():
                return
            # Skip cells claimed by other workers, but check them again until a claim of a dead worker would be stale.
            left, now = deque(claimed), time.monotonic()
            deadline = deadline or now + STALE_SECONDS + 60
            if now > deadline:
                break
            if left:
                self._ending.wait(10)
        self._ended["claimed"] += len(left)

    def _all(self, left: deque[Entry], packed: PackedRunner) -> list[Entry]:
        """Run the remaining cells until none is left or the task ends; returns the cells that other workers claim."""
        claimed: list[Entry] = []
        saved: list[Entry] = []
        while left or packed.busy or saved:
            if not packed.busy and saved:
                if self._ending.wait(PAUSE_SECONDS):
                    break
                # SLURM has not killed the job after SIGTERM: resume the paused cells.
                left.extendleft(reversed(saved))
                saved = []
                self._renew()
            while left and not self._stop.requested and packed.takes(run := _run_of(left[0])):
                if packed.busy and any(map(self._runs_alone, (left[0], *self._current.values()))):
                    break
                self._current[run] = left.popleft()
                packed.add(run)
            for run, ended in packed.turn():
                entry = self._current[run]
                cause = f": {ended.cause}" if ended.cause else ""
                self._say(f"{entry.cell}: {ended.kind}{cause}")
                if ended.kind == "interrupted":
                    saved.append(entry)
                    continue
                del self._current[run]
                if ended.kind == "claimed":
                    claimed.append(entry)
                else:
                    self._ended[ended.kind] += 1
            if self._stop.requested and left and not packed.busy and not saved:
                if self._ending.wait(PAUSE_SECONDS):
                    break
                self._renew()
        return claimed

    def _runs_alone(self, entry: Entry) -> bool:
        return entry.key.name in self._suspected

    def _renew(self) -> None:
        """Reset the stop flag for the next request, but keep a request to end the task."""
        self._stop = Stop()
        if self._ending.is_set():
            self._stop.request()

    def _start(self, runner: CellRunner, run: Run, alone: Callable[[], bool]) -> Task[AttemptOutcome]:
        settings, stop = self.spec.settings, self._stop
        # With --redo, a requeued task must not repeat the cells that its earlier attempts have redone.
        settings = replace(settings, redo=settings.redo and not self._is_new(self._current[run]))
        return executing(run, settings, runner, self.owner, stop=stop, jobs=self.spec.ended_jobs, alone=alone)

    def _is_new(self, entry: Entry) -> bool:
        """Return True when the cell has a result that is newer than this task's specification."""
        try:
            return entry.key.path(self.spec.root).stat().st_mtime > self._made_at
        except OSError:
            return False

    def _load(self, plugin: Path) -> None:
        """Load a plug-in after checking that only this user or root can write to it and that it has not changed.

        Raises: PaiBenchError when the plug-in is not trusted or cannot be loaded; WorkFailed, after a note for each
            cell, when it has changed since the sweep was planned.
        """
        if plugin.suffix in mask_files.SUFFIXES:
            # Data, not code: a changed file changes the fingerprints, which _check refuses.
            fixed_masks.load_plugin(plugin)
            return
        try:
            content = trust.read(plugin)
        except OSError as error:
            raise PaiBenchError(
                f"plugin {plugin} cannot be read: {reason(error)}", "sweep again with --plugin"
            ) from None
        # Compare the hash before the import executes any of the plug-in's code.
        planned = self.spec.code.get(plugin.name, "").split(",")
        if hashlib.sha256(content).hexdigest() not in planned and not self.spec.any_code:
            self._refuse_code(plugin.name)
        fixed_masks.load_plugin(plugin, content)

    def _refuse_code(self, names: str) -> NoReturn:
        self._refuse(
            "code",
            f"the code of {names} has changed since the sweep was planned: sweep again, or sweep with --any-code",
        )

    def _check(self) -> None:
        """Check that the code and the fingerprints match the plan, and that torch finds the requested GPU.

        Raises: WorkFailed, after a note for each cell, when a check fails.
        """
        now = {"pai-bench": provenance.source_hash(), **plugins.plugins()}
        changed = [name for name in self.spec.code if now.get(name) != self.spec.code[name]]
        if changed and not self.spec.any_code:
            self._refuse_code(", ".join(changed))
        for entry in self.entries:
            found = Run(entry.cell, Recipe.from_dict(entry.recipe)).fingerprint()
            if found != entry.fingerprint:
                self._refuse(
                    "code", f"{entry.cell} has the fingerprint {found[:8]} here, {entry.fingerprint[:8]} planned"
                )
        if self.spec.gpus and not torch.cuda.is_available():
            self._refuse(
                "environment",
                f"the job requested {self.spec.gpus} GPUs on {self.owner.host}, but torch finds none"
                f" (CUDA_VISIBLE_DEVICES = {os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}): see pai-bench doctor, or"
                " use --profile cpu",
            )

    def _refuse(self, kind: str, cause: str) -> NoReturn:
        self._note(kind, cause)
        raise WorkFailed(cause)

    def _note(self, kind: str, cause: str) -> None:
        """Write a failure note for each cell without a result."""
        stops.note(self.spec, self.entries, kind, cause)

    def _has_progressed(self) -> bool:
        """Record a stop; returns False when it is the last of MAX_STOPS consecutive stops without progress.

        In that case the current cells are recorded as failed.
        """
        minutes = (time.monotonic() - self._began) / 60
        stopped = stops.stopped(self._record, self._progress_of_task(), minutes, self.owner.restart, self.spec.requeue)
        if len(stopped) < stops.MAX_STOPS:
            return True
        cause = (
            f"stopped {len(stopped)} times without progress, after {', '.join(map(str, stopped))} minutes: give it more"
            " time with --slurm time=…"
        )
        for entry in list(self._current.values()):
            with suppress(OSError):
                results.write_failure(self.spec.root, entry.key, cause=cause, traceback="", kind="died")
            self._say(cause)
        return False

    def _progress_of_task(self) -> list[Any]:
        """Return the number of cells that ended, and the name of the latest checkpoint of each current cell.

        The names are cut before the attempt's number, so that a repeated attempt at the same epoch is not progress.
        """
        marks = []
        for entry in list(self._current.values()):
            folder = entry.key.checkpoints_folder(self.spec.root)
            found = [""]
            with suppress(OSError):
                found += [path.name[:17] for path in folder.glob("e*-s*.checkpoint")]
            marks.append(max(found))
        finished = sum(count for kind, count in self._ended.items())
        return [finished, *sorted(marks)] if finished or any(marks) else []

    def _say(self, text: str) -> None:
        print(f"pai-bench: {text}", file=sys.stderr, flush=True)


def _run_of(entry: Entry) -> Run:
    return Run(entry.cell, Recipe.from_dict(entry.recipe))
