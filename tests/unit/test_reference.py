"""Released results: the files, their export, and the report that shows them beside a user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pai_bench import results
from pai_bench.analysis import reference
from pai_bench.analysis.collect import Collection, collect, read_table
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


def rows(source: str, dataset: str) -> pd.DataFrame:
    return pd.DataFrame([{"source": source, "dataset": dataset, "model": "conv28", "recipe": "quick", "accuracy": 0.5}])


@pytest.mark.slow
def test_released_rows_are_shown_where_the_user_has_results_of_the_same_settings() -> None:
    released = [rows("fashion-mnist-quick", name) for name in ("fashionmnist", "mnist")]

    def shown(*frames: pd.DataFrame) -> list[tuple[str, str]]:
        found = reference.beside(Collection(pd.concat(frames, ignore_index=True), pd.DataFrame(), (), ())).rows
        return list(zip(found["source"], found["dataset"], strict=True))

    own = rows("", "fashionmnist")
    assert shown(own, *released) == [("", "fashionmnist"), ("fashion-mnist-quick", "fashionmnist")]
    assert shown(rows("", "digits"), *released) == [("", "digits")]
    assert len(shown(*released)) == 2
