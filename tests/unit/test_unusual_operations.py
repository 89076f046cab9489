"""Networks of Fourier transforms, simulated quantisation, matrix factorisations and weights that are computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks
from pai_bench.scoring.paths.tracing import trace
from pai_bench.scoring.paths.walks import Walker

DATA = [(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4))]


class Net(nn.Module):
    """Two linear layers with a function between them and one before them."""

    def __init__(
        self,
        features: int = 192,
        first: Callable[[Tensor], Tensor] = torch.clone,
        middle: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(features, 16), nn.Linear(16, 5)
        self.first, self.middle = first, middle

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.b(self.middle(self.a(self.first(x).flatten(1))))
        return logits


def filtered(x: Tensor) -> Tensor:
    window = torch.view_as_complex(torch.linspace(0.1, 2, 3 * 8 * 5 * 2, dtype=x.dtype).view(3, 8, 5, 2))
    return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * window, s=(8, 8))


def quantised(x: Tensor) -> Tensor:
    scale, zero = torch.ones(16, dtype=torch.float32) / 8, torch.zeros(16, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x.float(), scale, zero, 1, 0, 255).to(x.dtype)


def covariance(x: Tensor) -> Tensor:
    y = x.flatten(2)
    return torch.linalg.cholesky(y @ y.mT / 64 + torch.eye(3, dtype=x.dtype))


NETS = {
    "magnitudes of frequencies": lambda: Net(120, lambda x: torch.fft.rfft2(x).abs()),
    "parts of frequencies": lambda: Net(240, lambda x: torch.view_as_real(torch.fft.rfft2(x))),
    "filter of frequencies": lambda: Net(192, filtered),
    "transform of features": lambda: Net(middle=lambda y: torch.fft.fft(y, dim=1).real),
    "quantised features": lambda: Net(middle=quantised),
}


@pytest.mark.parametrize("name", NETS)
def test_dense_networks_are_fully_effective_and_synflows_law_holds(name: str) -> None:
    model = NETS[name]()
    masks = {"a.weight": torch.ones_like(model.a.weight).bool(), "b.weight": torch.ones_like(model.b.weight).bool()}
    assert all(mask.all() for mask in effective_masks(model, masks, (3, 8, 8)).values())
    model.a.bias.data.zero_()
    model.b.bias.data.zero_()
    sums = [float(score.sum()) for score in pai_bench.score(model, DATA, "synflow").values()]
    assert sums[0] > 0 and sums[0] == pytest.approx(sums[1], rel=1e-6)


def test_operations_without_a_rule_connect_all_elements_and_synflow_refuses_them() -> None:
    model = Net(9, covariance)
    masks = {"a.weight": torch.ones_like(model.a.weight).bool(), "b.weight": torch.ones_like(model.b.weight).bool()}
    masks["b.weight"][:, 3] = False
    kept = effective_masks(model, masks, (3, 8, 8))
    assert kept["a.weight"].sum(1).tolist() == [9, 9, 9, 0, *[9] * 12]
    conv = nn.Sequential(nn.Conv2d(3, 3, 3), Calling(covariance), nn.Flatten(), nn.Linear(9, 5))
    with pytest.raises(PaiBenchError, match="linalg_cholesky"):
        pai_bench.prune(conv, DATA, "synflow")


class Calling(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Zeroed(nn.Module):
    """A layer that sets a part of its bias to zero in each pass, as the attention of Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(192, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.a.bias.clone()
        bias[4:8].zero_()
        logits: Tensor = self.b(torch.relu(F.linear(x.flatten(1), self.a.weight, bias)))
        return logits


def test_walks_do_not_end_in_a_bias_that_is_overwritten_in_part() -> None:
    model = Zeroed().double()
    graph = trace(model, torch.ones(1, 3, 8, 8, dtype=torch.float64))
    names = ["a.weight", "b.weight"]
    walker = Walker(graph, dict(model.named_parameters()), names, torch.Generator().manual_seed(0))
    assert {len(walker.walk(turn, forward=turn % 2 == 0)) for turn in range(40)} == {2}
    masks = pai_bench.prune(model, DATA, "npb", sparsity=0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == (192 * 16 + 16 * 5) // 2


def test_npb_names_a_weight_that_the_network_multiplies_by_another_one() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u, self.v, self.b = nn.Linear(4, 16, bias=False), nn.Linear(192, 4, bias=False), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.b(torch.relu(F.linear(x.flatten(1), self.u.weight @ self.v.weight)))
            return logits

    with pytest.raises(PaiBenchError, match=r"npb cannot place the weights of u\.weight") as caught:
        pai_bench.prune(LowRank(), DATA, "npb")
    assert "exclude='u.weight'" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_parameters_are_refused_by_name() -> None:
    for layout in (torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr):
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))
        model[1].weight = nn.Parameter(layout(model[1].weight.detach()))  # type: ignore[operator]
        with pytest.raises(PaiBenchError, match=r"1\.weight is stored as a sparse tensor"):
            pai_bench.prune(model, DATA, "random")
        with pytest.raises(PaiBenchError, match=r"1\.weight is stored as a sparse tensor"):
            effective_masks(model, {}, (3, 8, 8))


@pytest.mark.parametrize(
    ("middle", "what"),
    [
        (lambda y: y - torch.relu(y.flip(1)), "the difference of two values"),
        (lambda y: torch.relu(torch.cat([y[:, :8], -y[:, :8]], 1)), "a change of sign"),
        (lambda y: torch.relu(y * -0.5), "a change of sign"),
        (lambda y: torch.relu(y * torch.linspace(-1, 1, 16, dtype=y.dtype)), "a change of sign"),
    ],
)
def test_px_refuses_networks_whose_paths_have_negative_values(middle: Callable[[Tensor], Tensor], what: str) -> None:
    with pytest.raises(PaiBenchError, match=f"networks of ReLUs, and the model computes {what}"):
        pai_bench.prune(Net(middle=middle), DATA, "px", rounds=1)
