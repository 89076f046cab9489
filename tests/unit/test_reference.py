"""Released results: the files, their export, and the report that shows them beside a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pai_bench import results
from pai_bench.analysis import reference
from pai_bench.analysis.collect import Collection, collect, read_table
from pai_bench.analysis.columns import RELEASED
from pai_bench.errors import PaiBenchError
from pai_bench.reproductions.export import COLUMNS, export
from tests.unit.test_results import result


@pytest.mark.slow
def test_every_released_table_can_be_read_and_states_its_provenance() -> None:
    tables = reference.tables()
    assert "fashion-mnist-quick" in [table.stem for table in tables]
    assert "prospr-study" not in [table.stem for table in tables]  # it has no cells
    for table in tables:
        rows = read_table(table)
        assert rows["accuracy"].between(0, 1).all()
        assert set(rows["epoch"]) == {"last"}
        if table.with_suffix(".json").exists():
            facts = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
            assert facts["cells"] == len(rows) and set(rows["recipe"]) == set(facts["recipes"])
            assert set(rows["method"]) == set(facts["methods"]) and facts["commands"] and facts["hours"] > 0
            assert all(one["source_hash"] and one["dirty_diff_hash"] is None for one in facts["code"])


@pytest.mark.slow
def test_an_export_has_the_cells_and_their_provenance(tmp_path: Path) -> None:
    results.write(tmp_path, result(), {})
    table, facts = export(tmp_path, tmp_path / "out" / "mine", ["pai-bench sweep"])
    rows = pd.read_csv(table)
    assert list(rows.columns) == COLUMNS and len(rows) == 1
    (row,) = collect(tmp_path).rows.to_dict("records")
    assert rows["accuracy"][0] == row["accuracy"] and rows["mask_hash"][0] == row["mask_hash"][:16]
    content = json.loads(facts.read_text(encoding="utf-8"))
    assert content["commands"] == ["pai-bench sweep"] and content["cells"] == 1
    assert content["recipes"] == {row["recipe"]: json.loads(json.dumps(result().recipe_values))}
    assert [code["cells"] for code in content["code"]] == [1]


@pytest.mark.slow
def test_an_export_extends_an_existing_table_and_keeps_its_rows(tmp_path: Path) -> None:
    first, second, stem = tmp_path / "first", tmp_path / "second", tmp_path / "out" / "mine"
    results.write(first, result(seed=0, accuracy=0.5), {})
    results.write(second, result(seed=0, accuracy=0.75), {})  # the same cell, computed on another machine
    results.write(second, result(seed=1, accuracy=0.25), {})
    export(first, stem, ["pai-bench sweep"])
    table, facts = export(second, stem, ["pai-bench sweep", "pai-bench sweep --seeds 1"])
    rows = pd.read_csv(table)
    assert rows[["seed", "accuracy"]].to_dict("list") == {"seed": [0, 1], "accuracy": [0.5, 0.25]}
    content = json.loads(facts.read_text(encoding="utf-8"))
    assert content["cells"] == 2 and content["commands"] == ["pai-bench sweep", "pai-bench sweep --seeds 1"]
    for part in ("code", "environment", "data"):
        assert sum(one["cells"] for one in content[part]) == 2
    before = table.read_bytes(), facts.read_bytes()
    export(second, stem, [])
    assert (table.read_bytes(), facts.read_bytes()) == before


@pytest.mark.slow
def test_an_export_does_not_mix_fingerprints(tmp_path: Path) -> None:
    stem = tmp_path / "out" / "mine"
    results.write(tmp_path / "first", result(), {})
    table, _ = export(tmp_path / "first", stem, ["pai-bench sweep"])
    rows = pd.read_csv(table)
    rows.assign(fingerprint="1234567890123456").to_csv(table, index=False)
    with pytest.raises(PaiBenchError, match="1 of these cells with another fingerprint, for instance digits"):
        export(tmp_path / "first", stem, ["pai-bench sweep"])


def rows(source: str, dataset: str, method: str = "snip") -> pd.DataFrame:
    panel = {"dataset": dataset, "model": "conv28", "recipe": "quick"}
    return pd.DataFrame([{"source": source, "method": method, **panel, "accuracy": 0.5}])


@pytest.mark.slow
def test_released_rows_are_shown_where_the_user_has_results_of_the_same_settings() -> None:
    released = [rows(RELEASED, name) for name in ("fashionmnist", "mnist")]

    def shown(*frames: pd.DataFrame) -> list[tuple[str, str]]:
        found = reference.beside(Collection(pd.concat(frames, ignore_index=True), pd.DataFrame(), (), ())).rows
        return list(zip(found["source"], found["dataset"], strict=True))

    own = rows("", "fashionmnist")
    assert shown(own, *released) == [("", "fashionmnist"), (RELEASED, "fashionmnist")]
    assert shown(rows("", "digits"), *released) == [("", "digits")]
    assert len(shown(*released)) == 2


@pytest.mark.slow
def test_released_controls_are_shown_beside_own_ones_of_their_kind() -> None:
    released = [rows(RELEASED, "digits", f"grasp:control={kind}") for kind in ("shuffle", "reinit")]

    def shown(*frames: pd.DataFrame) -> list[str]:
        collection = Collection(pd.concat([*frames, *released]), pd.DataFrame(), (), ())
        found = reference.beside(collection).rows
        return [*found.loc[found["source"] == RELEASED, "method"]]

    assert shown(rows("", "digits")) == []
    assert shown(rows("", "digits", "snip:control=shuffle")) == ["grasp:control=shuffle"]
    assert shown(rows("", "digits", "my method")) == []


@pytest.mark.slow
def test_a_table_with_the_name_of_a_released_one_is_the_users(tmp_path: Path) -> None:
    own = pd.read_csv(reference.tables()[0]).head(1)
    for name in ("digits", RELEASED):
        own.to_csv(tmp_path / f"{name}.csv", index=False)
    found = collect(tmp_path / "none", [tmp_path / "digits.csv", tmp_path / f"{RELEASED}.csv"], reference.tables())
    counts = found.rows["source"].value_counts()
    assert counts["digits"] == counts[f"{tmp_path.name}/{RELEASED}"] == 1
    assert counts[RELEASED] == sum(len(read_table(table)) for table in reference.tables())
