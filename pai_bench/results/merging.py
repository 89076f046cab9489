"""Union of several results folders: equal results once, contradicting results not at all.

Every file is written atomically and replaces no file, so that a merge that was killed is completed by running it
again, and sweeps may use the folders at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pai_bench.core.atomic import check_writable
from pai_bench.errors import PaiBenchError
from pai_bench.results import paths
from pai_bench.results.key import ResultKey
from pai_bench.results.merge_files import Conflict, Merge
from pai_bench.results.plans import read_plans


@dataclass(frozen=True)
class Merged:
    """Outcome of a merge."""

    copied: int
    """Number of results that this merge copied."""
    present: int
    """Number of results that the output folder already contained."""
    repeated: int
    """Number of results that several of the merged folders contain, with equal numbers."""
    without_masks: int
    """Number of merged results without a valid mask file in any folder."""
    plans: int
    """Number of valid plans in the output folder."""
    failures: int
    """Number of failure records that this merge copied."""
    conflicts: tuple[Conflict, ...]
    damaged: tuple[str, ...]
    """One line for each file that was not copied because it is damaged or unreadable."""
    several_settings: tuple[str, ...]
    """Variants (data set, model, method, recipe) with results of several fingerprints; a report uses one of them."""

    @property
    def complete(self) -> bool:
        """True if every file of the merged folders is in the output folder, or equals a file there."""
        return not self.conflicts and not self.damaged


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Copy the results, masks, plans and failure records of at least two results folders to `out`.

    Results of one cell must agree in `merge_files.FIELDS`, also with a result that `out` already contains; the first
    folder provides the file. Results that disagree are reported and not copied. The results of a data set are not
    copied if the folders used different copies of its files.

    Raises: PaiBenchError when a folder is not a results folder, is given twice, or equals, contains or lies below
        `out`, and when `out` cannot be written to.
    """
    roots = [folder.expanduser().absolute() for folder in folders]
    out = out.expanduser().absolute()
    _check(roots, out)
    check_writable(out, "--out")
    work = Merge(roots, out)
    work.merge_plans()
    work.merge_fixed_masks()
    refused = work.merge_data_records()
    for name in work.result_names():
        if name.partition("/")[0] not in refused:
            work.merge_result(name)
    work.merge_failures()
    found = work.counts
    return Merged(
        copied=found["copied"],
        present=found["present"],
        repeated=found["repeated"],
        without_masks=found["without masks"],
        plans=len(read_plans(out).found),
        failures=found["failures"],
        conflicts=tuple(work.conflicts),
        damaged=tuple(work.damaged),
        several_settings=_of_several_settings(paths.names(out / "runs", ".json")),
    )


def _check(roots: Sequence[Path], out: Path) -> None:
    if len(roots) < 2:
        raise PaiBenchError("a merge needs at least two results folders", "name them: pai-bench merge A B --out C")
    real = [root.resolve() for root in roots]
    for number, root in enumerate(roots):
        if not (root / "runs").is_dir() and not (root / "plans").is_dir():
            raise PaiBenchError(
                f"{root} is not a results folder: it has neither runs/ nor plans/", "name folders that sweeps wrote"
            )
        if real[number] in real[:number]:
            raise PaiBenchError(f"folder {root} is given twice", "name each folder once")
        if out.resolve().is_relative_to(real[number]) or real[number].is_relative_to(out.resolve()):
            raise PaiBenchError(f"--out {out} overlaps with the merged folder {root}", "choose a separate folder")


def _of_several_settings(names: Iterable[str]) -> tuple[str, ...]:
    fingerprints: dict[str, set[str]] = {}
    for name in names:
        if key := ResultKey.parse(name):
            variant = f"{key.cell.dataset}/{key.cell.model}/{key.cell.method} ({key.recipe})"
            fingerprints.setdefault(variant, set()).add(key.fingerprint)
    return tuple(sorted(variant for variant, found in fingerprints.items() if len(found) > 1))
