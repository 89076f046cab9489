"""Interface of a first training that several cells share: the dense one of methods that prune after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pai_bench.training.cooperative import Task


class FirstTraining(Protocol):
    """The first training of a cell, whose state at its end may be known from another cell."""

    def awaited(self, pause: Callable[[], Task[None]]) -> Task[Mapping[str, Any] | None]:
        """Return the state at the end, or None if this cell is to train; wait while another one trains.

        `pause` runs while this cell waits; it may raise Interrupted.
        """
        ...

    def store(self, state: Mapping[str, Any]) -> None:
        """Share the state at the end of this cell's first training."""
        ...
