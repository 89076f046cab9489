"""Networks that call their layers inside torch.func: scores equal those of the plain network, or are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functionalize, jvp, vjp, vmap

import pai_bench
from pai_bench import PaiBenchError

DATA = [(torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3)]


class Network(nn.Module):
    """A network of two convolutions, whose part between them and the classifier is called by `transform`."""

    def __init__(self, transform: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Identity()
        self.head = nn.Linear(4, 3)
        self.transform = transform

    def features(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.grouped(torch.relu(self.conv(x))))).mean((-1, -2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.transform(self.features)(x))  # type: ignore[no-any-return]


def plain(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return features


def pulled(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: vjp(features, x)[0]


@pytest.mark.parametrize("method", ["grasp", "hutchinson", "hutchinson-pruning", "hts"])
@pytest.mark.parametrize("transform", [vmap, functionalize, pulled])
def test_second_derivatives_inside_transforms_equal_those_outside(
    transform: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]], method: str
) -> None:
    options = {} if method == "grasp" else {"probes": 1}
    expected = pai_bench.score(Network(plain), DATA, method, **options)
    for name, score in pai_bench.score(Network(transform), DATA, method, **options).items():
        torch.testing.assert_close(score, expected[name], rtol=1e-10, atol=1e-14)


def test_multiflow_names_the_layer_whose_inputs_vmap_hides() -> None:
    with pytest.raises(PaiBenchError, match="vmap hides those of layer conv") as caught:
        pai_bench.score(Network(vmap), DATA, "multiflow")
    assert "on the whole batch" in caught.value.remedy
    expected = pai_bench.score(Network(plain), DATA, "multiflow")
    for name, score in pai_bench.score(Network(functionalize), DATA, "multiflow").items():
        torch.testing.assert_close(score, expected[name])


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.Dropout()])
def test_a_layer_that_a_transform_refuses_is_named_and_the_remedy_works(layer: nn.Module, method: str) -> None:
    model = Network(lambda features: vmap(lambda x: features(x[None])[0]))
    model.last = layer
    with pytest.raises(
        PaiBenchError, match=f"layer last \\({type(layer).__name__}\\) cannot be computed inside"
    ) as caught:
        pai_bench.score(model, DATA, method)
    assert caught.value.remedy == "compute it on the whole batch, outside of the transform"
    model.transform = plain
    assert pai_bench.score(model, DATA, method)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is (deprecated|not supported):FutureWarning")  # by torch itself
def test_phew_walks_through_forward_derivatives() -> None:
    model = Network(lambda features: lambda x: jvp(features, (x,), (torch.zeros_like(x),))[0])
    assert pai_bench.prune(model, DATA, "phew", sparsity=0.5)
