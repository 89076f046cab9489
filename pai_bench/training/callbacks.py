"""Callbacks for the progress of a running cell."""

from __future__ import annotations

from pai_bench.results import Epoch


class Callback:
    """Progress callbacks of one cell. The methods of this base class do nothing; subclasses override some of them."""

    def phase(self, phase: str) -> None:
        """Receive the start of a phase: "loading", "scoring", "training" or "measuring"."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Receive a finished epoch; `epochs` is the total number of epochs."""

    def tick(self) -> None:
        """Receive the end of a training step or of a batch of scoring or evaluation; return within microseconds."""
