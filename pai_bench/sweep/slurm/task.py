"""The program of a SLURM job: `python -m pai_bench.sweep.slurm.task SPECIFICATION`.

A job is given nothing but the path of its specification. This module imports little before it listens for signals, for
a job may be warned of its end while torch is still loading from a slow disk.
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
"""Time that the controller has to answer a request to requeue the job."""
ENDED_EARLY = 255
"""Exit code of an attempt that was saved and whose job is requeued."""


class Task:
    """The tasks of a chunk are alike; each finds its place in the specification by its number in the array.

    The cells run in a thread, so that the main one is free for signals: at the warning of the time limit or of a
    preemption (USR2) it has the cell saved and the job requeued; at a mere SIGTERM it has the cell saved and waits for
    SLURM, which may want to kill the job or to requeue it.

    Jobs that an earlier pai-bench submitted hold a pickle of this class, which submitit loads and calls: its name, its
    place, `__getstate__`, `__call__` and `checkpoint` serve them.
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

        Raises: WorkFailed when some of them failed, PaiBenchError when the specification is refused.
        """
        from pai_bench.errors import PaiBenchError
        from pai_bench.sweep.slurm.task_runner import Work

        try:
            self._work = work = Work(self.spec)
            signal.signal(signal.SIGTERM, lambda *_: work.pause())
            work.run()
        except PaiBenchError as error:
            # With these words the job has ended by itself: no cell is to blame.
            _say(f"ends: {error.cause}; {error.remedy}")
            raise

    def stop(self) -> bool:
        """Save the cells and end them; returns whether the job is to be requeued."""
        if self._work is not None:
            return self._work.stop()
        from pai_bench.sweep.slurm.specification import Spec
        from pai_bench.sweep.slurm.stops import stopped_at_start

        again = stopped_at_start(Spec.read_trusted(Path(self.spec)), (time.monotonic() - self._began) / 60)
        _say(f"asked to stop before the work began; {'requeued' if again else 'not requeued'}")
        return again

    def checkpoint(self) -> DelayedSubmission | None:
        """Return what submitit runs after a requeue of a job with a pickle; None: no requeue."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(Task(self.spec)) if self.stop() else None


def main(spec: str) -> int:
    """Run the task that this job is for; returns the exit code of the job."""
    task = Task(spec)
    early: list[int] = []

    def warned(_number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        # SystemExit leaves the main thread; the cells' thread is a daemon and ends with the process.
        sys.exit(ENDED_EARLY if task.stop() and _requeue() else 1)

    signal.signal(signal.SIGTERM, lambda *_: None)
    # A handler that runs in the middle of an import finds modules half loaded. So until all that counting a stop takes
    # is loaded, a warning is only remembered.
    signal.signal(signal.SIGUSR2, lambda number, _: early.append(number))
    from pai_bench.errors import PaiBenchError
    from pai_bench.sweep.slurm import stops

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
    """Ask SLURM to run this job again; returns whether it will."""
    get = os.environ.get
    job = get("SLURM_JOB_ID", "")
    if get("SLURM_ARRAY_JOB_ID") and get("SLURM_ARRAY_TASK_ID"):
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
