"""Detection of tied scores: kept weights with the same score as pruned ones were selected by position alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FEW = 10
SHARE = 0.01
"""Thresholds of the warning: at most this many ties, or this fraction of the kept weights, are not reported."""

NAMED = 3
"""Methods, data sets and models that a line names."""


class TiedScoresWarning(UserWarning):
    """Many kept weights have the score of pruned ones, exactly or up to rounding errors, so that position decided."""


def are_many(tied: int, kept: int) -> bool:
    """Return True if the number of kept weights tied with pruned ones should be reported to the user."""
    return tied > max(FEW, SHARE * kept)


def at_cut(
    scores: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    layers: bool,
    noise: float = 0.0,
) -> int:
    """Count the kept weights whose score equals the highest score of the pruned ones (the lowest if inverted).

    Takes scores and bool masks by parameter name: `before` (the candidates) and `kept` (after the cut). With `layers`,
    each layer has its own cut. Scores up to the magnitude `noise` are rounding errors and count as equal.
    """
    groups = [[name] for name in kept] if layers else [list(kept)]
    return sum(_in_group([(scores[name], before[name], kept[name]) for name in group], noise) for group in groups)


def _in_group(parts: list[tuple[Tensor, Tensor, Tensor]], noise: float) -> int:
    stay = [score[mask] for score, _, mask in parts]
    gone = [score[candidates & ~mask] for score, candidates, mask in parts]
    stay, gone = [part for part in stay if part.numel()], [part for part in gone if part.numel()]
    if not stay or not gone:
        return 0
    least_stay, least_gone = (min(float(part.min()) for part in side) for side in (stay, gone))
    most_stay, most_gone = (max(float(part.max()) for part in side) for side in (stay, gone))
    for cut, other in ((least_stay, most_gone), (most_stay, least_gone)):
        if max(abs(cut), abs(other)) <= noise:
            return sum(int((part.abs() <= noise).sum()) for part in stay)
        if cut == other:
            return sum(int((part == cut).sum()) for part in stay)
    return 0


def warning(method: str, tied: int, kept: int) -> str:
    """Return the message of a `TiedScoresWarning`."""
    return (
        f"{method}: {tied} of the {kept} kept weights have the same score as pruned weights, exactly or up to rounding"
        " errors, so that their position or chance decides which of them stay (often the first layers). Likely cause:"
        " parameters that are zero at initialisation (classifier, norm gains, residual branches), units that are dead,"
        " or gradients that cancel (instance norm before a global average). Initialise them with other values before"
        " pruning, or choose a method that does not depend on them"
    )


def decide(row: Mapping[str, Any]) -> bool:
    """Return True if more than a few kept weights of a result are tied with pruned ones.

    The row has n_kept and tied_at_cut; None, NaN or nothing where they are unknown.
    """
    tied, kept = row.get("tied_at_cut"), row.get("n_kept")
    if tied is None or kept is None or tied != tied or kept != kept:
        return False
    return are_many(int(tied), int(kept))


def line(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return one line on results whose masks are decided by ties, None when there are none.

    A row has method, dataset, model, sparsity, seed, n_kept and tied_at_cut (None or NaN where it is unknown).
    """
    many = [row for row in rows if decide(row)]
    if not many:
        return None
    most = max(float(row["tied_at_cut"]) / row["n_kept"] for row in many)
    results = "1 result has" if len(many) == 1 else f"{len(many)} results have"
    counts = Counter(f"{row['method']} on {row['dataset']} with {row['model']}" for row in many)
    which = ", ".join(f"{count} of {name}" for name, count in counts.most_common(NAMED))
    more = f" and {len(counts) - NAMED} more kinds" if len(counts) > NAMED else ""
    return (
        f"{results} kept weights whose score is tied with pruned ones (up to {100 * most:.0f} % of the kept weights;"
        f" {which}{more}): their position decides which stay, often for want of gradients through zero-initialised"
        " layers"
    )
