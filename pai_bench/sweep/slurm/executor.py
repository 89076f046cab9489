"""Batch scripts from submitit that run a command line instead of a pickled function."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import submitit


class CommandExecutor(submitit.SlurmExecutor):
    """Executor that writes the script of a job, or of an array of equal tasks, for `python -m MODULE ARGUMENTS`.

    submitit's own executors store a pickled function in the job's folder. A user with write access to that folder could
    replace the pickle, and thereby the code that the job runs.
    """

    def __init__(self, folder: Path, python: str, arguments: Sequence[str]) -> None:
        super().__init__(folder, python=python)
        self.arguments = tuple(arguments)

    @property
    def command(self) -> str:
        """The line of bash that runs the task.

        The flag -P keeps the working directory, which others may be able to write to, out of the module search path.
        """
        return f"{self.python} -P -u -m {shlex.join(self.arguments)}"

    def text(self, n_tasks: int) -> str:
        """Return the script for sbatch with `n_tasks` tasks."""
        self.parameters.pop("map_count", None)
        if n_tasks > 1:
            self.parameters["map_count"] = n_tasks
        text: str = self._make_submission_file_text(self.command, "")
        return text
