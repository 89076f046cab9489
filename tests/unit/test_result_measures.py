"""Measures in results, in the table of runs, and in earlier results, which have none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pai_bench import load_results, models, results
from pai_bench.cells import Cell
from pai_bench.datasets import loading
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.models import registry as building
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.pruning.measures import CHANNELS, GRAPH
from pai_bench.results.measures import MEASURES, SCORING, SHARE_OF
from pai_bench.training.evaluation import evaluate

from .test_experiment import recipe
from .test_results import result


@pytest.fixture(scope="module")
def cell() -> Run:
    return Run(Cell("snip", "digits", "conv8", 0.9, 0), recipe())


@pytest.fixture(scope="module")
def outcome(cell: Run) -> Outcome:
    return CellRunner(device="cpu").run(cell)


@pytest.mark.slow
def test_a_result_has_all_measures(outcome: Outcome) -> None:
    measures = outcome.result.measures
    assert set(measures) == set(MEASURES) == {"untrained_accuracy", *GRAPH, *CHANNELS} and not outcome.result.unmeasured
    assert all(0 <= measures[part] <= measures[total] for part, total in SHARE_OF.items())  # type: ignore[operator]
    assert measures["units"] == measures["channels"] == 16 + 32 + 32
    costs = [outcome.result.costs[name] for name in SCORING]
    assert costs[:2] == [1, 1] and costs[2] == costs[3] == recipe().scoring.batch_size


@pytest.mark.slow
def test_accuracies_before_training_and_by_class_are_those_of_the_network(cell: Run, outcome: Outcome) -> None:
    runner, data = CellRunner(device="cpu"), loading.load("digits")
    network = runner.model(cell)
    MaskedGradients(network, {name: torch.from_numpy(mask) for name, mask in outcome.masks.items()})
    assert outcome.result.measures["untrained_accuracy"] == evaluate(network, data, cell.recipe).accuracy
    counts = np.bincount(data.test_y.numpy(), minlength=10)
    by_class = np.array(outcome.result.class_accuracy, dtype=float)
    assert (by_class * counts).sum() / counts.sum() == pytest.approx(outcome.result.accuracy)


class Gated(nn.Module):
    """A network that neither the graph nor torch.fx can describe."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        x = x @ (x.transpose(0, 1) @ x) if x.sum() != 0 else x
        return self.last(x)


@pytest.mark.slow
def test_a_network_whose_graph_cannot_be_measured_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(building._builders._things, "gated", lambda *_: Gated())
    assert isinstance(models.build("gated", 1, 8, 10), Gated)
    found = CellRunner(device="cpu").run(Run(Cell("magnitude", "digits", "gated", 0.5, 0), recipe())).result
    assert found.accuracy is not None
    assert set(found.measures) == {"untrained_accuracy"}
    assert found.unmeasured["cut_edges"] == "no rule for a product of two signals in the model"
    assert found.unmeasured["channels"].startswith("Gated cannot be traced by torch.fx")


@pytest.mark.slow
def test_the_table_of_runs_has_the_measures_and_earlier_results_none(tmp_path: Path) -> None:
    counts: dict[str, float | None] = dict.fromkeys(MEASURES, 3) | {"untrained_accuracy": 0.25}
    costs: dict[str, float | None] = dict.fromkeys(SCORING, 7)
    results.write(tmp_path, result(seed=0, measures=counts, costs=costs, class_accuracy=(0.5, None, 1 / 3)), {})
    place = results.write(tmp_path, result(seed=1), {})
    plain = json.loads(place.read_text())
    for name in ("measures", "unmeasured", "class_accuracy"):
        del plain[name]
    place.write_text(json.dumps(plain))
    earlier = results.read(place)
    assert (earlier.measures, earlier.unmeasured, earlier.class_accuracy) == ({}, {}, ())
    table = load_results(tmp_path).sort_values("seed")
    now, before = table.to_dict("records")
    assert [now[name] for name in (*MEASURES, *SCORING)] == [*counts.values(), *costs.values()]
    assert [float(text) for text in now["class_accuracy"].split()] == pytest.approx([0.5, np.nan, 1 / 3], nan_ok=True)
    assert table.iloc[1][[*MEASURES, *SCORING, "class_accuracy"]].isna().all() and before["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("name", "value"), [("measures", {"units": "many"}), ("class_accuracy", [1.5]), ("class_accuracy", ["a"])]
)
def test_damaged_measures_are_found(tmp_path: Path, name: str, value: object) -> None:
    place = results.write(tmp_path, result(), {})
    place.write_text(json.dumps({**json.loads(place.read_text()), name: value}))
    with pytest.raises(results.DamagedResult):
        results.read(place)


@pytest.mark.slow
def test_every_column_of_the_table_is_described(tmp_path: Path) -> None:
    results.write(tmp_path, result(), {})
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text(encoding="utf-8")
    assert [column for column in load_results(tmp_path) if f"`{column}`" not in page] == []
