"""Record of the data set copy used by a results folder: results of two different copies must not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.atomic import as_json, draft
from pai_bench.datasets.files import DataChanged
from pai_bench.results import shapes


def settle(root: Path, dataset: str, origin: str) -> None:
    """Record `origin` as the copy of the data set used by the results, or compare it with the recorded one.

    When several processes record a copy at the same time, exactly one record is kept.

    Raises: DataChanged when another copy is recorded.
    """
    noted = _noted(root, dataset)
    if noted is None:
        with draft(results.data_copy_path(root, dataset)) as new:
            with new.writing() as file:
                file.write(as_json({"dataset": dataset, "origin": origin}))
            if not new.put() and _noted(root, dataset) is None:
                new.replace()  # the existing record is damaged
        noted = _noted(root, dataset) or origin
    if noted != origin:
        raise DataChanged(
            f"data set {dataset} changed since the plan: the results in {root} used the copy {noted},"
            f" the copy on disk is {origin}",
            f"restore that copy (see pai-bench data check {dataset}), or choose another folder with --results",
        )


def check(root: Path, origins: Mapping[str, str], *, forget: bool) -> None:
    """Check, before anything is started, that the data sets on disk are the copies used by the existing results.

    `origins` maps data sets to their copies. With `forget`, a record without any result is removed.

    Raises: DataChanged when a copy differs.
    """
    for dataset, origin in origins.items():
        noted = _noted(root, dataset)
        if noted is None or noted == origin:
            continue
        if any((root / "runs" / dataset).rglob("*.json")):
            settle(root, dataset, origin)
        elif forget:
            results.data_copy_path(root, dataset).unlink(missing_ok=True)


def _noted(root: Path, dataset: str) -> str | None:
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        plain = shapes.table(results.data_copy_path(root, dataset).read_bytes())
        shapes.check(plain, {"dataset": (str,), "origin": (str,)})
        return str(plain["origin"])
    return None
