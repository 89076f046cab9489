"""What submitit runs in a job: a path to a specification, and nothing that could go out of date on the way."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from submitit.core.utils import DelayedSubmission

if TYPE_CHECKING:
    from pai_bench.sweep.slurm.work import Work


class Task:
    """The tasks of a chunk are alike; each finds its place in the specification by its number in the array.

    The cells run in a thread, so that the main one is free for signals: at the warning of the time limit or of a
    preemption (USR2) it has the cell saved and the job requeued; at a mere SIGTERM it has the cell saved and waits for
    SLURM, which may want to kill the job or to requeue it.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self._work: Work | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"spec": self.spec, "_work": None}

    def __call__(self) -> None:
        from pai_bench.sweep.slurm.work import Work

        self._work = work = Work(self.spec)
        signal.signal(signal.SIGTERM, lambda *_: work.pause())
        work.run()

    def checkpoint(self) -> DelayedSubmission | None:
        """For submitit, when USR2 comes: what is to be run after a requeue; None: no requeue."""
        if self._work is not None and not self._work.stop():
            return None
        return DelayedSubmission(Task(self.spec))
