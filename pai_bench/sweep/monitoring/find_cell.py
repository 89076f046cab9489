"""Resolve a cell reference typed by the user (fields, file path, or fragment) to one cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pai_bench.errors import PaiBenchError, similar
from pai_bench.results import ResultKey
from pai_bench.sweep.planning.expected_cells import slug

LISTED = 10


def find(text: str, cells: Sequence[ResultKey], root: Path) -> ResultKey:
    """Return the only cell that `text` matches: method/dataset/model/sparsity/seed[/recipe] or some of these fields,
    the path of one of the cell's files, or a part of that path.

    Raises: PaiBenchError when no cell or more than one cell matches.
    """
    found = _by_path(text, cells, root) or _by_fields(text, cells) or [cell for cell in cells if text in cell.name]
    if len(found) == 1:
        return found[0]
    if found:
        listed = [_unique(cell, found) for cell in found[:LISTED]]
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        raise PaiBenchError(f"{len(found)} cells match {text!r}", f"choose one: {'  '.join(listed)}{more}")
    if not cells:
        raise PaiBenchError(
            f"there is no cell in {root}", "run pai-bench sweep first, or name the folder with --results"
        )
    near = similar(text, [slug(cell.cell) for cell in cells], cutoff=0.3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise PaiBenchError(
        f"no cell matches {text!r}", f"{hint}use method/dataset/model/sparsity/seed; pai-bench status --json lists all"
    )


def _unique(cell: ResultKey, others: Sequence[ResultKey]) -> str:
    """Return the shortest unique name among `others`: the cell, the cell with its recipe, or the result's name."""
    same = [other for other in others if other.cell == cell.cell]
    if len(same) == 1:
        return slug(cell.cell)
    alike = [other for other in same if other.recipe == cell.recipe]
    return f"{slug(cell.cell)}/{cell.recipe}" if len(alike) == 1 else cell.name


def _by_path(text: str, cells: Sequence[ResultKey], root: Path) -> list[ResultKey]:
    """Return the cells that own the file: a result, masks, a log, a failure note or a claim."""
    place = Path(text).expanduser().absolute()
    with suppress(ValueError):
        inside = place.relative_to(root).as_posix()
        return [cell for cell in cells if re.search(rf"(^|/){re.escape(cell.name)}(\.|$)", inside)]
    return []


def _by_fields(text: str, cells: Sequence[ResultKey]) -> list[ResultKey]:
    words = [word for word in re.split(r"[/·\s]+", text) if word not in ("", "sparsity", "seed")]
    exact = [cell for cell in cells if words[:5] in (_words(cell, "g"), _words(cell, ""))]
    if len(words) > 5:
        return [cell for cell in exact if words[5:] == [cell.recipe]]
    return exact or [cell for cell in cells if words and all(_says(word, cell) for word in words)]


def _words(cell: ResultKey, style: str) -> list[str]:
    point = cell.cell
    return [point.method, point.dataset, point.model, format(point.sparsity, style), str(point.seed)]


def _says(word: str, cell: ResultKey) -> bool:
    point = cell.cell
    numbers = {
        f"{point.sparsity:g}",
        f"{point.sparsity!r}",
        f"s{point.sparsity!r}",
        str(point.seed),
        f"seed{point.seed}",
    }
    return word in {point.method, point.spec.name, point.dataset, point.model, cell.recipe, *numbers}
