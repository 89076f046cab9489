"""The program of a SLURM job: `python -m pai_bench.sweep.slurm.task SPECIFICATION`.

The path of the specification is the job's only argument. This module imports little before it installs signal handlers,
because SLURM may send the warning signal while torch is still loading from a slow disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

    from pai_bench.sweep.slurm.task_runner import Work

REQUEUE_SECONDS = 60.0
"""Time limit of the request to requeue the job."""
ENDED_EARLY = 255
"""Exit code of an attempt whose cells were saved and whose job is requeued."""


class Task:
    """Task of a chunk; all tasks run the same program and select their cells by the index in the job array.

    The cells run in a second thread, because Python delivers signals to the main thread only. On USR2, the warning
    before the time limit or a preemption, the main thread saves the cells and requeues the job. On SIGTERM alone it
    saves the cells and waits, because SLURM may go on to kill or to requeue the job.

    Jobs submitted by version 0.1 contain a pickle of this class, which submitit loads and calls. The module path, the
    class name, `__getstate__`, `__setstate__`, `__call__` and `checkpoint` must therefore not change.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self._work: Work | None = None
        self._began = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        return {"spec": self.spec, "_work": None, "_began": 0.0}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(str(state["spec"]))  # type: ignore[misc]

    def __call__(self) -> None:
        """Run the cells of this task.

        Raises: WorkFailed when some cells failed, PaiBenchError when the specification is not trusted or unreadable.
        """
        from pai_bench.errors import PaiBenchError
        from pai_bench.sweep.slurm.task_runner import Work

        try:
            self._work = work = Work(self.spec)
            signal.signal(signal.SIGTERM, lambda *_: work.pause())
            work.run()
        except PaiBenchError as error:
            # `crashes` looks for this message in the output: the task ended regularly, no cell crashed it.
            _say(f"ends: {error.cause}; {error.remedy}")
            raise

    def stop(self) -> bool:
        """Save the cells and stop; returns True when the job should be requeued."""
        if self._work is not None:
            return self._work.stop()
        from pai_bench.sweep.slurm.specification import Spec
        from pai_bench.sweep.slurm.stops import stopped_at_start

        again = stopped_at_start(Spec.read_trusted(Path(self.spec)), (time.monotonic() - self._began) / 60)
        _say(f"stopped by a signal before the work began; {'requeued' if again else 'not requeued'}")
        return again

    def checkpoint(self) -> DelayedSubmission | None:
        """Return the callable that submitit runs after it requeues a pickled job; None: do not requeue."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(Task(self.spec)) if self.stop() else None


def main(spec: str) -> int:
    """Run this job's task; returns the exit code of the job."""
    task = Task(spec)
    early: list[int] = []

    def warned(_number: int, _frame: FrameType | None) -> NoReturn:
        # A second warning must not interrupt the saving.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        # SystemExit ends the main thread only; the cells' thread is a daemon thread and ends with the process.
        sys.exit(ENDED_EARLY if task.stop() and _requeue() else 1)

    # The default action would end the process at once, although SLURM may be about to requeue the job.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # A handler that runs during an import may find half-initialised modules. Until the modules that record a stop are
    # loaded, the handler therefore only notes the signal.
    signal.signal(signal.SIGUSR2, lambda number, _: early.append(number))
    from pai_bench.errors import PaiBenchError
    from pai_bench.sweep.slurm import stops

    # Only the import matters; the assertion keeps linters from removing it.
    assert stops
    signal.signal(signal.SIGUSR2, warned)
    if early:
        warned(early[0], None)
    try:
        task()
    except PaiBenchError:
        return 1
    except Exception as error:
        from pai_bench.sweep.slurm.task_runner import WorkFailed

        if not isinstance(error, WorkFailed):
            raise
        _say(str(error))
        return 1
    return 0


def _requeue() -> bool:
    """Requeue this job; returns True when SLURM accepted the request."""
    get = os.environ.get
    job = get("SLURM_JOB_ID", "")
    if get("SLURM_ARRAY_JOB_ID") and get("SLURM_ARRAY_TASK_ID"):
        # SLURM_JOB_ID of the last task is the id of the whole array, so it would requeue all tasks.
        job = f"{get('SLURM_ARRAY_JOB_ID')}_{get('SLURM_ARRAY_TASK_ID')}"
    try:
        subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=REQUEUE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        words = str(getattr(error, "stderr", None) or error).strip()
        _say(f"SLURM does not requeue the job: {words}")
        return False
    return True


def _say(text: str) -> None:
    print(f"pai-bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
