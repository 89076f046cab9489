"""Masks of units: counts to within one unit, patterns, sums of residual branches, and the floor of one unit a layer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.cells import Cell, kept_count
from pai_bench.core.facts import GRANULARITIES
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.granularity import Units, units_of
from pai_bench.pruning.granularity.channels import find_channels
from pai_bench.pruning.selection import Sampling, keep_exactly, keep_lowest, keys, to_masks
from pai_bench.scoring.problem import prunable
from pai_bench.sweep.planning.checks import check
from pai_bench.training.callbacks import Callback

from .nets import flat
from .test_experiment import recipe

UNITS = GRANULARITIES[1:]
Masks = dict[str, Tensor]


class Residual(nn.Module):
    """A stem and two blocks; the second has a 1x1 convolution as its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.three = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.four = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(8, 12, 1, bias=False)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.two(F.relu(self.one(x))))
        x = F.relu(self.shortcut(x) + self.four(F.relu(self.three(x))))
        return self.fc(x.mean((2, 3)))


class Transformer(nn.Module):
    """One block of attention and two linear layers on the columns of an image as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2).transpose(1, 2))
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        x = x + self.narrow(F.gelu(self.wide(self.norm2(x))))
        return self.head(x.mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 10))


def vgg() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 10))


def depthwise() -> nn.Module:
    convolutions = [nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 16, 1)]
    return nn.Sequential(*convolutions, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


NETS = {"mlp": mlp, "residual": Residual, "vgg": vgg, "depthwise": depthwise, "transformer": Transformer}
DATA = [(torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(n)), torch.arange(12) % 10) for n in (0, 1)]


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETS[name]()


def pruned(name: str, granularity: str, sparsity: float = 0.7, method: str = "snip", **options: object) -> Masks:
    return pai_bench.prune(network(name), DATA, method, sparsity=sparsity, granularity=granularity, **options)


def whole(units: Tensor) -> bool:
    """Return True if every row of a matrix is kept or pruned as a whole."""
    return bool((units.all(1) == units.any(1)).all())


@pytest.mark.parametrize("method", ["snip", "random", "erk", "synflow:rounds=3"])
@pytest.mark.parametrize("granularity", UNITS)
@pytest.mark.parametrize("name", NETS)
def test_the_number_of_weights_is_met_to_within_one_unit(name: str, granularity: str, method: str) -> None:
    if name == "transformer" and method.startswith("synflow"):
        method = "synflow:rounds=1"
    sparsity = 0.6 if name == "depthwise" else 0.7
    masks = pruned(name, granularity, sparsity, method)
    size = flat(masks).numel()
    largest = {"2:4": 1, "kernel": 9, "constant-fan-in": max(len(mask) for mask in masks.values())}
    rows = [mask[0].numel() for mask in masks.values()]
    allowed = largest.get(granularity, sum(rows) if name in ("residual", "depthwise") else max(rows))
    assert 0 <= kept_count(sparsity, size) - int(flat(masks).sum()) < allowed
    for mask in masks.values():
        if granularity == "channel":
            assert whole(mask.flatten(1))
        elif granularity == "kernel":
            assert whole(mask.flatten(2).flatten(0, 1)) if mask.dim() > 2 else True
        elif granularity == "constant-fan-in":
            assert len({*mask.flatten(1).sum(1).tolist()}) == 1
        else:
            padded = F.pad(mask.flatten(2).movedim(1, -1) if mask.dim() > 2 else mask, (0, -mask.shape[1] % 4))
            assert padded.unflatten(-1, (-1, 4)).sum(-1).max() <= 2


def numbered(model: nn.Module, weights: Masks, granularity: str) -> tuple[Tensor, Tensor]:
    """Return the number of the unit of each weight, and which units are outputs of the network."""
    if granularity == "channel":
        channels = find_channels(model, weights, frozenset(), torch.zeros(2, 3, 32, 32))
        rows = [
            torch.from_numpy(channels.rows[name])[:, None].expand(len(w), w[0].numel()) for name, w in weights.items()
        ]
        return torch.cat([row.flatten() for row in rows]), torch.from_numpy(channels.fixed)
    sizes = torch.cat([torch.full((w.shape[0] * w.shape[1],), w[0, 0].numel()) for w in weights.values()])
    return torch.arange(len(sizes)).repeat_interleave(sizes), torch.zeros(len(sizes), dtype=torch.bool)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", UNITS)
@pytest.mark.parametrize("name", ["resnet20", "vgg16-bn", "mobilenetv2", "resnet50"])
def test_one_more_unit_in_the_order_of_the_scores_would_be_too_many(name: str, granularity: str) -> None:
    model = models.build(name, 3, 32, 10, 0.06 if name == "resnet50" else 0.125)
    weights, draws = prunable(model), torch.Generator().manual_seed(1)
    scores = {name: torch.rand(w.shape, generator=draws, dtype=torch.float64) for name, w in weights.items()}
    alive = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    units = units_of(granularity, model, weights, torch.zeros(2, 3, 32, 32))
    assert units is not None
    of_kernels = granularity in ("kernel", "channel")
    number, fixed = numbered(model, weights, granularity) if of_kernels else (torch.zeros(0), torch.zeros(0))
    met = 0
    for sparsity in (0.5, 0.9, 0.98, 0.99):
        wanted = kept_count(sparsity, len(flat(scores)))
        masks = units.masks(scores, alive, 1 - sparsity, wanted)
        missing = wanted - int(flat(masks).sum())
        assert all(mask.any() for mask in masks.values()) or granularity == "2:4"
        if granularity == "2:4":
            # Layers with an odd number of groups cannot keep half of their weights.
            assert missing == 0 or sparsity == 0.5
        elif granularity == "constant-fan-in":
            single = to_masks(scores, alive, 1 - sparsity, wanted)
            pairs = [(int(mask.sum()), int(single[name].sum()), len(mask)) for name, mask in masks.items()]
            # Where a layer keeps its unit beyond its number, others keep less.
            assert any(one < outputs for _, one, outputs in pairs) or all(
                abs(ours - one) < outputs for ours, one, outputs in pairs
            )
            assert missing < max(len(mask) for mask in masks.values() if not mask.all())
        else:
            sums = torch.zeros(len(fixed), dtype=torch.float64).index_add_(0, number, flat(scores))
            sizes = torch.bincount(number, minlength=len(fixed))
            kept = torch.zeros_like(fixed).index_put_((number[flat(masks)],), torch.tensor(True))
            assert bool(kept[fixed].all()) and missing == wanted - int(sizes[kept].sum())
            first = int(sums.masked_fill(kept, -1).argmax())
            if missing >= 0:
                assert missing < sizes[first]
            # Units below the first one that is pruned are the outputs, or the best ones of a layer.
            parts = [part.unique() for part in number.split([w.numel() for w in weights.values()])]
            best = torch.stack([part[sums[part].argmax()] for part in parts])
            spared = fixed.clone().index_fill_(0, best, True)
            assert bool((spared | ~kept | (sums > sums[first])).all())
            # Without a unit to prune, the floor is more than the number asked for.
            assert missing >= 0 or bool((spared | ~kept).all())
        met += missing >= 0
    assert met


@pytest.mark.parametrize("method", ["snip", "erk", "synflow:rounds=3"])
def test_single_weights_are_the_default_bit_for_bit(method: str) -> None:
    plain = pai_bench.prune(network("residual"), DATA, method, sparsity=0.9)
    assert torch.equal(flat(plain), flat(pruned("residual", "weight", 0.9, method)))


@pytest.mark.slow
def test_channels_that_meet_in_a_sum_are_one_unit() -> None:
    masks = pruned("residual", "channel", 0.5)
    rows = {name.partition(".")[0]: mask.flatten(1).any(1) for name, mask in masks.items()}
    assert torch.equal(rows["stem"], rows["two"]) and torch.equal(rows["shortcut"], rows["four"])
    assert 0 < rows["stem"].sum() < 8 and 0 < rows["four"].sum() < 12
    assert not torch.equal(rows["one"], rows["two"])
    assert masks["fc.weight"].all(), "outputs of the network stay"
    masks = pruned("depthwise", "channel", 0.5)
    assert torch.equal(masks["0.weight"].flatten(1).any(1), masks["2.weight"].flatten(1).any(1))


@pytest.mark.parametrize("granularity", UNITS)
@pytest.mark.parametrize("name", ["vgg", "residual"])
def test_every_pruned_channel_disappears_and_the_outputs_stay(name: str, granularity: str) -> None:
    model = network(name).double()
    masks = pai_bench.prune(model, DATA, "snip", sparsity=0.6, granularity=granularity)
    smaller = pai_bench.shrink(model, masks, DATA[0][0].double())
    if granularity == "channel":
        for key, mask in masks.items():
            # Behind zero padding, one channel may represent the constants of the others.
            removed = int((~mask.flatten(1).any(1)).sum())
            assert len(mask) - len(smaller.get_parameter(key)) in (removed, max(removed - 1, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "sparsity"), [("residual", "snip", 0.98), ("vgg", "magnitude", 0.95), ("mlp", "random", 0.95)]
)
def test_one_channel_of_every_layer_stays(name: str, method: str, sparsity: float) -> None:
    """High sparsities are reached where weights on paths are counted, and no layer is empty."""
    model = network(name)
    masks = pai_bench.prune(model, DATA, method, sparsity=sparsity, granularity="channel", effective=True)
    assert all(mask.any() for mask in masks.values())
    paths = effective_masks(model, masks, (3, 8, 8))
    assert 0 < int(flat(paths).sum()) <= kept_count(sparsity, flat(masks).numel())
    with pytest.raises(PaiBenchError, match="one channel unit in each layer and all outputs") as refused:
        pai_bench.prune(model, DATA, method, sparsity=0.99, granularity="channel")
    possible = float(str(refused.value.remedy).split()[6].rstrip(","))
    masks = pai_bench.prune(model, DATA, method, sparsity=possible, granularity="channel")
    assert int(flat(masks).sum()) <= kept_count(possible, flat(masks).numel())


def test_masks_never_keep_more_than_twice_the_requested_number() -> None:
    """One unit of a narrow network may have many times the weights that a high sparsity leaves."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.ReLU(), nn.Linear(3, 10))
    masks = pai_bench.prune(model, DATA, "magnitude", sparsity=0.8, granularity="channel")
    kept, size = int(flat(masks).sum()), flat(masks).numel()
    assert kept == 192 + 30 > kept_count(0.8, size)
    with pytest.raises(PaiBenchError, match="channel unit in each layer"):
        pai_bench.prune(model, DATA, "magnitude", sparsity=0.82, granularity="channel")


def test_the_possible_sparsity_of_a_wide_network_is_not_rounded_to_one() -> None:
    masks = {"w": torch.zeros(20_000, 1, dtype=torch.bool)}
    masks["w"][:9] = True
    with pytest.raises(PaiBenchError, match=r"up to 0\.99955,"):
        units("kernel", masks).check(masks, 2)


def test_the_floor_holds_where_scores_would_empty_a_layer() -> None:
    """With scores in proportion to the index of the layer, the first layers would lose all of their channels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 400), nn.ReLU(), nn.Linear(400, 10))
    for number, layer in enumerate(m for m in model if isinstance(m, nn.Linear)):
        nn.init.constant_(layer.weight, 100.0**number)
    masks = pai_bench.prune(model, DATA, "magnitude", sparsity=0.29, granularity="channel")
    assert int(masks["1.weight"].any(1).sum()) == 1


def units(granularity: str, weights: Masks) -> Units:
    """Return the units of linear layers in a chain."""
    shapes = [tuple(weight.shape) for weight in weights.values()]
    model = nn.Sequential(*(nn.Linear(i, o) for o, i in shapes))
    found = units_of(granularity, model, weights, torch.zeros(1, shapes[0][1]))
    assert found is not None
    return found


SCORES = {
    f"{n}.weight": torch.rand(shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    for n, shape in enumerate([(3, 4), (2, 3)])
}
ALIVE = {name: torch.ones_like(score, dtype=torch.bool) for name, score in SCORES.items()}


@pytest.mark.slow
def test_the_best_of_all_masks_of_two_of_four() -> None:
    """The kept weights have the highest sum of scores among all masks with the pattern and this count."""
    bits = (torch.arange(2**18)[:, None] >> torch.arange(18)) & 1
    groups = bits.split([4, 4, 4, 3, 3], dim=1)
    valid = torch.stack([group.sum(1) <= 2 for group in groups]).all(0)
    sums = torch.where(valid, (bits * flat(SCORES)).sum(1), -1.0)
    for kept in range(1, 11):
        masks = units("2:4", SCORES).masks(SCORES, ALIVE, 0.0, kept)
        best = sums[bits.sum(1) == kept].max()
        assert float(flat(SCORES)[flat(masks)].sum()) == pytest.approx(float(best), rel=1e-12)


@pytest.mark.slow
def test_channels_are_kept_in_the_order_of_their_sums() -> None:
    """Without the outputs, of which all stay, the kept channels are a prefix of those sorted by their sums."""
    sums = SCORES["0.weight"].sum(1)
    for count in range(1, 4):
        for spare in (0, 3):
            masks = units("channel", SCORES).masks(SCORES, ALIVE, 0.0, 6 + 4 * count + spare)
            assert masks["1.weight"].all()
            assert set(masks["0.weight"].any(1).nonzero().flatten().tolist()) == set(sums.topk(count).indices.tolist())


def test_a_constant_fan_in_keeps_the_best_weights_of_every_output() -> None:
    masks = units("constant-fan-in", SCORES).masks(SCORES, ALIVE, 0.0, 9)
    counts = [int(mask[0].sum()) for mask in masks.values()]
    for (name, mask), count in zip(masks.items(), counts, strict=True):
        for row, kept in zip(SCORES[name], mask, strict=True):
            assert set(kept.nonzero().flatten().tolist()) == set(row.topk(count).indices.tolist())
    best = max(
        (3 * a + 2 * b for a, b in itertools.product(range(1, 5), range(1, 4)) if 3 * a + 2 * b <= 9),
    )
    assert best - (3 * counts[0] + 2 * counts[1]) < 3


@pytest.mark.parametrize("granularity", UNITS)
def test_quotas_of_layers_are_met_to_within_a_unit(granularity: str) -> None:
    quotas = {"0.weight": 4, "1.weight": 6}
    masks = units(granularity, SCORES).masks(SCORES, ALIVE, 0.0, 10, quotas=quotas)
    assert int(masks["1.weight"].sum()) in {"2:4": (4,)}.get(granularity, (6,))
    assert abs(int(masks["0.weight"].sum()) - 4) <= (2 if granularity == "2:4" else 3)


def test_weights_pruned_earlier_stay_pruned() -> None:
    alive = {name: mask.clone() for name, mask in ALIVE.items()}
    alive["0.weight"][1] = False
    for granularity in UNITS:
        masks = units(granularity, SCORES).masks(SCORES, alive, 0.0, 10)
        assert not masks["0.weight"][1].any() and 7 <= int(flat(masks).sum()) <= 10


def test_keys_sort_weights_as_the_rules_of_selection_keep_them() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, generator=generator, dtype=torch.float64)
    scores[::7] = 0.0
    candidates = torch.rand(60, generator=generator) < 0.8
    for rule in (lambda: keep_exactly, lambda: keep_lowest, lambda: Sampling(3)):
        for count in (5, 20, 40):
            by_key = keep_exactly(keys(rule(), scores, candidates), candidates, 0.0, count)
            assert torch.equal(by_key, rule()(scores, candidates, 0.0, count))


def test_two_of_four_cannot_keep_more_than_half() -> None:
    with pytest.raises(PaiBenchError, match="keep at most"):
        pruned("mlp", "2:4", 0.4)
    assert int(flat(pruned("mlp", "2:4", 0.5)).sum()) == kept_count(0.5, 4200)


def test_conv1d_and_transposed_convolutions_have_their_inputs_first() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.LazyLinear(10))
    data = [(torch.randn(4, 8, 4, 4), torch.arange(4))]
    model(data[0][0])
    mask = pai_bench.prune(model, data, "snip", sparsity=0.6, granularity="2:4")["0.weight"]
    assert mask.shape == (8, 6, 3, 3) and mask.unflatten(0, (2, 4)).sum(1).max() <= 2
    mask = pai_bench.prune(model, data, "snip", sparsity=0.2, granularity="channel")["0.weight"]
    assert whole(mask.transpose(0, 1).flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "synflow:rounds=3"])
@pytest.mark.parametrize("granularity", UNITS)
def test_the_control_keeps_single_weights_with_the_same_layer_counts(method: str, granularity: str) -> None:
    masks = pruned("residual", granularity, 0.5, method)
    colon = "," if ":" in method else ":"
    control = pruned("residual", granularity, 0.5, f"{method}{colon}control=unstructured")
    assert {n: int(m.sum()) for n, m in masks.items()} == {n: int(m.sum()) for n, m in control.items()}
    assert not all(whole(mask.flatten(1)) for mask in control.values())


def a_run(method: str, granularity: str, **scoring: object) -> Run:
    settings = recipe(epochs=1)
    scoring = {"granularity": granularity, **scoring}
    return Run(Cell(method, "digits", "conv8", 0.8, 0), replace(settings, scoring=replace(settings.scoring, **scoring)))


@pytest.mark.slow
@pytest.mark.parametrize("granularity", UNITS)
def test_a_cell_has_the_masks_of_the_function(granularity: str) -> None:
    runner, callback = CellRunner(device="cpu"), Callback()
    shared, own = a_run("snip", granularity), a_run("synflow:rounds=2", granularity)
    for run in (shared, own):
        network = runner.model(run)
        masks = runner.masks(run, network, callback).tensors
        batches = list(runner.scoring_batches(run, run.scorer()))
        name = run.cell.spec.name
        options = dict(run.cell.spec.hyperparameters)
        expected = pai_bench.prune(network, batches, name, sparsity=0.8, granularity=granularity, **options)
        assert torch.equal(flat(masks), flat(expected))
    control = a_run("snip:control=unstructured", granularity)
    found = runner.masks(control, runner.model(control), callback).tensors
    of_units = runner.masks(shared, runner.model(shared), callback).tensors
    assert [int(m.sum()) for m in found.values()] == [int(m.sum()) for m in of_units.values()]


@pytest.mark.slow
def test_a_result_records_its_granularity() -> None:
    result = CellRunner(device="cpu").run(a_run("snip", "channel")).result
    assert result.recipe_values["scoring"]["granularity"] == "channel" and result.tied_at_cut is None
    assert result.n_kept == round(result.n_prunable * (1 - result.actual_sparsity))
    assert result.effective_sparsity > result.actual_sparsity
    plain, channels = a_run("snip", "weight"), a_run("snip", "channel")
    assert "granularity" not in plain.recipe.identity()["scoring"]
    assert plain.fingerprint() != channels.fingerprint()


@pytest.mark.parametrize(
    ("method", "granularity", "text"),
    [
        ("rigl", "channel", "changes its masks during training"),
        ("snip:control=unstructured", "weight", "keep single weights already"),
    ],
)
def test_a_granularity_without_effect_is_refused_before_a_sweep(method: str, granularity: str, text: str) -> None:
    with pytest.raises(PaiBenchError, match=text):
        check([a_run(method, granularity)], None)


def test_prune_refuses_unusable_granularities() -> None:
    with pytest.raises(PaiBenchError, match="unknown granularity"):
        pruned("mlp", "row")
    with pytest.raises(PaiBenchError, match="keep single weights already"):
        pruned("mlp", "weight", method="snip:control=unstructured")

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))

    with pytest.raises(PaiBenchError, match="cannot be traced by"):
        pai_bench.prune(Branching(), DATA, "snip", sparsity=0.5, granularity="channel")


def test_scores_in_float32_are_summed_in_float64() -> None:
    scores = {name: score.float() for name, score in SCORES.items()}
    masks = units("kernel", SCORES).masks(scores, ALIVE, 0.0, 9)
    assert int(flat(masks).sum()) == 9 and np.all([mask.dtype == torch.bool for mask in masks.values()])
