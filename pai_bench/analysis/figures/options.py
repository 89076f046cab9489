"""Options of a report's figures, and the selection of results that they show."""

from __future__ import annotations

from dataclasses import dataclass

from pai_bench.analysis.figures.venues import VENUES, WIDTHS, Venue, venue
from pai_bench.analysis.published import LEVELS
from pai_bench.errors import PaiBenchError, unknown

X = ("density", "sparsity", "compression")
PUBLISHED = ("none", *LEVELS)


@dataclass(frozen=True)
class Options:
    """Choices for the figures of a report."""

    venue: str = "neurips"
    width: str = "full"
    x: str = "density"
    """Numbers on the sparsity axis; its scale is logarithmic in the density in every case."""
    highlight: tuple[str, ...] = ()
    """Methods in colour; all others are grey. A name includes its variants."""
    figures: tuple[str, ...] = ()
    """Names of figures; none for the default ones, "all" for every figure."""
    published: str = "near"
    """Worst match of published numbers that are drawn: "none", a level of `LEVELS`, or a path to a table."""
    suspect: bool = False
    """Also draw published numbers that are known or suspected to be wrong."""
    baseline: str = "erk"

    def __post_init__(self) -> None:
        """Check the names.

        Raises: PaiBenchError for an unknown venue, width or axis.
        """
        for kind, name, known in (("venue", self.venue, VENUES), ("width", self.width, WIDTHS), ("axis", self.x, X)):
            if name not in known:
                raise unknown(kind, name, known)
        if self.published not in PUBLISHED and not self.published.lower().endswith((".csv", ".parquet")):
            raise PaiBenchError(
                f"--published {self.published!r} is neither a level of a match nor a table",
                f"write one of {', '.join(PUBLISHED)}, or the path of a .csv or .parquet file",
            )

    @property
    def page(self) -> Venue:
        """The text area of the venue."""
        return venue(self.venue)

    @property
    def inches(self) -> float:
        """Width of a figure in inches."""
        return self.page.full if self.width == "full" else self.page.column
