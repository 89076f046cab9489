"""Rate-limited polling of the queue."""

from __future__ import annotations

import time
from pathlib import Path

from pai_bench.sweep.slurm.controller import Controller
from pai_bench.sweep.slurm.in_flight import InFlight, survey

SECONDS = 30.0
"""Minimum time between two queries of slurmctld."""
EARLY_SECONDS = 15.0
"""Minimum time between two queries in the first minute."""
MINUTE = 60.0


class CachedSurvey:
    """Cached view of the cells in flight in a results folder, from one controller (which caches the limits)."""

    def __init__(self, root: Path, controller: Controller) -> None:
        self._root = root
        self._controller = controller
        self._began = time.monotonic()
        self._asked = self._began
        self._seen: InFlight | None = None

    def look(self) -> InFlight:
        """Return the cells in flight, from a query at most 30 s old (15 s in the first minute)."""
        now = time.monotonic()
        wait = EARLY_SECONDS if now - self._began < MINUTE else SECONDS
        # The screen may be redrawn far more often, but all users of a cluster share one controller.
        if self._seen is None or now - self._asked >= wait:
            self._seen = survey(self._root, self._controller)
            self._asked = now
        return self._seen
