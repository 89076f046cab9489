"""Networks that write to their input, share memory, make layers on the way, route inputs, or convert types."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import pai_bench
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks

from .nets import BRIEF, batches, flat

pytestmark = pytest.mark.slow

DATA = batches()


class Net(nn.Module):
    """Two convolutions and a classifier, with a function before them."""

    def __init__(self, first: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(self.first(x))))).mean((2, 3)))  # type: ignore[no-any-return]


def changed(change: Callable[[Net], object]) -> Net:
    model = Net()
    change(model)
    return model


@pytest.mark.parametrize("method", [name for name in pai_bench.list_methods() if name != "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_that_changes_its_input_in_place_leaves_the_batches_alone(method: str, dtype: str) -> None:
    kind = getattr(torch, dtype)
    data = [(x.to(kind), y) for x, y in DATA]
    options: dict[str, Any] = {"sparsity": 0.5, "dtype": dtype, **BRIEF.get(method, {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pai_bench.TiedScoresWarning)
        plain = pai_bench.prune(Net(lambda x: (x - 0.5) / 0.25), data, method, **options)
        in_place = pai_bench.prune(Net(lambda x: x.sub_(0.5).div_(0.25)), data, method, **options)
    assert all(torch.equal(x, old.to(kind)) for (x, _), (old, _) in zip(data, DATA, strict=True))
    if method not in ("phew", "npb"):  # which draw along the operations of the network
        assert torch.equal(flat(plain), flat(in_place))


def test_redrawn_weights_do_not_depend_on_the_memory_format() -> None:
    plain = pai_bench.prune(Net(), DATA, "ntk-sap", sparsity=0.5, rounds=2, repeats=1)
    other = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.equal(flat(plain), flat(pai_bench.prune(other, DATA, "ntk-sap", sparsity=0.5, rounds=2, repeats=1)))


def _expanded(model: Net) -> None:
    model.head.weight = nn.Parameter(torch.randn(10, 1).expand(10, 8))


def _tied_by_data(model: Net) -> None:
    model.c = nn.Linear(8, 10)  # type: ignore[assignment]
    model.c.weight.data = model.head.weight.data  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_expanded, r"head\.weight is an expanded tensor, whose elements share memory"),
        (_tied_by_data, r"c\.weight and head\.weight are two parameters in the same memory"),
    ],
)
def test_parameters_that_share_memory_are_refused(change: Callable[[Net], None], cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause):
        pai_bench.prune(changed(change), DATA, "magnitude")
    with pytest.raises(PaiBenchError, match=cause):
        pai_bench.apply_masks(changed(change), {"head.weight": torch.ones(10, 8) > 0})


def test_parts_of_one_memory_that_do_not_overlap_are_pruned() -> None:
    """As the weights of a recurrent layer on a GPU, or of a flat parameter."""
    model, memory = Net(), torch.zeros(8 * 27 + 8 * 72)
    memory.copy_(torch.cat([model.a.weight.detach().flatten(), model.b.weight.detach().flatten()]))
    model.a.weight.data, model.b.weight.data = memory[:216].view(8, 3, 3, 3), memory[216:].view(8, 8, 3, 3)
    masks = pai_bench.prune(model, DATA, "snip", sparsity=0.5)
    assert torch.equal(flat(masks), flat(pai_bench.prune(Net(), DATA, "snip", sparsity=0.5)))
    pai_bench.apply_masks(model, masks)
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in masks.items())


def test_weights_of_inference_mode_are_scored_and_their_masks_refused() -> None:
    with torch.inference_mode():
        model = Net()
    masks = pai_bench.prune(model, DATA, "snip")
    with pytest.raises(PaiBenchError, match=r"a\.weight was made in torch\.inference_mode"):
        pai_bench.apply_masks(model, masks)
    pai_bench.apply_masks(copy.deepcopy(model), masks)


def _as_buffer(model: Net) -> None:
    weight = model.b.weight.detach()
    del model.b._parameters["weight"]
    model.b.register_buffer("weight", weight)


def _as_tensor(model: Net) -> None:
    weight = model.b.weight.detach()
    del model.b._parameters["weight"]
    model.b.weight = weight  # type: ignore[assignment]


def _lazy_norm(model: Net) -> None:
    model.first = nn.LazyBatchNorm2d()


class Empty(Net):
    """A branch of width zero, as a pruned network without a bottleneck may have."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Initializing zero-element tensors is a no-op"
            self.down, self.up = nn.Linear(8, 0), nn.Linear(0, 8)
        if alone:
            del self.a, self.b, self.head

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x)))).mean((2, 3))
        return self.head(x + self.up(self.down(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (lambda: changed(_as_buffer), "the weight of layer b is a buffer, and only parameters are pruned"),
        (lambda: changed(_as_tensor), "the weight of layer b is a tensor that is not registered"),
        (lambda: changed(_lazy_norm), "layer first has no weight yet"),
        (lambda: parametrizations.weight_norm(nn.Linear(108, 10)), "the weight of the ParametrizedLinear is computed"),
        (lambda: Empty(alone=True), "nothing to prune: its weights have no elements"),
    ],
)
def test_networks_without_weights_of_their_own_are_refused(model: Callable[[], nn.Module], cause: str) -> None:
    for call in (pai_bench.prunable, lambda model: pai_bench.prune(model, DATA, "random")):
        with pytest.raises(PaiBenchError, match=cause):
            call(model())


@pytest.mark.parametrize("method", ["synflow", "snip", "npb", "phew", "erk"])
def test_layers_without_elements_do_not_count(method: str) -> None:
    masks = pai_bench.prune(
        Empty(alone=False), DATA, method, sparsity=0.5, **({"rounds": 2} if method == "synflow" else {})
    )
    assert list(masks) == ["a.weight", "b.weight", "head.weight"] and int(flat(masks).sum()) == 436


class Registering(Net):
    """A network that registers a buffer, a parameter or a layer in its first pass."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x)))).mean((2, 3))
        if self.kind == "buffer":
            if not hasattr(self, "cached"):
                self.register_buffer("cached", torch.ones(8, dtype=x.dtype))
            x = x * self.cached
        elif not hasattr(self, "made"):
            self.made = nn.Parameter(torch.ones(8)) if self.kind == "parameter" else nn.Linear(8, 8)
        return self.head(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["snip", "synflow", "force"])
def test_buffers_that_a_pass_registers_change_no_mask(method: str) -> None:
    model, options = Registering("buffer"), {"rounds": 2} if method != "snip" else {}
    masks = pai_bench.prune(model, DATA, method, sparsity=0.5, **options)
    assert torch.equal(flat(masks), flat(pai_bench.prune(Net(), DATA, method, sparsity=0.5, **options)))
    assert not list(model.buffers())


@pytest.mark.parametrize("kind", ["parameter", "layer"])
def test_parameters_that_a_pass_makes_are_refused(kind: str) -> None:
    with pytest.raises(PaiBenchError, match="the forward pass of Registering makes made") as caught:
        pai_bench.prune(Registering(kind), DATA, "snip")
    assert "call the model once" in caught.value.remedy


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_observers_of_quantisation_may_resize_their_buffers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 10))
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
    prepared = torch.ao.quantization.prepare_qat(model)
    masks = pai_bench.prune(prepared, DATA, "force", sparsity=0.5, rounds=2, dtype="float32")
    assert int(flat(masks).sum()) == 944
    with pytest.raises(PaiBenchError, match="computes in a type of its own, not in float64") as caught:
        pai_bench.prune(prepared, DATA, "snip")
    assert 'dtype="float32"' in caught.value.remedy


def test_a_network_that_converts_to_float32_is_scored_in_float32() -> None:
    with pytest.raises(PaiBenchError, match=r"layer a \(Conv2d\) computes in a type of its own, not in float64"):
        pai_bench.prune(Net(Tensor.float), DATA, "snip")
    masks = pai_bench.prune(Net(Tensor.float), DATA, "snip", sparsity=0.9, dtype="float32")
    assert torch.equal(flat(masks), flat(pai_bench.prune(Net(), DATA, "snip", sparsity=0.9, dtype="float32")))
    found = effective_masks(Net(Tensor.float), masks, (3, 6, 6))
    expected = effective_masks(Net(), masks, (3, 6, 6))
    assert all(torch.equal(found[name], expected[name]) for name in masks)


class Experts(nn.Module):
    """Each sample goes through the expert that it is routed to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.head = nn.Linear(108, 4), nn.Linear(8, 10)
        self.experts = nn.ModuleList(nn.Linear(108, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        weights = self.gate(x).softmax(1)
        chosen = [
            self.experts[int(i)](row).relu() * w[i] for row, w, i in zip(x, weights, weights.argmax(1), strict=True)
        ]
        return self.head(torch.stack(chosen))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["synflow", "synflow-l2", "npb", "phew", "dpai"])
def test_experts_that_a_single_input_does_not_reach_are_not_emptied(method: str) -> None:
    with pytest.raises(PaiBenchError, match=r"cannot score experts\.\d\.weight: it depends on the input"):
        pai_bench.prune(Experts(), DATA, method)


def test_outputs_of_no_class_are_refused() -> None:
    with pytest.raises(PaiBenchError, match=r"logits \[12, 0\]") as caught:
        pai_bench.prune(nn.Sequential(Net(), _Cut()), DATA, "snip")
    assert "at least one output" in caught.value.remedy


class _Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :0]
