"""Looks at the queue again and again, without asking the controller more often than is polite."""

from __future__ import annotations

import time
from pathlib import Path

from pai_bench.sweep.slurm.controller import Controller
from pai_bench.sweep.slurm.in_flight import InFlight, survey

SECONDS = 30.0
"""Between two questions to the controller."""
EARLY_SECONDS = 15.0
"""The same in the first minute."""
MINUTE = 60.0


class Looks:
    """The cells on their way in a results folder; one controller, whose constants are asked for once."""

    def __init__(self, root: Path, controller: Controller) -> None:
        self._root = root
        self._controller = controller
        self._began = time.monotonic()
        self._asked = self._began
        self._seen: InFlight | None = None

    def look(self) -> InFlight:
        """What is on its way, as squeue said at most half a minute ago (15 s in the first minute)."""
        now = time.monotonic()
        wait = EARLY_SECONDS if now - self._began < MINUTE else SECONDS
        if self._seen is None or now - self._asked >= wait:
            self._seen = survey(self._root, self._controller)
            self._asked = now
        return self._seen
