"""Who watches a cell while it runs."""

from __future__ import annotations

from pai_bench.results import Epoch


class Watch:
    """Is told how far a cell has come; this one does nothing, others override what they need."""

    def phase(self, phase: str) -> None:
        """A phase begins: "loading", "scoring", "training" or "measuring"."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch of `epochs` has ended."""

    def tick(self) -> None:
        """Something has moved: a training step, a batch of scoring or of evaluation. Must cost microseconds."""
