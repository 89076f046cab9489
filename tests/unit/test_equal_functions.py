"""Networks that compute one function by different operations, which have the same masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import pai_bench
from pai_bench.pruning.effective import effective_masks
from pai_bench.scoring.problem import prunable

from .nets import BRIEF

pytestmark = pytest.mark.slow

DATA = [
    (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(i)), (torch.arange(4) + i) % 10) for i in range(4)
]
METHODS = ("magnitude", "snip", "grasp", "synflow", "prospr", "px")


class Cells(nn.Module):
    """A recurrent layer over the rows of an image, by torch's own operation or written out."""

    def __init__(self, kind: str, written_out: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = getattr(nn, kind)(8, 6, batch_first=True), nn.Linear(6, 10)
        self.kind, self.written_out = kind, written_out

    def forward(self, x: Tensor) -> Tensor:
        x, r = x.mean(1), self.layer
        if not self.written_out:
            return self.head(r(x)[0][:, -1])  # type: ignore[no-any-return]
        h = c = x.new_zeros(len(x), 6)
        for t in range(x.shape[1]):
            inner = F.linear(x[:, t], r.weight_ih_l0, r.bias_ih_l0)
            outer = F.linear(h, r.weight_hh_l0, r.bias_hh_l0)
            if self.kind == "LSTM":
                i, f, g, o = (inner + outer).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            else:
                (r1, z1, n1), (r2, z2, n2) = inner.chunk(3, 1), outer.chunk(3, 1)
                new = (n1 + (r1 + r2).sigmoid() * n2).tanh()
                h = new + (z1 + z2).sigmoid() * (h - new)
        return self.head(h)  # type: ignore[no-any-return]


class Gates(nn.Module):
    """Two gates of one product, in place in two halves of its memory or by two operations."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both, self.value, self.head = nn.Linear(192, 16), nn.Linear(192, 8), nn.Linear(8, 10)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        first, second = self.both(x).chunk(2, 1) if not self.in_place else self.both(x).unsafe_chunk(2, 1)
        gates = (first.sigmoid_(), second.sigmoid_()) if self.in_place else (first.sigmoid(), second.sigmoid())
        return self.head(gates[1] * (gates[0] * self.value(x)))  # type: ignore[no-any-return]


class Rewritten(nn.Module):
    """Two convolutions and a classifier, whose operations can be replaced."""

    def __init__(self, part: str = "", call: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)
        self.calls: dict[str, Callable[..., Tensor]] = {
            "conv": lambda x, w, b: F.conv2d(x, w, b, padding=1),
            "relu": F.relu,
            "pool": lambda x: x.mean((2, 3)),
            "linear": F.linear,
        }
        if call is not None:
            self.calls[part] = call

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            x = self.calls["relu"](self.calls["conv"](x, layer.weight, layer.bias))
        return self.calls["linear"](self.calls["pool"](x), self.head.weight, self.head.bias)


FORMS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "unfold": (
        "conv",
        lambda x, w, b: (torch.einsum("bkl,ok->bol", F.unfold(x, 3, padding=1), w.flatten(1)) + b[:, None]).unflatten(
            2, x.shape[2:]
        ),
    ),
    "output channels apart": (
        "conv",
        lambda x, w, b: torch.cat(
            [F.conv2d(x, v, c, padding=1) for v, c in zip(w.split(4), b.split(4), strict=True)], 1
        ),
    ),
    "input channels apart": (
        "conv",
        lambda x, w, b: (
            torch.stack([F.conv2d(p, v, padding=1) for p, v in zip(x.split(1, 1), w.split(1, 1), strict=True)]).sum(0)
            + b[:, None, None]
        ),
    ),
    "step": ("relu", lambda x: x * torch.heaviside(x.detach(), x.new_zeros(()))),
    "half of a sum": ("relu", lambda x: (x + x.abs()) / 2),
    "hardtanh": ("relu", lambda x: F.hardtanh(x, 0.0, 1e9)),
    "view": ("pool", lambda x: x.reshape(*x.shape[:2], -1).mean(-1)),
    "einsum": ("pool", lambda x: torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])),
    "product and sum": ("linear", lambda x, w, b: (x[:, None] * w).sum(2) + b),
    "batched product": ("linear", lambda x, w, b: (w @ x[:, :, None])[:, :, 0] + b),
    "1x1 convolution": ("linear", lambda x, w, b: F.conv2d(x[:, :, None, None], w[:, :, None, None], b).flatten(1)),
}


def masks(model: nn.Module, method: str) -> list[Tensor] | None:
    """Return the masks by layer; None where the method refuses the network."""
    try:
        return list(pai_bench.prune(model, DATA, method, sparsity=0.7, **BRIEF.get(method, {})).values())
    except pai_bench.PaiBenchError:
        return None


def check(method: str, one: nn.Module, other: nn.Module, may_refuse: bool = False) -> None:
    first, second = masks(one, method), masks(other, method)
    if first is None or second is None:
        assert may_refuse and (second is None or first is not None)
        return
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow", "prospr"])
def test_a_recurrent_layer_that_is_written_out_has_the_same_masks(method: str, kind: str) -> None:
    check(method, Cells(kind, False), Cells(kind, True))


@pytest.mark.parametrize("method", ["snip", "synflow", "npb"])
def test_gates_in_place_are_gates(method: str) -> None:
    check(method, Gates(False), Gates(True))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_effective_weights_do_not_depend_on_how_a_recurrent_layer_is_written(kind: str) -> None:
    plain, written_out = Cells(kind, False), Cells(kind, True)
    generator = torch.Generator().manual_seed(0)
    kept = {name: torch.rand(w.shape, generator=generator) < 0.1 for name, w in prunable(plain).items()}
    found = [effective_masks(model, kept, (3, 8, 8)) for model in (plain, written_out)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in kept)
    assert 0 < sum(int(mask.sum()) for mask in found[0].values()) < sum(int(mask.sum()) for mask in kept.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_an_operation_in_another_form_gives_the_same_masks(method: str, form: str) -> None:
    check(method, Rewritten(), Rewritten(*FORMS[form]), may_refuse=method == "px")


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_is_traced_reordered_in_memory_or_compiled_in_part_has_the_same_masks(method: str) -> None:
    check(method, layers(), fx.symbolic_trace(layers()))
    check(method, layers(), layers().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    compiled = layers()
    compiled[2] = torch.compile(compiled[2], backend="eager")  # type: ignore[assignment]
    check(method, layers(), compiled)
