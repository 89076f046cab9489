"""Storage of results: the first valid result of a cell wins; and the state of a cell on disk."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.core.atomic import as_json, draft, move_away, write_json
from pai_bench.results import paths
from pai_bench.results.failures import has_failed
from pai_bench.results.key import ResultKey, name_prefix
from pai_bench.results.mask_files import pack, write_arrays
from pai_bench.results.record import DamagedResult, Result, read_plain

Masks = Mapping[str, NDArray[np.bool_]]

COMPARED = ("accuracy", "curve", "init_hash", "mask_hash", "status")
"""Fields in which two results of one cell must agree."""


@dataclass(frozen=True)
class Delivery:
    """Outcome of a delivery: the path of the cell's result, and a flag for an earlier result."""

    path: Path
    duplicate: bool = False
    differs: tuple[str, ...] = ()
    """Fields in which a duplicate differs from the counted result."""


def write(root: Path, result: Result, masks: Masks, *, owner: str = "unnamed", redo: bool = False) -> Path:
    """Deliver a result and its masks (bool by parameter name), and return the path of the cell's result."""
    return deliver(root, result, masks, owner=owner, redo=redo).path


def deliver(root: Path, result: Result, masks: Masks, *, owner: str = "unnamed", redo: bool = False) -> Delivery:
    """Write a result and its masks. The first valid result of a cell counts; a second one is compared and recorded.

    With `redo`, an existing result is replaced. An existing damaged file is renamed. The masks are written first, so
    that every result has its masks. NaN and infinity are written as null.

    A process that dies while it replaces a result leaves masks and no result, and the next sweep runs the cell again.
    """
    place = result.key.path(root)
    content = as_json(asdict(result))
    if not redo:
        earlier = _present_or_set_aside(place, result)
        if earlier is not None:
            # The stored form is compared, which has lists for tuples and null for NaN.
            return _note_duplicate(root, result, json.loads(content), earlier, place, owner)
    with draft(place) as new, draft(paths.masks_path(place)) as new_masks:
        with new_masks.writing() as file:
            write_arrays(file, pack(masks))
        with new.writing() as file:
            file.write(content)
        if redo:
            # Two files cannot be replaced at once, and a result must never have the masks of another run.
            place.unlink(missing_ok=True)
            new_masks.replace()
            new.replace()
            return Delivery(place)
        new_masks.put()
        # A damaged file in the way is set aside, after which the next attempt succeeds.
        while not new.put():
            earlier = _present_or_set_aside(place, result)
            if earlier is not None:
                return _note_duplicate(root, result, json.loads(content), earlier, place, owner)
        if not new_masks.is_placed():
            # The existing masks are from a process that died before it wrote its result, or that lost the race for the
            # result. The result on disk is this one, so its masks must be, too.
            new_masks.replace()
    return Delivery(place)


def _note_duplicate(
    root: Path, result: Result, ours: dict[str, Any], theirs: dict[str, Any], place: Path, owner: str
) -> Delivery:
    differs = tuple(name for name in COMPARED if ours[name] != theirs[name])
    note = {
        **result.key.as_dict(),
        "owner": owner,
        "equal": not differs,
        "differs": {name: {"counted": theirs[name], "duplicate": ours[name]} for name in differs},
        "finished_at": result.finished_at,
        "provenance": result.provenance,
    }
    write_json(result.key.duplicate_path(root, owner), note)
    return Delivery(place, duplicate=True, differs=differs)


def _present_or_set_aside(place: Path, result: Result) -> dict[str, Any] | None:
    """Return the valid result at that path, or None; rename a damaged file."""
    while True:
        try:
            # The status precedes the content: a file that replaces this one meanwhile must not be set aside.
            seen = place.stat()
            plain = read_plain(place)
            _check_key(place, plain, result.key)
        except FileNotFoundError:
            return None
        except DamagedResult:
            set_aside(place, seen)
        else:
            return plain


def set_damaged_aside(root: Path, key: ResultKey) -> tuple[str, Path | None]:
    """Rename a cell's result file if it is damaged; return the cause and the new path (None if it is not damaged)."""
    place = key.path(root)
    try:
        seen = place.stat()
        present(root, key)
    except FileNotFoundError:
        return "", None
    except DamagedResult as error:
        return error.cause, set_aside(place, seen)
    return "", None


def set_aside(place: Path, seen: os.stat_result | None = None) -> Path | None:
    """Rename a damaged file so that it is no longer read, and return the new path; it is never deleted.

    Returns None if the file is gone or differs from `seen` (another process has replaced it).
    """
    aside = place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}")
    return aside if move_away(place, aside, seen) else None


def _check_key(place: Path, plain: Mapping[str, Any], key: ResultKey) -> None:
    found = ResultKey.of(plain)
    if found != key:
        raise DamagedResult(
            f"result {place} is damaged: it belongs to {found.cell}, recipe {found.recipe}, fingerprint"
            f" {found.fingerprint[:8]}",
            "it is not counted",
        )


def present(root: Path, key: ResultKey) -> bool:
    """Return True if the cell has a valid result.

    Raises: DamagedResult when the file is not a valid result of the cell, OSError when it cannot be read at present.
    """
    place = key.path(root)
    try:
        plain = read_plain(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    _check_key(place, plain, key)
    return True


def state(root: Path, key: ResultKey) -> str:
    """Return the state of a cell on disk: "done", "failed", "stale" (results of other settings only) or "missing".

    Raises: DamagedResult when the file is not a valid result of the cell, OSError when it cannot be read at present.
    """
    if present(root, key):
        return "done"
    if has_failed(root, key):
        return "failed"
    with suppress(FileNotFoundError, NotADirectoryError):
        prefix = name_prefix(key.cell, key.recipe)
        for name in os.listdir(key.path(root).parent):  # noqa: PTH208 - only names are needed, from folders with thousands of entries
            if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{8}\.json", name[len(prefix) :]):
                return "stale"
    return "missing"
