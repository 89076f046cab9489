"""Errors of torch while a user's model is scored become one line with the cause and one with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench.cells import exact_sparsity
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import diagnosis
from pai_bench.scoring.problem import Problem

METHODS = ["snip", "grasp", "prospr"]


def network(last: Callable[[], nn.Module] = nn.Identity) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), last())


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))


class Answers(nn.Module):
    """Returns what `answer` makes of the logits."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.answer = network(), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.inner(x))


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(4)

# (model, one batch, words of the cause, words of the remedy)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, Any], str, str]] = {
    "other channels": (network, (X[:, :1], Y), "inputs [4, 1, 6, 6] of float64: RuntimeError", "[B, channels, height"),
    "no batch dimension": (network, (X[0], Y[:3]), "inputs [3, 6, 6] of float64", "[B, channels, height"),
    "one-hot": (network, (X, torch.eye(5).long()[:4]), "targets [4, 5] of int64", "y.argmax(1)"),
    "floats for indices": (network, (X, Y.float()), "numbers of type float32, not class indices", "y.long()"),
    "labels from 1": (network, (X, Y + 2), "run from 2 to 5 for 5 logits", "0 to 4: subtract 1"),
    "labels of -1": (network, (X, Y - 1), "run from -1 to 2 for 5 logits", "-100 marks"),
    "bool images": (network, (X > 0, Y), "of bool: RuntimeError", "x.float()"),
    "int images": (network, (X.long(), Y), "of int64: RuntimeError", "x.float()"),
    "complex images": (network, (X.to(torch.complex64), Y), "complex inputs", "x.real"),
    "spatial logits": (lambda: Answers(lambda z: z[:, :, None, None]), (X, Y), "logits [4, 5, 1, 1]", "Flatten()"),
    "one image": (normed, (torch.randn(1, 3, 4, 4), Y[:1]), "batch 1 has 1 image", "drop_last=True"),
    "no output": (lambda: Answers(lambda z: None), (X, Y), "returns None instead of logits", "wrap it"),
    "other key": (lambda: Answers(lambda z: {"out": z}), (X, Y), "a dict with the keys 'out'", "wrap it"),
    "features": (lambda: Answers(lambda z: (z.sum(), z.sum())), (X, Y), "a tuple of [], []", "wrap it"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_errors_of_torch_become_two_lines(method: str, case: str) -> None:
    build, batch, cause, remedy = CASES[case]
    with pytest.raises(PaiBenchError) as caught:
        pai_bench.prune(build(), [batch] * 4, method, sparsity=0.5)
    assert cause in caught.value.cause and remedy in caught.value.remedy, caught.value
    assert "\n" not in caught.value.cause


def test_the_faulty_batch_is_named() -> None:
    good = torch.randn(4, 3, 4, 4), Y
    with pytest.raises(PaiBenchError, match="scoring batch 3 has 1 image"):
        pai_bench.prune(normed(), [good, good, (torch.randn(1, 3, 4, 4), Y[:1])], "snip", sparsity=0.5)
    with pytest.raises(PaiBenchError, match="run from 2 to 5"):
        pai_bench.prune(network(), [(X, Y), (X, Y + 2), (X, Y + 1)], "snip", sparsity=0.5)


ARGUMENTS: list[tuple[dict[str, Any], str, str]] = [
    ({"seed": None}, "seed None is not a whole number", "seed=0"),
    ({"seed": 1.5}, "seed 1.5", "seed=0"),
    ({"seed": "1"}, "seed '1'", "seed=0"),
    ({"sparsity": None}, "sparsity None is of type NoneType", "0.9"),
    ({"sparsity": "0.9"}, "sparsity '0.9' is of type str", "0.9"),
    ({"sparsity": [0.9]}, "sparsity [0.9] is of type list", "0.9"),
    ({"sparsity": True}, "sparsity True is of type bool", "0.9"),
    ({"sparsity": torch.tensor(0.9)}, "is of type Tensor", "0.9"),
    ({"dtype": "float16"}, "dtype 'float16' is not supported", "float64, float32"),
    ({"dtype": torch.bfloat16}, "dtype 'bfloat16' is not supported", "float64, float32"),
    ({"dtype": None}, "dtype 'None' is not supported", "float64, float32"),
    ({"method": nn.Linear}, "the method is an object of type type", "method='snip'"),
]


@pytest.mark.parametrize(("options", "cause", "remedy"), ARGUMENTS, ids=[str(case[0]) for case in ARGUMENTS])
def test_arguments_of_other_types_are_refused(options: dict[str, Any], cause: str, remedy: str) -> None:
    for function in (pai_bench.prune, pai_bench.score):
        with pytest.raises(PaiBenchError) as caught:
            function(network(), [(X, Y)], **{"method": "snip", **options})
        assert cause in caught.value.cause and remedy in caught.value.remedy


def test_swapped_arguments_and_other_objects_are_refused() -> None:
    data: Any = [(X, Y)]
    with pytest.raises(PaiBenchError, match="wrong way round"):
        pai_bench.prune(data, network(), "snip")  # type: ignore[arg-type]
    with pytest.raises(PaiBenchError, match=r"object of type OrderedDict\npass a torch.nn.Module"):
        pai_bench.prune(network().state_dict(), data, "snip")  # type: ignore[arg-type]
    with pytest.raises(PaiBenchError, match="the batches are one Tensor"):
        pai_bench.prune(network(), X, "snip")  # type: ignore[arg-type]
    with pytest.raises(PaiBenchError, match="cannot be iterated over"):
        pai_bench.prune(network(), None, "snip")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["random", "snip"])
def test_a_model_without_values_is_refused(method: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    with pytest.raises(PaiBenchError, match="is on the meta device"):
        pai_bench.prune(model, [(X, Y)], method)


def test_torch_dtypes_and_numpy_sparsities_are_accepted() -> None:
    wanted = pai_bench.prune(network(), [(X, Y)], "snip", sparsity=0.9, dtype="float32")
    found = pai_bench.prune(network(), [(X, Y)], "snip", sparsity=np.float32(0.9), dtype=torch.float32)  # type: ignore[arg-type]
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert exact_sparsity(np.float32(0.9)) == exact_sparsity(0.9)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [lambda z: (z, -z), lambda z: {"loss": z.sum(), "logits": z}, lambda z: [z]])
@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "ntk-sap"])
def test_logits_in_containers_give_the_same_scores(method: str, answer: Callable[[Tensor], Any]) -> None:
    quick = {"synflow": {"rounds": 2}, "ntk-sap": {"rounds": 1, "repeats": 1}}.get(method, {})
    plain = pai_bench.score(Answers(lambda z: z), [(X, Y)], method, **quick)
    found = pai_bench.score(Answers(answer), [(X, Y)], method, **quick)
    assert all(torch.equal(plain[name], found[name]) for name in plain)


@dataclass(frozen=True)
class Raises:
    error: Any = None

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        next(problem.batches())
        raise self.error


@pytest.mark.parametrize("error", [ValueError("mine"), torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_errors_of_plug_ins_and_out_of_memory_are_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Pruner(network(), [(X, Y)], Raises(error), name="raises").score(0.5)
    assert caught.value is error and not isinstance(error, PaiBenchError)
    assert diagnosis.is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried"))
