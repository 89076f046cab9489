"""Scores and dense trainings that the processes of a results folder share."""

from __future__ import annotations

from pai_bench import results
from pai_bench.experiment.first_trainings import FirstTrainings
from pai_bench.experiment.score_cache import DiskCache, ScoreCache
from pai_bench.sweep.execution.claims import Owner, take
from pai_bench.sweep.execution.settings import RunSettings


def shared(settings: RunSettings, owner: Owner) -> tuple[ScoreCache, FirstTrainings]:
    """Return what `CellRunner` shares with other processes."""
    return shared_scores(settings), shared_trainings(settings, owner)


def shared_trainings(settings: RunSettings, owner: Owner) -> FirstTrainings:
    """Return the dense trainings that `owner`, this process, shares with others of a results folder; none with `redo`.

    The process that trains one has a claim on it, and the others wait.
    """
    if settings.redo:
        return FirstTrainings()
    return FirstTrainings(
        results.trainings_folder(settings.root), lambda place, key: take(settings.root, key, owner, place=place)
    )


def shared_scores(settings: RunSettings) -> ScoreCache:
    """Return the score cache of this process, shared with the other processes of a results folder.

    With `redo` the cached scores are ignored.
    """
    return ScoreCache(cache=None if settings.redo else DiskCache(results.scores_folder(settings.root)))
