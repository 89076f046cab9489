"""Scores that are not finite are refused with the cause: values, data, a layer, a derivative, or an overflow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench import PaiBenchError


class Function(nn.Module):
    """A layer that computes a function without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), *middle, nn.Flatten(), nn.Linear(32, 3))


def data(**changes: float) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    if "value" in changes:
        x[1, 0, 2, 2] = changes["value"]
    return [(x * changes.get("scale", 1), torch.arange(4) % 3)] * 2


def refusal(model: nn.Module, method: str, batches: list[tuple[Tensor, Tensor]], dtype: str = "float64") -> str:
    options = {"steps": 1} if method in ("prospr", "dpai") else {}
    with pytest.raises(PaiBenchError, match=f"method {method} returned .* that are not finite: ") as caught:
        pai_bench.score(model, batches, method, dtype=dtype, **options)
    return f"{caught.value.cause.partition('not finite: ')[2]}; {caught.value.remedy}"


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_of_the_model_and_of_the_data_are_named(value: float) -> None:
    for name in ("0.bias", "2.running_mean"):
        model = network(nn.BatchNorm2d(2))
        model.state_dict()[name][1] = value
        assert refusal(model, "fisher", data()).startswith(f"{name} has a value that is NaN or infinite; draw or load")
    assert refusal(network(), "snip", data(value=value)).startswith(
        "scoring batch 1 has a value that is NaN or infinite"
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["multiflow", "prospr"])
def test_a_layer_that_returns_nan_is_named(method: str) -> None:
    found = refusal(network(nn.Identity(), Function(torch.log)), method, data())
    assert found.startswith("layer 3 (Function) returns NaN or infinity in the forward pass; ")
    assert ("lower lr" in found) == (method == "prospr") and "float64" not in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "operation", "method"),
    [
        (Function(torch.sqrt), "sqrt in layer 2 (Function)", "hutchinson"),
        (Function(lambda x: x**0.5), "pow in layer 2 (Function)", "prospr"),
    ],
)
def test_an_operation_without_a_derivative_is_named_and_the_remedy_works(
    layer: nn.Module, operation: str, method: str
) -> None:
    model = network(layer)
    found = refusal(model, method, data())
    assert found.startswith(f"{operation} has a derivative that is not finite") and "(snip, force)" in found
    for other in ("snip", "force"):
        assert pai_bench.prune(model, data(), other, sparsity=0.5)


def test_an_overflow_is_named_with_the_type() -> None:
    found = refusal(network(), "multiflow", data(scale=1e30), "float32")
    assert found == "numbers exceed the range of float32; score in float64 or scale the inputs down"
    assert pai_bench.score(network(), data(scale=1e30), "multiflow")


class Powers(nn.Module):
    """Each layer multiplies two linear functions of its input, so that the number of paths is squared."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(20))
        self.first, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        for a, b in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = a(x) * b(x)
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_dpai_refuses_networks_with_too_many_paths_to_count() -> None:
    with pytest.raises(PaiBenchError, match=r"more than 1\.8e308 paths \(products of signals multiply them\)"):
        pai_bench.score(Powers(), data(), "dpai", steps=1, sparsity=0.2)


def test_the_remedy_for_a_method_of_a_plug_in_asks_for_finite_scores() -> None:
    """Without a guess at the cause, which may lie in the method itself."""
    from pai_bench.pruning.score_checks import checked_scores

    scores = {"0.weight": torch.tensor([1.0, torch.nan])}
    with pytest.raises(PaiBenchError, match=r"1 scores for 0\.weight that are not finite") as caught:
        checked_scores("mine", scores, scores)
    assert caught.value.remedy.startswith("correct the method: mine must return one finite score")
