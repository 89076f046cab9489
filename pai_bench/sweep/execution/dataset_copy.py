"""A results folder is of one copy of each data set: results of two copies would be compared as if of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pai_bench import results
from pai_bench.core.atomic import as_json, draft
from pai_bench.datasets.files import DataChanged
from pai_bench.results import shapes


def settle(root: Path, dataset: str, origin: str) -> None:
    """Note that the results are of this copy, or see that it is the one noted; of many at once, one note stands.

    Raises: DataChanged when it is another one.
    """
    noted = _noted(root, dataset)
    if noted is None:
        with draft(results.data_copy_path(root, dataset)) as new:
            with new.writing() as file:
                file.write(as_json({"dataset": dataset, "origin": origin}))
            if not new.put() and _noted(root, dataset) is None:
                new.replace()  # what is there is damaged
        noted = _noted(root, dataset) or origin
    if noted != origin:
        raise DataChanged(
            f"data set {dataset} changed since the plan: the results in {root} are of the copy {noted},"
            f" what is on disk now is {origin}",
            f"put that copy back (see pai-bench data check {dataset}), or take another folder with --results",
        )


def check(root: Path, origins: Mapping[str, str], *, forget: bool) -> None:
    """See that the copies on disk, by data set, are those that the results are of, before anything is started.

    With `forget`, a note is taken back when there is no result that it speaks for.

    Raises: DataChanged when one is not.
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
