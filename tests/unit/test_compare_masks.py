"""Comparison of stored masks: `pai-bench compare-masks`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pai_bench import results
from pai_bench.analysis.collect import collect
from pai_bench.analysis.masks.command import run
from pai_bench.analysis.masks.overlap import RANDOM, Overlap, Packed, common_draws, overlap
from pai_bench.analysis.masks.pairs import COLUMNS, compare, compare_files
from pai_bench.analysis.selection import Selection
from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.pruner import Pruner
from pai_bench.results import mask_files
from pai_bench.scoring import registry

from .nets import batches, tiny
from .test_results import result

Masks = dict[str, np.ndarray]


def masks(*kept: int, size: int = 8) -> Masks:
    """One layer of `size` weights, of which these are kept, and one of two weights, of which the first is kept."""
    return {"a.weight": np.isin(np.arange(size), kept), "b.weight": np.array([True, False])}


def put(root: Path, found: Masks, **changes: object) -> None:
    results.write(root, result(**changes), found)


def compared(root: Path, kinds: Iterable[str]) -> pd.DataFrame:
    return compare(collect(root).rows, tuple(kinds))


def test_the_overlap_and_its_expectation_by_hand() -> None:
    one, other = masks(0, 1, 2, 3), masks(2, 3, 4, 5)
    found = overlap(one, other)
    # 2 + 1 weights in common, 7 kept by one of them; expected in common: 4 * 4 / 8 + 1 * 1 / 2 = 2.5
    assert found == Overlap(3 / 7, 2.5 / (10 - 2.5))
    assert found.excess == pytest.approx(3 / 7 - 1 / 3)
    assert found.corrected == pytest.approx((3 / 7 - 1 / 3) / (2 / 3))
    assert overlap(one, one).corrected == 1
    full = {"a.weight": np.ones(3, bool)}
    assert overlap(full, full).jaccard == 1 and math.isnan(overlap(full, full).corrected)


def test_the_expectation_is_the_mean_over_all_masks_with_these_counts() -> None:
    n, k, m = 6, 3, 2
    one = Packed.of({"w": np.arange(n) < k})
    common = [len({*chosen} & {*range(k)}) for chosen in itertools.combinations(range(n), m)]
    mean = sum(common) / len(common)
    assert overlap(one, Packed.of({"w": np.arange(n) < m})).expected == pytest.approx(mean / (k + m - mean))


@pytest.mark.slow
def test_methods_are_compared_at_equal_seed_and_averaged(tmp_path: Path) -> None:
    for seed, other in ((0, masks(0, 1, 2, 3)), (1, masks(4, 5, 6, 7))):
        put(tmp_path, masks(0, 1, 2, 3), method="snip", seed=seed, init_hash=str(seed))
        put(tmp_path, other, method="erk", seed=seed, init_hash=str(seed))
    put(tmp_path, masks(0), method="erk", seed=2)
    put(tmp_path, masks(*range(8)), method="dense", seed=0, sparsity=0.0)
    (line,) = compared(tmp_path, ["methods"]).to_dict("records")
    assert list(line) == COLUMNS
    assert {line["one"], line["other"]} == {"snip", "erk"} and line["n"] == 2
    assert line["jaccard"] == pytest.approx((5 / 5 + 1 / 9) / 2)
    assert line["expected"] == pytest.approx(2.5 / 7.5)
    assert line["excess"] == pytest.approx(line["jaccard"] - line["expected"])


@pytest.mark.slow
def test_seeds_of_a_method_are_compared_in_all_pairs(tmp_path: Path) -> None:
    for seed, kept in enumerate(((0, 1), (0, 2), (0, 1))):
        put(tmp_path, masks(*kept), method="snip", seed=seed, init_hash=str(seed))
    (line,) = compared(tmp_path, ["seeds"]).to_dict("records")
    assert (line["between"], line["within"], line["n"]) == ("seeds", "snip", 3)
    assert line["jaccard"] == pytest.approx((2 / 4 + 3 / 3 + 2 / 4) / 3)


@pytest.mark.slow
def test_kinds_of_scoring_data_are_compared_at_equal_weights(tmp_path: Path) -> None:
    for data, kept in (("train", (0, 1)), ("noise", (0, 1)), ("random-labels", (2, 3))):
        recipe = "quick" if data == "train" else f"quick+scoring.data={data}"
        values = {"train": {"lr": 0.1}, "scoring": {"batches": 1, "data": data}}
        put(tmp_path, masks(*kept), method="snip", recipe=recipe, recipe_values=values, fingerprint=f"{data:a<16}")
    other = {"train": {"lr": 0.2}, "scoring": {"batches": 1, "data": "noise"}}
    put(tmp_path, masks(0), method="snip", recipe="other", recipe_values=other, fingerprint="b" * 16)
    lines = compared(tmp_path, ["data"])
    found = {frozenset((line.one, line.other)): line.jaccard for line in lines.itertuples()}
    assert found == {
        frozenset(("train", "noise")): 1,  # masks that do not depend on the data
        frozenset(("train", "random-labels")): pytest.approx(1 / 5),
        frozenset(("noise", "random-labels")): pytest.approx(1 / 5),
    }
    assert set(lines["within"]) == {"snip"} and set(lines["recipe"]) == {"quick"}


@pytest.mark.slow
def test_mask_files_are_compared_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{name}.npz" for name in "abc"]
    for path, kept in zip(paths, ((0, 1), (0, 1), (2,)), strict=True):
        mask_files.save(path, masks(*kept))
    table = compare_files(paths)
    assert table["jaccard"].tolist() == pytest.approx([1, 1 / 4, 1 / 4])
    run(None, paths, Selection(), (), None, as_json=True)
    lines = json.loads(capsys.readouterr().out)
    assert [line["other"] for line in lines] == [str(paths[1]), str(paths[2]), str(paths[2])]
    assert lines[0]["dataset"] is None and lines[0]["jaccard"] == 1
    run(None, paths, Selection(), (), None, as_json=False)
    assert f"{paths[0]} / {paths[2]}" in capsys.readouterr().out


@pytest.mark.slow
def test_tables_and_the_figure_are_written_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, kept in (("snip", (0, 1)), ("erk", (1, 2))):
        put(tmp_path / "results", masks(*kept), method=method)
    run(tmp_path / "results", [], Selection(), (), tmp_path / "out", as_json=False)
    written = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert {"masks.csv", "masks.md", "masks.tex", "mask-overlap.pdf", "captions.md"} <= {*written}
    table = pd.read_csv(tmp_path / "out" / "masks.csv")
    assert list(table) == COLUMNS and table["jaccard"].tolist() == pytest.approx([2 / 4])
    text = (tmp_path / "out" / "masks.md").read_text()
    assert "snip / erk" in text.lower() or "erk / snip" in text.lower()
    assert "50.0" in text and "digits · conv8 · quick, 90 % sparsity" in text


@pytest.mark.slow
def test_masks_that_cannot_be_compared_are_refused_with_a_remedy(tmp_path: Path) -> None:
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    mask_files.save(one, masks(0))
    mask_files.save(other, masks(0, size=9))
    with pytest.raises(
        PaiBenchError, match=r"different networks: .*a.npz has a.weight \[8\], .*b.npz has a.weight \[9\]"
    ):
        compare_files([one, other])
    with pytest.raises(PaiBenchError, match="nothing to be compared with"):
        compare_files([one])
    with pytest.raises(PaiBenchError, match="select results, but mask files are given"):
        run(None, [one, one], Selection(methods=("snip",)), (), None, as_json=False)
    put(tmp_path / "results", masks(0))
    with pytest.raises(PaiBenchError, match=r"no two results can be compared \(with masks: 1\)"):
        compared(tmp_path / "results", ["methods", "seeds", "data"])
    with pytest.raises(PaiBenchError, match="unknown comparison"):
        run(tmp_path / "results", [], Selection(), ("layers",), None, as_json=False)
    for path in (tmp_path / "results").rglob("*.npz"):
        path.unlink()
    with pytest.raises(PaiBenchError, match=r"no result has masks beside it \(results: 1\)") as error:
        compared(tmp_path / "results", ["methods"])
    assert "--redo" in error.value.remedy


def drawn(method: str, seed: int, sparsity: float = 0.8) -> Packed:
    """The mask of a method with the seed that a cell gives it."""
    pruner = Pruner(tiny(), batches(1), registry.get(method, {}), name=method, seed=derive_seed(seed, "method"))
    return Packed.of({name: mask.numpy() for name, mask in pruner.masks(sparsity).items()})


@pytest.mark.slow
def test_random_methods_share_their_random_numbers_at_one_seed_and_are_independent_at_different_seeds() -> None:
    same = overlap(drawn("random", 0), drawn("uniform", 0))
    assert same.corrected > 0.8
    assert all(overlap(drawn(name, 0), drawn("uniform", 0)).corrected > 0.1 for name in RANDOM)
    assert all(overlap(drawn(name, 0), drawn("uniform", 0)).corrected < 0.06 for name in ("phew", "npb", "magnitude"))
    others = [overlap(drawn("random", seed), drawn("uniform", seed + 10)).excess for seed in range(5)]
    assert abs(float(np.mean(others))) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("erk", "random", True),
        ("smart-ratio", "igq", True),
        ("erk", "snip", False),
        ("erk", "erk:control=shuffle", False),
        ("snip:control=shuffle", "grasp:control=shuffle", True),
        ("snip:control=quota-of", "snip:control=shuffle", False),
        ("snip:control=reinit", "grasp:control=reinit", False),
        ("random", "not a method!", False),
    ],
)
def test_the_caption_names_common_random_numbers(one: str, other: str, shared: bool) -> None:
    assert ("share random numbers" in common_draws([("snip", "grasp"), (one, other)])) is shared


def test_granularities_are_compared_at_equal_weights(tmp_path: Path) -> None:
    for granularity, kept in (("weight", (0, 1)), ("channel", (0, 3))):
        plain = granularity == "weight"
        recipe = "quick" if plain else f"quick+scoring.granularity={granularity}"
        values = {"scoring": {"batches": 1, **({} if plain else {"granularity": granularity})}}
        put(
            tmp_path,
            masks(*kept),
            method="snip",
            recipe=recipe,
            recipe_values=values,
            fingerprint=f"{granularity:a<16}",
        )
    (line,) = compared(tmp_path, ["granularity"]).to_dict("records")
    assert {line["one"], line["other"]} == {"weight", "channel"} and line["within"] == "snip"
    assert line["jaccard"] == pytest.approx(2 / 4)
