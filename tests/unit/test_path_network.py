"""SynFlow, effective sparsity, FLOPs and PX on networks with layers other than ReLU and BatchNorm."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import pai_bench
from pai_bench import models
from pai_bench.core import plugins
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.flops import flops
from pai_bench.pruning.functions import prune
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable

DATA = [(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(4))]


class Calling(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def net(act: Callable[[], nn.Module], norm: Callable[[], nn.Module] = nn.Identity, last: object = nn.Identity):
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (3, 8):
        layers += [nn.Conv2d(channels, 8, 3, padding=1, bias=False), norm(), act()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10, bias=False)]
    return nn.Sequential(*layers, *head, last())  # type: ignore[operator]


def in_place(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :4] = x[:, :4].relu()
    y[:, 4:] += x[:, 4:]
    return y


def by_hand(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()


SAME_PATHS = {
    "relu6": lambda: net(nn.ReLU6),
    "leaky": lambda: net(lambda: nn.LeakyReLU(0.1)),
    "gelu": lambda: net(nn.GELU),
    "silu": lambda: net(nn.SiLU),
    "hardswish": lambda: net(nn.Hardswish),
    "elu": lambda: net(nn.ELU),
    "prelu": lambda: net(nn.PReLU),
    "tanh": lambda: net(nn.Tanh),
    "sigmoid": lambda: net(nn.Sigmoid),
    "softplus": lambda: net(nn.Softplus),
    "hardtanh": lambda: net(nn.Hardtanh),
    "threshold": lambda: net(lambda: nn.Threshold(1.5, 0)),
    "softshrink": lambda: net(nn.Softshrink),
    "group norm": lambda: net(nn.ReLU, lambda: nn.GroupNorm(4, 8)),
    "one group": lambda: net(nn.ReLU, lambda: nn.GroupNorm(1, 8)),
    "instance norm": lambda: net(nn.ReLU, lambda: nn.InstanceNorm2d(8, affine=True)),
    "layer norm": lambda: net(nn.ReLU, lambda: nn.LayerNorm((8, 8, 8))),
    "rms norm": lambda: net(nn.ReLU, lambda: nn.RMSNorm((8, 8, 8))),
    "batch statistics": lambda: net(nn.ReLU, lambda: nn.BatchNorm2d(8, track_running_stats=False)),
    "norm by hand": lambda: net(nn.ReLU, lambda: Calling(by_hand)),
    "normalize": lambda: net(lambda: Calling(F.normalize)),
    "log softmax": lambda: net(nn.ReLU, last=lambda: nn.LogSoftmax(1)),
    "softmax": lambda: net(nn.ReLU, last=lambda: nn.Softmax(1)),
    "silu by hand": lambda: net(lambda: Calling(lambda x: x * torch.sigmoid(x))),
    "hardswish by hand": lambda: net(lambda: Calling(lambda x: x * F.relu6(x + 3) / 6)),
    "relu by hand": lambda: net(lambda: Calling(lambda x: x * (x > 0))),
    "where": lambda: net(lambda: Calling(lambda x: torch.where(x > 0, x, 0.01 * x))),
    "clamp": lambda: net(lambda: Calling(lambda x: x.clamp(0, 6))),
    "square": lambda: net(lambda: Calling(lambda x: x.relu() ** 2)),
    "glu": lambda: net(lambda: Calling(lambda x: F.glu(torch.cat([x, x], 1), 1))),
    "in place": lambda: net(lambda: Calling(in_place)),
    "maximum": lambda: net(lambda: Calling(lambda x: torch.maximum(x, torch.zeros_like(x)))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_PATHS)
def test_synflow_depends_only_on_paths(name: str) -> None:
    expected = pai_bench.score(net(nn.ReLU), DATA, "synflow")
    found = pai_bench.score(SAME_PATHS[name](), DATA, "synflow")
    sums = torch.stack([score.sum() for score in found.values()])
    assert torch.allclose(sums, sums[0].expand_as(sums), rtol=1e-9) and sums[0] > 0
    weights = zip(expected.values(), found.values(), strict=True)
    # Scales such as the 1/6 of hardswish multiply all scores alike.
    assert all(torch.allclose(a / a.sum(), b / b.sum(), rtol=1e-9) for a, b in weights)


class Gated(nn.Module):
    """A squeeze-and-excitation block and an attention of rows; 3x8x8 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1, bias=False), nn.Conv2d(2, 8, 1, bias=False)
        self.query, self.key, self.value = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.head = nn.Linear(8, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x.mean(3).transpose(1, 2)
        y = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.head(y.mean(1))


def test_a_product_of_signals_shares_the_flow() -> None:
    sums = {name: float(score.sum()) for name, score in pai_bench.score(Gated(), DATA, "synflow").items()}
    flow = sums["stem.weight"]
    shares = {"squeeze": 1 / 2, "excite": 1 / 2, "value": 1 / 2, "query": 1 / 4, "key": 1 / 4, "head": 1}
    for name, share in shares.items():
        assert sums[f"{name}.weight"] == pytest.approx(share * flow, rel=1e-9)
    effective = effective_masks(Gated(), all_kept(Gated()), (3, 8, 8))
    assert all(mask.all() for mask in effective.values())


def test_layers_on_parallel_branches_share_the_flow() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = (nn.Linear(i, 8, bias=False) for i in (192, 8, 8))
            self.head = nn.Linear(8, 10, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x.flatten(1)).relu()
            return self.head(F.relu6(self.a(x)) - F.gelu(self.b(x)))

    sums = {name: float(score.sum()) for name, score in pai_bench.score(Branches(), DATA, "synflow").items()}
    assert sums["a.weight"] + sums["b.weight"] == pytest.approx(sums["stem.weight"], rel=1e-9)
    assert sums["head.weight"] == pytest.approx(sums["stem.weight"], rel=1e-9)


def test_synflow_refuses_a_layer_without_a_path_of_positive_value() -> None:
    model = net(nn.ReLU)
    nn.init.zeros_(model[8].weight)
    with pytest.raises(PaiBenchError, match=r"cannot score 8\.weight.*3 of 3 layers; all zero are 8\.weight"):
        pai_bench.prune(model, DATA, "synflow")
    model = net(nn.ReLU, lambda: nn.BatchNorm2d(8))
    nn.init.zeros_(model[4].weight)
    with pytest.raises(PaiBenchError, match=r"cannot score 0\.weight.*all zero are 4\.weight"):
        pai_bench.prune(model, DATA, "synflow")


def test_synflow_refuses_an_operation_that_breaks_the_law() -> None:
    model = net(lambda: Calling(lambda x: torch.linalg.matrix_exp(x / 100)))
    with pytest.raises(PaiBenchError, match=r"layer \d\.weight has"):
        pai_bench.prune(model, DATA, "synflow")


# Effective sparsity


def all_kept(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, None, 1, 1)


class Pair(nn.Module):
    """Two branches, put together by a function."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], scale: Tensor | None = None) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 4, 3, padding=1, bias=False) for _ in range(2))
        self.scale = nn.Parameter(torch.ones(()) if scale is None else scale)
        self.join, self.head = join, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self.a(x), self.b(x) * self.scale).mean((2, 3)))


DENSE = {
    "layer scale": lambda: Pair(torch.add, torch.full((4, 1, 1), 0.1)),
    "scalar scale of 0": lambda: Pair(torch.add, torch.zeros(())),
    "difference": lambda: Pair(lambda a, b: a - b),
    "maximum": lambda: Pair(torch.maximum),
    "stack and max": lambda: Pair(lambda a, b: torch.stack([a, b]).max(0).values),
    "amax": lambda: Pair(lambda a, b: torch.stack([a, b]).amax(0)),
    "where": lambda: Pair(lambda a, b: torch.where(a > b, a, b)),
    "gate": lambda: Pair(lambda a, b: a * torch.sigmoid(b)),
    "product": lambda: Pair(torch.mul),
    "standardised": lambda: nn.Sequential(
        Standardised(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ),
    "dilated pool": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True), nn.Flatten(), nn.Linear(64, 5)
    ),
    "padding alone": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4, 5)
    ),
    "transformer": lambda: nn.Sequential(
        nn.Flatten(2),
        nn.TransformerEncoderLayer(64, 2, 16, batch_first=True),
        nn.Flatten(),
        nn.Linear(192, 5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DENSE, *SAME_PATHS])
def test_a_dense_network_is_fully_effective(name: str) -> None:
    model = {**DENSE, **SAME_PATHS}[name]()
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 8, 8)).values())


@pytest.mark.slow
def test_views_of_signals_may_be_copies_of_flows() -> None:
    """The windows of a MaxViT are views of its signals; the flows lie in memory in another order."""
    maxvit = pytest.importorskip("torchvision.models.maxvit")
    sizes = {"stem_channels": 8, "partition_size": 2, "block_channels": [8, 8], "block_layers": [1, 1], "head_dim": 4}
    model = maxvit.MaxVit(input_size=(32, 32), stochastic_depth_prob=0.0, num_classes=5, **sizes)
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 32, 32)).values())
    masks = prune(model, [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))], method="synflow:rounds=2", sparsity=0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(sum(mask.numel() for mask in masks.values()) / 2)


@pytest.mark.parametrize("name", sorted(DENSE.keys() - {"padding alone", "transformer", "product"}))
def test_a_pruned_branch_is_not_effective(name: str) -> None:
    model = DENSE[name]()
    masks = all_kept(model)
    last = list(masks)[-1]
    masks[last][:] = False
    masks[last][0, 0] = True  # a path through the first channel (or the first place) alone
    effective = effective_masks(model, masks, (3, 8, 8))
    assert effective[last].sum() == 1
    for layer in list(masks)[:-1]:
        assert effective[layer][0].all() and not effective[layer][1:].any()


def reached_channels(masks: list[Tensor], groups: list[int]) -> list[Tensor]:
    """The weights on paths of a chain of 1x1 convolutions, by a search over all sequences of channels."""
    found = [torch.zeros_like(mask) for mask in masks]
    widths = [masks[0].shape[1] * groups[0], *(mask.shape[0] for mask in masks)]
    for path in itertools.product(*(range(width) for width in widths)):
        places = []
        for mask, group, i, o in zip(masks, groups, path[:-1], path[1:], strict=True):
            inner = i - (o // (mask.shape[0] // group)) * mask.shape[1]
            places.append((o, inner) if 0 <= inner < mask.shape[1] and mask[o, inner, 0, 0] else None)
        if None not in places:
            for mask, place in zip(found, places, strict=True):
                mask[place] = True
    return found


@pytest.mark.parametrize("seed", range(5))
def test_effective_weights_equal_a_search_over_channels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = [1, 2, 1, 4]
    layers = [nn.Conv2d(i, o, 1, groups=g) for i, o, g in zip((3, 4, 4, 4), (4, 4, 4, 4), groups, strict=True)]
    model = nn.Sequential(*itertools.chain(*((layer, nn.GELU()) for layer in layers)))
    masks = {name: torch.rand(w.shape, generator=generator) < 0.4 for name, w in prunable(model).items()}
    expected = reached_channels(list(masks.values()), groups)
    found = effective_masks(model, masks, (3, 2, 2)).values()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# FLOPs


class Functional(nn.Module):
    """Weights that are used by function."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.qkv, self.last = nn.Linear(12, 16), nn.Linear(16, 48), nn.Linear(16, 5)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.call(self.first(x), self.qkv.weight).chunk(3, -1)
        return self.last(q + k + v)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: F.linear(x, w),
        lambda x, w: x @ w.t(),
        lambda x, w: torch.einsum("bi,oi->bo", x, w),
        lambda x, w: torch.cat([F.linear(x, part) for part in w.split(16)], -1),
        lambda x, w: torch.addmm(x.new_zeros(48), x, w.t().contiguous()),
    ],
)
def test_flops_count_weights_that_are_used_by_function(call: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Functional(call)
    masks = all_kept(model)
    masks["qkv.weight"][:10] = False
    assert flops(model, masks, (12,)) == (2 * (12 * 16 + 16 * 48 + 16 * 5), 2 * (12 * 16 + 16 * 38 + 16 * 5))


class Composed(nn.Module):
    """A low-rank update of a weight, and a bias that a small network computes from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.down, self.up = nn.Linear(6, 5), nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)
        self.table = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.full.weight + self.up.weight @ self.down.weight)
        # The second row of the table is zero, also behind the ReLU.
        return y + self.table(torch.tensor([[1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, 1.0]])).squeeze(-1)


@pytest.mark.slow
def test_flops_count_products_of_two_weights() -> None:
    model = Composed().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 6))
    masks = all_kept(model)
    assert flops(model, masks, (6,)) == (counter.get_total_flops(), counter.get_total_flops())
    masks["up.weight"][:, 1] = False
    # half of the 5x2x6 multiply-adds of the update; the update is in every weight still
    assert flops(model, masks, (6,))[1] == counter.get_total_flops() - 2 * 5 * 6


@pytest.mark.slow
def test_flops_of_a_vision_transformer_equal_pytorchs_count() -> None:
    zoo = pytest.importorskip("torchvision.models")
    model = zoo.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    counts = counter.get_flop_counts()["Global"]
    aten = torch.ops.aten
    expected = sum(counts.get(op, 0) for op in (aten.convolution, aten.addmm, aten.mm))
    assert flops(model, all_kept(model), (3, 32, 32)) == (expected, expected)
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 32, 32)).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm-s", "gru-s"])
def test_flops_of_recurrent_layers_are_those_of_their_matrix_products(name: str) -> None:
    """The 28 rows of an image, each multiplied by the matrices of the embedding and the gates; then the classifier."""
    units, gates = 128, {"lstm-s": 4, "gru-s": 3}[name]
    expected = 2 * (28 * (28 * units + gates * units * 2 * units) + units * 10)
    model = models.build(name, 1, 28, 10)
    assert flops(model, all_kept(model), (1, 28, 28)) == (expected, expected)
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (1, 28, 28)).values())


class Two(nn.Module):
    """Two convolutions whose results a function joins; 3x8x8 inputs."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 10)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.join(self.one(x), self.other(x)).mean((2, 3)))


@pytest.mark.parametrize("method", ["synflow", "synflow-l2"])
@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: a / (1 + b.square()),
        lambda a, b: a.relu() / b.exp(),
        lambda a, b: torch.where(b > 0, a, 0),
        lambda a, b: a.masked_fill(b < 0, 0),
        lambda a, b: a - b.mean((1, 2, 3), keepdim=True),
    ],
)
def test_a_layer_that_only_divides_or_decides_is_refused_by_synflow(method: str, join: object) -> None:
    with pytest.raises(PaiBenchError, match=r"cannot score other\.weight: .* only through a divisor"):
        pai_bench.prune(Two(join), DATA, method, sparsity=0.5, rounds=1)  # type: ignore[arg-type]


def test_a_layer_that_does_not_reach_the_logits_has_scores_of_zero() -> None:
    scores = pai_bench.score(Two(lambda a, b: a), DATA, "synflow")
    assert not scores["other.weight"].any() and scores["one.weight"].all()


# PX


def zero_where_negative(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def changed_between(x: Tensor) -> Tensor:
    positive = x > 0
    x += 1
    return x * positive


COMPOSED_RELUS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x * (x > 0),
    lambda x: (x > 0) * x,
    lambda x: x * (x >= 0).to(x.dtype),
    lambda x: x.mul_((x > 0).float()),
    lambda x: torch.where(x > 0, x, 0.0),
    lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    lambda x: x.where(x > 0, torch.tensor(0.0, dtype=x.dtype)),
    lambda x: torch.maximum(x, torch.zeros_like(x)),
    lambda x: torch.max(x.new_zeros(()), x),
    lambda x: x.masked_fill(x < 0, 0),
    lambda x: x.masked_fill_(x < 0, 0),
]
COMPOSED_ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x * x,
    torch.square,
    torch.exp,
    torch.log1p,
    torch.sign,
    lambda x: x**3,
    lambda x: x * (x > 0.5),
    lambda x: torch.where(x > 0, x, -1.0),
    lambda x: torch.where(x > 0, x, 0.1 * x),
    lambda x: torch.maximum(x, 0.1 * x),
    lambda x: torch.minimum(x, torch.zeros_like(x)),
    lambda x: torch.stack([x, 0.1 * x]).max(0).values,
    lambda x: torch.stack([x, torch.zeros_like(x)], -1).amax(-1),
    lambda x: x.clamp(max=1),
    lambda x: x / (1 + x.square()),
    lambda x: x.masked_fill(x > 1, 0),
    lambda x: x.sort(1).values,
    lambda x: x * torch.heaviside(x, torch.zeros((), dtype=x.dtype)),
    lambda x: torch.lerp(x, x, x),
    zero_where_negative,
    changed_between,
]


def test_px_takes_maxima_over_positions_and_linear_functions_as_they_are() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    linear = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        Calling(lambda x: torch.cat([x[:, :4], x[:, 4:]], 1).flatten(2).max(2).values),
        nn.Linear(8, 10),
    )
    keys = dict(zip(plain.state_dict(), linear.state_dict(), strict=True))
    linear.load_state_dict({keys[key]: value for key, value in plain.state_dict().items()})
    expected = pai_bench.score(plain, DATA, "px", rounds=1)
    found = pai_bench.score(linear, DATA, "px", rounds=1)
    assert all(torch.equal(found[keys[name]], score) for name, score in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "act",
    [
        lambda: nn.Threshold(0, 0),
        lambda: nn.LeakyReLU(0.0),
        lambda: nn.PReLU(init=0.0),
        nn.ReLU6,
        lambda: nn.Hardtanh(0, 20),
        lambda: Calling(lambda x: x.clamp(min=0)),
        lambda: Calling(lambda x: torch.clamp_min(x, 0)),
        *(lambda f=f: Calling(f) for f in COMPOSED_RELUS),
    ],
)
def test_px_detects_relus_by_their_function(act: Callable[[], nn.Module]) -> None:
    expected = pai_bench.prune(net(nn.ReLU), DATA, "px", rounds=2, sparsity=0.8)
    found = pai_bench.prune(net(act), DATA, "px", rounds=2, sparsity=0.8)
    assert all(torch.equal(expected[name], mask) for name, mask in found.items())


@pytest.mark.parametrize(
    "act",
    [
        *(nn.GELU, nn.SiLU, nn.Tanh, lambda: nn.LeakyReLU(0.1), lambda: nn.Threshold(1.5, 0)),
        *(lambda: Calling(torch.abs), lambda: Calling(torch.sin), lambda: Calling(torch.Tensor.cos_)),
        *(lambda f=f: Calling(f) for f in COMPOSED_ACTIVATIONS),
    ],
)
def test_px_refuses_other_activations_by_layer(act: Callable[[], nn.Module]) -> None:
    with pytest.raises(PaiBenchError, match="networks of ReLUs, and layer 2 computes"):
        pai_bench.prune(net(act), DATA, "px", rounds=1)


def test_only_results_on_models_of_plug_ins_become_stale() -> None:
    snip, synflow = registry.get("snip", {}), registry.get("synflow", {})
    assert registry.model_source(synflow, "pai_bench.models.resnet") is None
    assert registry.model_source(snip, __name__) != registry.model_source(synflow, __name__)
    assert registry.model_source(snip, __name__) == plugins.source_hash(__name__)
