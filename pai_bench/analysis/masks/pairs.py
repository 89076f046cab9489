"""Pairs of stored masks to compare: of two methods, seeds or kinds of scoring data, or of two files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench import results
from pai_bench.analysis.columns import OURS
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.masks.overlap import Overlap, Packed, check_same, overlap
from pai_bench.cells import DENSE
from pai_bench.errors import PaiBenchError
from pai_bench.results import mask_files

KINDS = ("methods", "seeds", "data", "granularity")
"""Comparisons: of two methods at one seed, of two seeds of one method, of two kinds of scoring data or two
granularities of one method at one seed."""

_OF_RECIPE = {"data": "train", "granularity": "weight"}
"""Comparisons of two values of the recipe, and the default of `scoring.<name>`."""

COLUMNS = ["between", "dataset", "model", "recipe", "sparsity", "within", "one", "other", "n"]
COLUMNS += ["jaccard", "expected", "excess", "corrected"]
"""Columns of `compare`: `within` is the method of two seeds or kinds of data; n the number of pairs of masks, whose
means the numbers are."""


@dataclass(frozen=True)
class _Mask:
    """A result with masks."""

    method: str
    dataset: str
    model: str
    recipe: str
    sparsity: float
    seed: int
    init_hash: str
    path: Path


def compare(rows: pd.DataFrame, kinds: Sequence[str] = KINDS) -> pd.DataFrame:
    """Compare the masks of results; `rows` as in `Collection.rows`. Returns the table COLUMNS, without dense networks.

    Raises: PaiBenchError when no two results with masks can be compared.
    """
    ours = rows[(rows["source"] == OURS) & (rows["method"] != DENSE) & ~rows["method"].map(is_small_dense)]
    names = ["method", "dataset", "model", "recipe", "sparsity", "seed", "init_hash", "path"]
    records: list[dict[str, Any]] = ours.reindex(columns=names).to_dict("records")
    found = [_Mask(**{**line, "path": Path(line["path"])}) for line in records]
    held = [mask for mask in found if results.masks_path(mask.path).is_file()]
    if found and not held:
        raise PaiBenchError(
            f"no result has masks beside it (results: {len(found)})",
            "a sweep stores them as *.masks.npz; run the cells again with --redo, or name mask files",
        )
    lines: list[dict[str, Any]] = []
    for setting, members in _grouped(held, lambda m: (m.dataset, m.model, m.sparsity)):
        lines += _Setting(setting, members).compare(kinds)
    if not lines:
        raise PaiBenchError(
            f"no two results can be compared (with masks: {len(held)})",
            "masks are compared between methods, seeds, kinds of scoring data or granularities, at one data set, model"
            " and sparsity",
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def compare_files(paths: Sequence[Path]) -> pd.DataFrame:
    """Compare every pair of mask files; returns the table COLUMNS.

    Raises: PaiBenchError for fewer than two files, a file without masks, and masks of different networks.
    """
    if len(paths) < 2:
        raise PaiBenchError("one mask file has nothing to be compared with", "give two or more mask files")
    packed = [Packed.of(mask_files.read(path).masks) for path in paths]
    lines = []
    for one, other in itertools.combinations(range(len(paths)), 2):
        check_same(packed[one], packed[other], (str(paths[one]), str(paths[other])))
        names = {"one": str(paths[one]), "other": str(paths[other])}
        lines.append({"between": "files", **names, **_means([overlap(packed[one], packed[other])])})
    return pd.DataFrame(lines, columns=COLUMNS).astype({"n": int})


class _Setting:
    """The masks of one data set, model and sparsity, read once each."""

    def __init__(self, setting: tuple[Any, ...], members: Sequence[_Mask]) -> None:
        self._about = dict(zip(("dataset", "model", "sparsity"), setting, strict=True))
        self._packed: dict[_Mask, Packed] = {}
        for mask in members:
            with suppress(results.DamagedResult, OSError):  # reported by the index, or removed since
                self._packed[mask] = Packed.of(results.read_masks(mask.path))

    def compare(self, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield one line per pair of methods, method with two seeds, and method with two kinds of data."""
        masks = list(self._packed)
        if "methods" in kinds:
            for (recipe,), members in _grouped(masks, lambda m: (m.recipe,)):
                by_seed = [
                    {m.method: m for m in same} for _, same in _grouped(members, lambda m: (m.seed, m.init_hash))
                ]
                yield from self._lines("methods", recipe, "", by_seed)
        if "seeds" in kinds:
            for (recipe, method), members in _grouped(masks, lambda m: (m.recipe, m.method)):
                pairs = [self._overlap(*pair) for pair in itertools.combinations(members, 2)]
                if pairs:
                    yield self._line("seeds", recipe, method, ("any", "any other"), pairs)
        for kind in _OF_RECIPE:
            if kind in kinds:
                yield from self._of_recipe(kind, masks)

    def _of_recipe(self, kind: str, masks: Sequence[_Mask]) -> Iterator[dict[str, Any]]:
        """Yield the lines of one method whose recipes differ in `scoring.<kind>` only."""
        values = {mask: _scoring_value(mask.path, kind) for mask in masks}
        for (method, _), members in _grouped(masks, lambda m: (m.method, values[m][1])):
            by_seed = [
                {values[m][0]: m for m in same} for _, same in _grouped(members, lambda m: (m.seed, m.init_hash))
            ]
            if len({values[m][0] for m in members}) > 1:
                recipe = min((m.recipe for m in members), key=len)
                yield from self._lines(kind, recipe, method, by_seed)

    def _lines(
        self, kind: str, recipe: str, within: str, by_seed: Sequence[dict[str, _Mask]]
    ) -> Iterator[dict[str, Any]]:
        names = list(dict.fromkeys(name for masks in by_seed for name in masks))
        for one, other in itertools.combinations(names, 2):
            pairs = [self._overlap(masks[one], masks[other]) for masks in by_seed if {one, other} <= masks.keys()]
            if pairs:
                yield self._line(kind, recipe, within, (one, other), pairs)

    def _overlap(self, one: _Mask, other: _Mask) -> Overlap:
        check_same(self._packed[one], self._packed[other], (str(one.path), str(other.path)))
        return overlap(self._packed[one], self._packed[other])

    def _line(
        self, kind: str, recipe: str, within: str, names: tuple[str, str], pairs: Sequence[Overlap]
    ) -> dict[str, Any]:
        about = {"between": kind, **self._about, "recipe": recipe, "within": within}
        return {**about, "one": names[0], "other": names[1], **_means(pairs)}


def _means(pairs: Sequence[Overlap]) -> dict[str, float]:
    names = ("jaccard", "expected", "excess", "corrected")
    means = {name: sum(getattr(pair, name) for pair in pairs) / len(pairs) for name in names}
    return {"n": len(pairs), **means}


def _scoring_value(path: Path, name: str) -> tuple[str, str]:
    """Return the value `scoring.<name>` of a result's recipe, and the rest of what decides its masks, as a text."""
    plain = results.read_plain(path)
    values = json.loads(json.dumps(plain["recipe_values"]))
    scoring = values.get("scoring", {})
    value = str(scoring.pop(name, _OF_RECIPE[name]))
    return value, json.dumps([values, plain["hyperparameters"]], sort_keys=True)


def _grouped(masks: Iterable[_Mask], key: Any) -> Iterator[tuple[tuple[Any, ...], list[_Mask]]]:
    groups: dict[tuple[Any, ...], list[_Mask]] = {}
    for mask in masks:
        groups.setdefault(key(mask), []).append(mask)
    yield from groups.items()
