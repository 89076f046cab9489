"""NTK-SAP equals the authors' code when it is given the random numbers that their run drew."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import registry

from .test_golden import CASES, SPARSITIES, Case, flat, read, released_rule

NAMES = sorted(path.stem for path in CASES.glob("ntksap_*.npz"))


def replayed(case: Case, monkeypatch: pytest.MonkeyPatch) -> Pruner:
    """The task with the recorded weights, inputs and perturbations in the place of our own draws."""
    hyper = case.meta["hyper"]
    scorer = registry.get(
        "ntk-sap", {"rounds": hyper["iterations_T"], "repeats": hyper["R"], "epsilon": hyper["epsilon"]}
    )
    evaluations = sum(key.startswith("input") for key in case.arrays)
    weights = iter(range(evaluations))

    def initialise(model: nn.Module) -> None:
        number = next(weights)
        with torch.no_grad():
            for layer in case.layers:
                drawn = torch.from_numpy(case.arrays[f"draw{number}/{layer}.weight"])
                model.get_parameter(f"{layer}.weight").copy_(drawn)

    def numbers() -> Iterator[Tensor]:
        for number in range(evaluations):
            yield torch.from_numpy(case.arrays[f"input{number}"])
            yield from (torch.from_numpy(case.arrays[f"delta{number}/{layer}.weight"]) for layer in case.layers)

    stream = numbers()
    home = sys.modules[type(scorer).__module__]
    monkeypatch.setattr(home, "gaussian", lambda like, generator: next(stream).to(like))
    return Pruner(case.model, case.batches, scorer, name="ntk-sap", initialise=initialise)


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_the_release(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = read(name)
    ours, theirs = flat(replayed(case, monkeypatch).score(0.9)), case.reference("score64")
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-9


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("name", NAMES)
def test_masks_equal_the_release(name: str, sparsity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    case = read(name)
    masks = replayed(case, monkeypatch).masks(sparsity, released_rule("ntksap"))
    assert torch.equal(flat(masks), case.reference(f"mask64@{sparsity}"))
