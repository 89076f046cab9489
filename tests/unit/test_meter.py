"""Cost of scoring in passes, images and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pai_bench.experiment.cost import Passes
from pai_bench.experiment.passes import passes, scoring_counts
from pai_bench.pruning.fixed_masks import register_masks
from pai_bench.pruning.pruner import Pruner
from pai_bench.results.mask_files import MaskFile
from pai_bench.scoring import registry
from pai_bench.scoring.problem import Problem

from .nets import batches, tiny


def cost(name: str, sparsity: float = 0.8, warmup: int = 0, **fields: object) -> Passes | None:
    scorer = registry.get(name, fields)
    pruner = Pruner(tiny(), batches(3, 8), scorer, name=name, warmup=warmup)
    pruner.masks(sparsity)
    return passes(pruner.meter, name, warmup, 24)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("random", {}, Passes(0, 0, 0, 0)),
        ("magnitude", {}, Passes(0, 0, 0, 0)),
        ("snip", {}, Passes(3, 3, 24, 24)),
        ("grasp", {}, Passes(6, 9, 24, 24)),  # two passes per batch; the second one is differentiated twice
        ("prospr", {"steps": 2, "variant": "first_order"}, Passes(3, 3, 24, 24)),
        ("iterative-snip", {"rounds": 4}, Passes(4, 4, 24, 24)),  # a new batch in each round, as far as there are any
        ("dense", {}, Passes(0, 0, 0, 0)),
        ("npb", {}, Passes(1, 0, 0, 0)),  # one evaluation of the path network
    ],
)
def test_the_passes_of_a_method_are_those_of_its_definition(
    name: str, fields: dict[str, object], expected: Passes
) -> None:
    assert cost(name, **fields) == expected


def test_an_evaluation_of_the_path_network_is_a_pass() -> None:
    found = cost("synflow", rounds=5)
    assert found is not None
    assert found.forward == 5
    assert found.backward == 5 + 1  # the conservation law is checked in the first round


@dataclass(frozen=True)
class Shapes:
    """A method that draws a batch for its shape."""

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        x, _ = next(problem.batches())
        problem.forward(torch.ones_like(x))
        return dict(problem.weights)


@pytest.mark.slow
def test_images_and_labels_count_where_they_decide_the_masks() -> None:
    found = {}
    file = MaskFile(Path("masks.npz"), {"w": np.ones(1, bool)})
    register_masks(file)
    methods = {"shape": "synflow", "inputs": "multiflow", "labels": "snip", "unknown": file.method}
    for sees, method in methods.items():
        for warmup in (0, 2):
            pruner = Pruner(tiny(), batches(3, 8), Shapes(), name="own", warmup=warmup)
            pruner.masks(0.5)
            found[sees, warmup] = passes(pruner.meter, method, warmup, 17)
    assert found == {
        ("shape", 0): Passes(1, 0, 0, 0),
        ("shape", 2): Passes(3, 0, 16, 0),
        ("inputs", 0): Passes(1, 0, 8, 0),
        ("inputs", 2): Passes(3, 0, 16, 0),
        ("labels", 0): Passes(1, 0, 8, 8),
        ("labels", 2): Passes(3, 0, 16, 16),
        ("unknown", 0): None,
        ("unknown", 2): None,
    }
    assert passes(pruner.meter, "snip", 2, 10) == Passes(3, 0, 10, 10)  # the batches repeat ten images
    assert scoring_counts(None) == dict.fromkeys(scoring_counts(Passes(1, 0, 0, 0)))


def test_counting_changes_no_score() -> None:
    scorer = registry.get("grasp", {})
    pruner = Pruner(tiny(), batches(1), scorer, name="grasp")
    counted = pruner.score(0.5)
    pruner._model._forward_hooks.clear()
    assert all(torch.equal(score, counted[name]) for name, score in pruner.score(0.5).items())
