"""Results put in their place, of which the first stays, and what is on disk of a cell."""

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

from pai_bench.cells import Cell
from pai_bench.core.atomic import as_json, draft, move_away, write_json
from pai_bench.results import paths
from pai_bench.results.failures import has_failed
from pai_bench.results.mask_files import pack
from pai_bench.results.record import DamagedResult, Result, read_plain

Masks = Mapping[str, NDArray[np.bool_]]

COMPARED = ("accuracy", "curve", "init_hash", "mask_hash", "status")
"""What two results of one cell must agree on."""


@dataclass(frozen=True)
class Delivery:
    """What became of a result: where the cell's result lies, and whether another one was there before."""

    path: Path
    duplicate: bool = False
    differs: tuple[str, ...] = ()
    """What a duplicate says otherwise than the result that counts."""


def write(root: Path, result: Result, masks: Masks, *, owner: str = "unnamed", redo: bool = False) -> Path:
    """Deliver a result and its masks (bool by parameter name); returns the path of the cell's result."""
    return deliver(root, result, masks, owner=owner, redo=redo).path


def deliver(root: Path, result: Result, masks: Masks, *, owner: str = "unnamed", redo: bool = False) -> Delivery:
    """Write a result and its masks; the first valid result of a cell counts, a second one is compared and noted.

    With `redo` it takes the place of what is there. A damaged file that is there is set aside. The masks come first:
    where a result is, its masks are. Numbers that do not exist are written as null.
    """
    place = paths.path(root, result.cell, result.recipe, result.fingerprint)
    content = as_json(asdict(result))
    if not redo:
        earlier = _present_or_set_aside(place, result)
        if earlier is not None:
            return _note_duplicate(root, result, json.loads(content), earlier, place, owner)
    with draft(place) as new, draft(paths.masks_path(place)) as new_masks:
        with new_masks.writing() as file:
            np.savez_compressed(file, **pack(masks))  # type: ignore[arg-type]
        with new.writing() as file:
            file.write(content)
        if redo:
            new_masks.replace()
            new.replace()
            return Delivery(place)
        new_masks.put()
        while not new.put():
            earlier = _present_or_set_aside(place, result)
            if earlier is not None:
                return _note_duplicate(root, result, json.loads(content), earlier, place, owner)
        if not new_masks.is_placed():
            # Left by one who died before its result, or by one who came second: ours is the result, so are the masks.
            new_masks.replace()
    return Delivery(place)


def _note_duplicate(
    root: Path, result: Result, ours: dict[str, Any], theirs: dict[str, Any], place: Path, owner: str
) -> Delivery:
    differs = tuple(name for name in COMPARED if ours[name] != theirs[name])
    note = {
        **asdict(result.cell),
        "recipe": result.recipe,
        "fingerprint": result.fingerprint,
        "owner": owner,
        "equal": not differs,
        "differs": {name: {"counted": theirs[name], "duplicate": ours[name]} for name in differs},
        "finished_at": result.finished_at,
        "provenance": result.provenance,
    }
    write_json(paths.duplicate_path(root, result.cell, result.recipe, result.fingerprint, owner), note)
    return Delivery(place, duplicate=True, differs=differs)


def _present_or_set_aside(place: Path, result: Result) -> dict[str, Any] | None:
    """The valid result that lies at the place of another one; a damaged file is set aside."""
    while True:
        try:
            seen = place.stat()
            plain = read_plain(place)
            _check_address(place, plain, result.cell, result.recipe, result.fingerprint)
        except FileNotFoundError:
            return None
        except DamagedResult:
            set_aside(place, seen)
        else:
            return plain


def set_damaged_aside(root: Path, cell: Cell, recipe: str, fingerprint: str) -> tuple[str, Path | None]:
    """Set a cell's file aside if it is damaged now; what is wrong with it, and the new path: None when it is mended."""
    place = paths.path(root, cell, recipe, fingerprint)
    try:
        seen = place.stat()
        present(root, cell, recipe, fingerprint)
    except FileNotFoundError:
        return "", None
    except DamagedResult as error:
        return error.cause, set_aside(place, seen)
    return "", None


def set_aside(place: Path, seen: os.stat_result | None = None) -> Path | None:
    """Give a damaged file a name under which nobody reads it; it is never deleted. Returns the new path.

    None when it is not there any more, or not as it was `seen` (somebody else has mended it).
    """
    aside = place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}")
    return aside if move_away(place, aside, seen) else None


def _check_address(place: Path, plain: Mapping[str, Any], cell: Cell, recipe: str, fingerprint: str) -> None:
    found = Cell(*(plain[name] for name in ("method", "dataset", "model", "sparsity", "seed")))
    if (found, plain["recipe"], plain["fingerprint"]) != (cell, recipe, fingerprint):
        raise DamagedResult(
            f"result {place} is damaged: it is of {found}, recipe {plain['recipe']}, fingerprint"
            f" {plain['fingerprint'][:8]}",
            "it is not counted",
        )


def present(root: Path, cell: Cell, recipe: str, fingerprint: str) -> bool:
    """Whether the cell has its result.

    Raises: DamagedResult when its file is not its result, OSError when it cannot be read now.
    """
    place = paths.path(root, cell, recipe, fingerprint)
    try:
        plain = read_plain(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    _check_address(place, plain, cell, recipe, fingerprint)
    return True


def state(root: Path, cell: Cell, recipe: str, fingerprint: str) -> str:
    """What is on disk of a cell: "done", "failed", "stale" (only of other settings) or "missing".

    Raises: DamagedResult when its file is not its result, OSError when it cannot be read now.
    """
    if present(root, cell, recipe, fingerprint):
        return "done"
    if has_failed(root, cell, recipe, fingerprint):
        return "failed"
    with suppress(FileNotFoundError, NotADirectoryError):
        prefix = paths.name_prefix(cell, recipe)
        for name in os.listdir(paths.path(root, cell, recipe, fingerprint).parent):  # noqa: PTH208 - names alone, from folders of thousands
            if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{8}\.json", name[len(prefix) :]):
                return "stale"
    return "missing"
