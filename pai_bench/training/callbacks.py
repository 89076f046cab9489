"""Callbacks for the progress of a running cell."""

from __future__ import annotations

from pai_bench.results import Epoch


class Callback:
    """Progress callbacks of one cell. The methods of this base class do nothing; subclasses override some of them."""

    def phase(self, phase: str) -> None:
        """Called at the start of a phase: "loading", "scoring", "training" or "measuring"."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Called after each epoch; `epochs` is the total number of epochs."""

    def tick(self) -> None:
        """Called after each training step and each batch of scoring or evaluation; must return within microseconds."""
