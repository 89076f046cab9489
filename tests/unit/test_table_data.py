"""Tests of the data behind a report on difficult tables: names, dense references, failed runs, epochs, sparsities."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd
import pytest

from pai_bench.analysis.collect import Collection, collect
from pai_bench.analysis.statistics import summarise
from pai_bench.analysis.unify import operating_points
from pai_bench.errors import PaiBenchError

HEAD = "method,dataset,model,sparsity,seed,accuracy"


def read(folder: Path, lines: list[str], more: str = "", name: str = "lab.csv") -> Collection:
    """Collect a table with these lines; `more` has the names of further columns."""
    (folder / name).write_text("\n".join([HEAD + more, *lines]) + "\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return collect(folder / "none", [folder / name])


def points(collection: Collection, method: str | None = None) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(collection)
    return summary if method is None else summary[summary["method"] == method].reset_index(drop=True)


@pytest.mark.slow
def test_sparsities_that_differ_by_rounding_between_seeds_are_one_point(tmp_path: Path) -> None:
    lines = [f"snip,mnist,conv8,{0.95 + seed * 1e-7!r},{seed},0.{90 + seed}" for seed in range(3)]
    collection = read(tmp_path, lines)
    (point,) = points(collection).itertuples()
    assert (point.sparsity, point.n, point.seeds) == (0.95, 3, (0, 1, 2))
    assert (point.sparsity_low, point.sparsity_high) == pytest.approx((0.95, 0.9500002))
    assert any("one operating point" in remark for remark in collection.remarks)


def test_operating_points_end_at_one_per_cent_of_the_density() -> None:
    # Densities 0.1 and 0.0991 differ by 0.9 %, 0.1 and 0.099 by 1 %.
    assert operating_points(pd.Series([0.9, 0.9, 0.9009, 0.901])) == {0.9009: 0.9}
    assert operating_points(pd.Series([0.999, 0.9991])) == {}
    # A group does not grow through its members: 0.9016 is 1.6 % from the first.
    assert operating_points(pd.Series([0.9, 0.9008, 0.9016])) == {0.9008: 0.9}
    # The sparsity of the results folder counts, else the most frequent, else the shortest.
    assert operating_points(pd.Series([0.95001] * 5), {0.95}) == {0.95001: 0.95}
    assert operating_points(pd.Series([0.95, 0.95001, 0.95001])) == {0.95: 0.95001}
    assert operating_points(pd.Series([0.950001, 0.95, 0.949999])) == {0.950001: 0.95, 0.949999: 0.95}
    assert operating_points(pd.Series([0.0, 0.005])) == {}


@pytest.mark.slow
def test_two_runs_of_one_seed_are_two_operating_points(tmp_path: Path) -> None:
    lines = ["snip,mnist,conv8,0.95,0,0.9", "snip,mnist,conv8,0.9501,0,0.8", "erk,mnist,conv8,0.9501,0,0.7"]
    assert points(read(tmp_path, lines), "snip")["n"].tolist() == [1, 1]


@pytest.mark.slow
def test_names_are_stripped_and_found_whatever_their_case(tmp_path: Path) -> None:
    lines = ["ERK,MNIST,conv8,0.9,0,0.9", " erk ,mnist, conv8 ,0.9,1,0.8", "DENSE,mnist,conv8,0,0,0.95"]
    lines += ["Prospr:steps=1,mnist,conv8,0.9,0,0.9", "snipp,mnist,conv8,0.9,0,0.9", "Mine,mnist,conv8,0.9,0,0.9"]
    collection = read(tmp_path, lines)
    summary = points(collection)
    assert summary["method"].tolist() == ["dense", "Mine", "erk", "prospr:steps=1", "snipp"]
    assert points(collection, "erk")["n"].tolist() == [2] and set(summary["dataset"]) == {"mnist"}
    said = " ".join(collection.remarks)
    for words in ("'ERK' as 'erk'", "'DENSE' as 'dense'", "'MNIST' as 'mnist'", "'snipp' is not known: did you mean"):
        assert words in said
    assert "Mine" not in said


@pytest.mark.slow
def test_a_short_name_with_two_exchanged_letters_is_a_near_miss(tmp_path: Path) -> None:
    collection = read(
        tmp_path, ["snpi,mnist,conv8,0.9,0,0.9", "ekr,mnits,conv8,0.9,0,0.9", "soap,mnist,conv8,0.9,0,0.9"]
    )
    said = " ".join(collection.remarks)
    for wrong, right in (("snpi", "snip"), ("ekr", "erk"), ("mnits", "mnist")):
        assert f"{wrong!r} is not known: did you mean {right!r}?" in said
    assert "soap" not in said


@pytest.mark.slow
def test_a_failed_run_without_an_accuracy_counts_at_chance(tmp_path: Path) -> None:
    lines = ["snip,mnist,conv8,0.9,0,0.9,ok", "snip,mnist,conv8,0.9,1,,diverged", "snip,mnist,conv8,0.9,2,0.8,ok"]
    (point,) = points(read(tmp_path, lines, ",status")).itertuples()
    assert point.mean == pytest.approx((0.9 + 0.1 + 0.8) / 3)
    assert (point.n, point.diverged, point.low) == (3, 1, 0.1)
    assert pd.isna(point.std), "two populations have no common deviation"


@pytest.mark.slow
@pytest.mark.parametrize(("column", "value", "chance"), [("classes", "4", 0.25), ("chance", "0.2", 0.2)])
def test_a_table_may_state_the_chance_of_its_data_set(tmp_path: Path, column: str, value: str, chance: float) -> None:
    lines = [f"snip,faces,conv8,0.9,{seed},{acc},{status},{value}" for seed, acc, status in
             ((0, 0.9, "ok"), (1, "", "collapsed"), (2, 1.49 * chance, "ok"))]  # fmt: skip
    (point,) = points(read(tmp_path, lines, f",status,{column}")).itertuples()
    assert point.low == pytest.approx(chance) and (point.collapsed, point.at_chance) == (1, 1)


@pytest.mark.slow
def test_without_a_known_chance_a_failed_run_leaves_no_mean(tmp_path: Path) -> None:
    lines = ["snip,faces,conv8,0.9,0,0.9,ok", "snip,faces,conv8,0.9,1,,diverged"]
    (point,) = points(read(tmp_path, lines, ",status")).itertuples()
    assert (point.n, point.runs, point.diverged) == (0, 2, 1) and pd.isna(point.mean)


@pytest.mark.slow
def test_accuracy_at_chance_without_a_status_is_marked(tmp_path: Path) -> None:
    lines = [f"snip,CIFAR-100,conv8,0.9,{seed},{acc}" for seed, acc in ((0, 0.0149), (1, 0.0151))]
    (point,) = points(read(tmp_path, lines)).itertuples()
    assert (point.at_chance, point.chance) == (1, 0.01)


@pytest.mark.slow
def test_chance_and_classes_must_be_possible(tmp_path: Path) -> None:
    for column, value, words in (("chance", "1.5", "fraction between"), ("classes", "1", "whole number from 2")):
        with pytest.raises(PaiBenchError, match=words):
            read(tmp_path, [f"snip,faces,conv8,0.9,0,0.5,{value}"], f",{column}")
    with pytest.raises(PaiBenchError, match="contradict"):
        read(tmp_path, ["snip,faces,conv8,0.9,0,0.5,0.1,20"], ",chance,classes")


@pytest.mark.slow
def test_sparsity_zero_of_any_method_is_dense(tmp_path: Path) -> None:
    lines = [f"{method},mnist,conv8,0,{seed},{0.9 + seed / 100 + offset}" for seed in (0, 1)
             for method, offset in (("snip", 0.0), ("erk", 0.001), ("dense", 0.0))]  # fmt: skip
    collection = read(tmp_path, [*lines, "snip,mnist,conv8,0.9,0,0.8"])
    summary = points(collection)
    assert summary["method"].tolist() == ["dense", "snip"]
    # The rows of snip and dense are copies of the same runs, the rows of erk are not.
    assert summary["n"].tolist() == [4, 1]
    assert any("sparsity 0 counts as dense (erk, snip)" in remark for remark in collection.remarks)


@pytest.mark.slow
def test_dense_at_another_sparsity_is_not_the_reference(tmp_path: Path) -> None:
    collection = read(tmp_path, ["dense,mnist,conv8,0,0,0.9", "Dense,mnist,conv8,0.5,0,0.8"])
    assert set(points(collection)["method"]) == {"dense", "dense at sparsity 50 %"}
    assert any("not used as the dense reference" in remark for remark in collection.remarks)


@pytest.mark.slow
def test_epochs_are_never_averaged(tmp_path: Path) -> None:
    lines = ["snip,mnist,conv8,0.9,0,0.9,last", "snip,mnist,conv8,0.9,0,0.92,Best test", "snip,mnist,conv8,0.9,1,0.9,"]
    summary = points(read(tmp_path, lines, ",epoch"))
    assert dict(zip(summary["epoch"], summary["n"], strict=True)) == {"last": 1, "best-test": 1, "": 1}
    assert summary["source"].nunique() == 3
    with pytest.raises(PaiBenchError, match=r"epoch 'first' .row 2. is not known"):
        read(tmp_path, ["snip,mnist,conv8,0.9,0,0.9,first"], ",epoch")


@pytest.mark.slow
def test_points_have_the_notes_of_their_rows(tmp_path: Path) -> None:
    lines = ["snip,mnist,conv8,0.9,0,0.9,sign inverted,", "snip,mnist,conv8,0.9,1,0.9,sign inverted,odd"]
    (point,) = points(read(tmp_path, lines, ",note,suspect")).itertuples()
    assert (point.note, point.suspect) == ("sign inverted", "odd")


@pytest.mark.slow
def test_errors_on_columns_name_those_found_and_the_separator(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(HEAD.replace(",", ";") + "\nsnip;mnist;conv8;0.9;0;0.9\n")
    with pytest.raises(PaiBenchError) as error:
        collect(tmp_path, [tmp_path / "lab.csv"])
    assert "found: method;dataset;model;sparsity;seed;accuracy (separator: comma)" in error.value.cause
    assert "seems to be ';'" in error.value.remedy
    with pytest.raises(PaiBenchError, match="no column seed; found: method, dataset, model, sparsity, accuracy"):
        (tmp_path / "lab.csv").write_text("method,dataset,model,sparsity,accuracy\nsnip,mnist,conv8,0.9,0.9\n")
        collect(tmp_path, [tmp_path / "lab.csv"])
    with pytest.raises(PaiBenchError, match="more fields than its header"):
        read(tmp_path, ["snip,mnist,conv8,0.9,0,0.9,"])


@pytest.mark.slow
def test_seeds_may_be_text_and_rows_in_any_order(tmp_path: Path) -> None:
    frame = pd.DataFrame({"method": "snip", "dataset": "mnist", "model": "conv8", "sparsity": "0.9",
                          "seed": ["2", "0", "1"], "accuracy": [0.9, 0.8, 0.7]})  # fmt: skip
    frame.to_parquet(tmp_path / "lab.parquet")
    (point,) = points(collect(tmp_path, [tmp_path / "lab.parquet"])).itertuples()
    assert point.seeds == (0, 1, 2) and point.mean == pytest.approx(0.8)


@pytest.mark.slow
def test_invisible_characters_and_line_breaks_make_no_second_name(tmp_path: Path) -> None:
    lines = [
        "my method,mnist,conv8,0.9,0,0.9",
        '"my\nmethod",mnist,conv8,0.9,1,0.8',
        "my\u00a0method\u200b,mnist,conv8,0.9,2,0.7",
    ]
    (point,) = points(read(tmp_path, [*lines, "my\0 method,\ufeffmnist,conv8,0.9,3,0.6"])).itertuples()
    assert (point.method, point.dataset, point.n) == ("my method", "mnist", 4)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_table_in_another_encoding_is_refused_with_a_remedy(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "lab.csv").write_bytes(f"{HEAD}\nsnip,mnist,café,0.9,0,0.9\n".encode(encoding))
    with pytest.raises(PaiBenchError, match=r"lab\.csv is not in UTF-8") as error:
        collect(tmp_path, [tmp_path / "lab.csv"])
    assert error.value.remedy == "save the table in UTF-8"


def test_decimal_commas_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(HEAD.replace(",", ";") + "\nsnip;mnist;conv8;0,9;0;0,8\n")
    with pytest.raises(PaiBenchError) as error:
        collect(tmp_path, [tmp_path / "lab.csv"])
    assert "found: method;dataset;model;sparsity;seed;accuracy (separator: comma)" in error.value.cause
    assert "seems to be ';' (semicolon): separate columns by commas, and write decimals with a" in error.value.remedy


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ('"0,8"', "write decimals with a point, and no separator of thousands"),
        ('"1,000"', "write decimals with a point, and no separator of thousands"),
        ("80 %", "write fractions, not per cent"),
    ],
)
def test_the_remedy_for_a_value_names_its_notation(tmp_path: Path, value: str, remedy: str) -> None:
    with pytest.raises(PaiBenchError, match=r"column accuracy has a value that is not a number: .* \(row 2\)") as error:
        read(tmp_path, [f"snip,mnist,conv8,0.9,0,{value}"])
    assert error.value.remedy == remedy


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(PaiBenchError, match=r"lab\.csv"):
        collect(tmp_path, [tmp_path / "lab.csv"])


def test_a_negative_zero_is_zero(tmp_path: Path) -> None:
    (point,) = points(read(tmp_path, ["snip,mnist,conv8,-0.0,0,0.9"])).itertuples()
    assert str(point.sparsity) == "0.0"


def test_a_named_index_of_a_parquet_file_is_read(tmp_path: Path) -> None:
    row = {"method": "snip", "dataset": "mnist", "model": "conv8", "sparsity": 0.9, "seed": 0, "accuracy": 0.8}
    pd.DataFrame([row]).set_index(["method", "seed"]).to_parquet(tmp_path / "lab.parquet")
    (point,) = points(collect(tmp_path, [tmp_path / "lab.parquet"])).itertuples()
    assert (point.method, point.seeds) == ("snip", (0,))


@pytest.mark.parametrize(
    ("column", "value", "cause"),
    [
        ("seed", pd.Timestamp("2026-01-01"), "column seed has a value that is not a number: '2026-01-01' \\(row 2\\)"),
        ("method", {"name": "snip"}, "column method has values of several parts"),
        ("method", ["snip", "grasp"], "column method has values of several parts"),
    ],
)
def test_values_of_a_parquet_file_that_are_no_numbers_or_names_are_refused(
    tmp_path: Path, column: str, value: object, cause: str
) -> None:
    row = {"method": "snip", "dataset": "mnist", "model": "conv8", "sparsity": 0.9, "seed": 0, "accuracy": 0.8}
    pd.DataFrame([{**row, column: value}]).to_parquet(tmp_path / "lab.parquet")
    with pytest.raises(PaiBenchError, match=cause):
        collect(tmp_path, [tmp_path / "lab.parquet"])
