"""submitit's batch script around a command line, so that nothing is pickled."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import submitit


class CommandExecutor(submitit.SlurmExecutor):
    """Writes the script of a job, or of an array of equal tasks, that runs `python -m MODULE ARGUMENTS`.

    submitit itself hands a job a pickled function in the job's folder. Whoever can write to that folder could replace
    the pickle, and with it the code that the job runs.
    """

    def __init__(self, folder: Path, python: str, arguments: Sequence[str]) -> None:
        super().__init__(folder, python=python)
        self.arguments = tuple(arguments)

    @property
    def command(self) -> str:
        """The line of bash that runs the task.

        With -P the working directory, which others may be able to write to, is no place to import modules from.
        """
        return f"{self.python} -P -u -m {shlex.join(self.arguments)}"

    def text(self, n_tasks: int) -> str:
        """Return the script that sbatch is given for so many tasks."""
        self.parameters.pop("map_count", None)
        if n_tasks > 1:
            self.parameters["map_count"] = n_tasks
        text: str = self._make_submission_file_text(self.command, "")
        return text
