"""The networks have the numbers of parameters of the papers, and their weights are a function of the seed alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.core import model_index
from pai_bench.errors import PaiBenchError
from pai_bench.models.initialisation import TRUNCATED_STD
from pai_bench.models.mlp import WIDTHS
from pai_bench.models.wide_resnet import PreActivationBlock
from pai_bench.scoring.problem import prunable

GOLDEN = Path(__file__).parents[1] / "golden" / "cases"
SIZES = {
    "conv8": (1, 8),
    "vgg16-bn-tinyimagenet": (3, 64),
    **{f"mlp-{width}x3": (2, 1) for width in WIDTHS},
    **dict.fromkeys(["conv28", "lenet-300-100", "lenet-5-caffe", "lstm-s", "lstm-b", "gru-s", "gru-b"], (1, 28)),
}
SMALL = ("conv8", "conv28", "lenet-300-100", "gru-s", "resnet20", "resnet20-conv", "mobilenetv2")

Counts = tuple[int, int, int, int, int]
"""All parameters, prunable weights, prunable layers, biases, BatchNorm."""


def wide_counts(depth: int, width: int, classes: int) -> Counts:
    """By hand, for three channels: every block has two 3x3 convolutions, the first of a stage a 1x1 one as well."""
    blocks, stem = (depth - 4) // 6, 16
    weights, norms, layers, inputs = 27 * stem, 0, 1, stem
    for outputs in (16 * width, 32 * width, 64 * width):
        weights += 9 * inputs * outputs + inputs * outputs + (2 * blocks - 1) * 9 * outputs**2
        norms += 2 * (inputs + (2 * blocks - 1) * outputs)
        layers += 2 * blocks + 1
        inputs = outputs
    weights += inputs * classes
    norms += 2 * inputs
    return weights + norms + classes, weights, layers + 1, classes, norms


# Where no sum is written, the numbers are those of the authors' networks, instantiated.
COUNTS: dict[tuple[str, int], Counts] = {
    ("resnet20", 10): (269_722, 268_336, 20, 10, 1_376),
    ("resnet20-conv", 10): (272_474, 270_896, 22, 10, 1_568),
    ("resnet20-wide", 10): (1_084_586, 1_081_440, 22, 10, 3_136),
    ("resnet32", 10): (466_906, 464_432, 34, 10, 2_464),
    ("resnet32-wide", 10): (1_860_522, 1_855_584, 34, 10, 4_928),
    ("resnet32-wide", 100): (1_872_132, 1_867_104, 34, 100, 4_928),
    ("resnet32-wide", 200): (1_885_032, 1_879_904, 34, 200, 4_928),
    ("resnet18", 10): (11_173_962, 11_164_352, 21, 10, 9_600),
    ("resnet18", 200): (11_271_432, 11_261_632, 21, 200, 9_600),
    ("resnet18-imagenet", 1000): (11_689_512, 11_678_912, 21, 1_000, 9_600),
    ("resnet50", 10): (23_520_842, 23_467_712, 54, 10, 53_120),
    ("resnet50", 200): (23_910_152, 23_856_832, 54, 200, 53_120),
    ("resnet50-imagenet", 1000): (25_557_032, 25_502_912, 54, 1_000, 53_120),
    ("wrn-28-2", 10): wide_counts(28, 2, 10),
    ("wrn-16-8", 10): wide_counts(16, 8, 10),
    ("wrn-16-10", 10): wide_counts(16, 10, 10),
    ("wrn-22-8", 10): wide_counts(22, 8, 10),
    # Convolutions 1,728 + 73,728 + 294,912 + 589,824 + 1,179,648 + 3 x 2,359,296.
    ("vgg11-bn", 10): (9_231_114, 9_217_728 + 5_120, 9, 2_752 + 10, 5_504),
    ("vgg16-bn", 10): (14_728_266, 14_715_584, 14, 4_234, 8_448),
    ("vgg16-bn", 100): (14_774_436, 14_761_664, 14, 4_324, 8_448),
    ("vgg16-bn", 200): (14_825_736, 14_812_864, 14, 4_424, 8_448),
    ("vgg16-bn-nobias", 10): (14_724_042, 14_715_584, 14, 10, 8_448),
    ("vgg16-bn-tinyimagenet", 200): (18_075_912, 18_060_992, 16, 6_472, 8_448),
    ("vgg-d", 10): (15_255_626, 15_239_872, 16, 5_258, 10_496),
    ("vgg19-bn", 10): (20_040_522, 20_024_000, 17, 5_514, 11_008),
    ("vgg19-bn", 100): (20_086_692, 20_070_080, 17, 5_604, 11_008),
    ("vgg19-bn", 200): (20_137_992, 20_121_280, 17, 5_704, 11_008),
    ("vgg19-bn-nobias", 10): (20_035_018, 20_024_000, 17, 10, 11_008),
    ("vgg19-bn-nobias", 100): (20_081_188, 20_070_080, 17, 100, 11_008),
    ("vgg19-bn-nobias", 200): (20_132_488, 20_121_280, 17, 200, 11_008),
    ("mobilenetv2", 10): (2_296_922, 2_261_824, 58, 10, 35_088),
    # Convolutions 1,728 + 36,864 + 73,728 + 147,456; linear 8,192 x 256 + 256 x 256 + 2,560.
    ("conv4-lth", 10): (2_425_930, 259_776 + 2_165_248, 7, 906, 0),
    # 294,912 + 589,824 in two more convolutions; linear 4,096 x 256 + 256 x 256 + 2,560.
    ("conv6-lth", 10): (2_262_602, 1_144_512 + 1_116_672, 9, 1_418, 0),
    ("conv6-bn", 10): (2_265_418, 1_144_512 + 1_116_672, 9, 1_418, 2_816),
    ("lenet-300-100", 10): (266_610, 266_200, 3, 410, 0),
    # Convolutions 500 + 25,000; linear 800 x 500 + 5,000: 431K with biases in SNIP's Table 1.
    ("lenet-5-caffe", 10): (431_080, 430_500, 4, 580, 0),
    # Linear 28 x 128; four (LSTM) or three (GRU) gates of 128 x (128 + 128); linear 1,280.
    ("lstm-s", 10): (137_098, 135_936, 4, 1_162, 0),
    ("lstm-b", 10): (536_330, 534_016, 4, 2_314, 0),
    ("gru-s", 10): (104_074, 103_168, 4, 906, 0),
    ("gru-b", 10): (404_746, 402_944, 4, 1_802, 0),
    ("conv8", 10): (14_458, 14_288, 4, 10, 160),
    ("conv28", 10): (24_058, 23_824, 4, 10, 224),
    # Two inputs, one logit, and three hidden layers of w units: 2w + 2w² + w weights and 3w + 1 biases.
    **{(f"mlp-{w}x3", 1): (2 * w * w + 6 * w + 1, 2 * w * w + 3 * w, 4, 3 * w + 1, 0) for w in WIDTHS},
}


def network(name: str, classes: int = 10) -> nn.Module:
    channels, size = SIZES.get(name, (3, 32))
    return models.build(name, channels, size, classes)


def images(name: str, count: int = 4) -> Tensor:
    channels, size = SIZES.get(name, (3, 32))
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def values(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), COUNTS, ids=lambda value: str(value))
def test_counts_are_those_of_the_papers(name: str, classes: int) -> None:
    with torch.device("meta"):
        model = network(name, classes)
    norms = sum(
        p.numel() for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for p in m.parameters()
    )
    weights = prunable(model)
    kept = sum(weight.numel() for weight in weights.values())
    total = sum(p.numel() for p in model.parameters())
    assert (total, kept, len(weights), total - kept - norms, norms) == COUNTS[name, classes]


def test_every_model_has_its_counts_tested() -> None:
    assert {name for name, _ in COUNTS} == set(models.names())


def test_the_sum_for_wide_networks_gives_the_papers_36_5_million() -> None:
    assert wide_counts(28, 10, 10)[0] == 36_479_194


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_logits_have_the_shape_of_the_classes(name: str) -> None:
    channels, size = SIZES.get(name, (3, 32))
    with torch.device("meta"):
        assert network(name, 7).eval()(torch.zeros(2, channels, size, size)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theirs"), [("resnet18-imagenet", "resnet18"), ("resnet50-imagenet", "resnet50")])
def test_imagenets_networks_compute_what_torchvisions_do(name: str, theirs: str) -> None:
    import torchvision.models  # takes seconds

    reference = torchvision.models.get_model(theirs, weights=None).eval()
    renamed = {
        key.replace("downsample", "shortcut").replace("fc.", "linear."): value
        for key, value in reference.state_dict().items()
    }
    model = network(name, 1000).eval()
    model.load_state_dict(renamed)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x))


def test_a_block_of_a_wide_network_activates_before_it_convolves() -> None:
    block = PreActivationBlock(4, 4, 1)
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)  # no ReLU after the sum


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg16-bn"])
def test_tiny_imagenet_takes_the_same_network(name: str) -> None:
    small, large = models.build(name, 3, 32, 10), models.build(name, 3, 64, 10)
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert large.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def ours(name: str) -> str:
    """Our name for a parameter of the golden ResNet-20, which counts its blocks through."""
    head, _, rest = name.partition(".")
    if head == "blocks":
        number, _, rest = rest.partition(".")
        return f"layer{int(number) // 3 + 1}.{int(number) % 3}.{rest}"
    return {"conv": "conv1", "bn": "bn1", "fc": "linear"}.get(head, head) + f".{rest}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [("snip_milad_resnet20", "resnet20-conv"), ("prospr_resnet20A_full_m0.9_M3_new_lr0.5", "resnet20")],
)
def test_layers_are_those_of_the_authors_in_their_order(file: str, name: str) -> None:
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as arrays:
        order = json.loads(str(arrays["meta"]))["prunable"]
        stored = {ours(key.split("/", 1)[1]): arrays[key] for key in arrays.files if key[:6] in ("param/", "buffer")}
    model = network(name)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in stored.items()})
    assert [ours(f"{layer}.weight") for layer in order] == list(prunable(model))


@pytest.mark.slow
def test_scores_of_resnet20_conv_equal_the_authors_scores() -> None:
    with np.load(GOLDEN / "snip_milad_resnet20.npz", allow_pickle=False) as arrays:
        data = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "meta"}
    model = network("resnet20-conv")
    params = {key.split("/", 1)[1]: value for key, value in data.items() if key[:6] in ("param/", "buffer")}
    model.load_state_dict({ours(key): value for key, value in params.items()})
    scores = pai_bench.score(model, [(data["x0"], data["y0"])], method="snip")
    pairs = [
        (scores[ours(f"{key[6:]}.weight")].flatten().double(), value.flatten().double())
        for key, value in data.items()
        if key.startswith("score/")
    ]
    mine, theirs = (torch.cat(column) for column in zip(*pairs, strict=True))
    torch.testing.assert_close(mine / mine.sum(), theirs / theirs.sum(), rtol=1e-5, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", models.schemes())
@pytest.mark.parametrize("name", SMALL)
def test_weights_are_a_function_of_the_seed(name: str, scheme: str) -> None:
    first, second, other = network(name), network(name), network(name)
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        models.initialise(model, scheme, seed)
    assert torch.equal(values(first), values(second))
    for key, weight in prunable(first).items():
        assert not torch.equal(weight, prunable(other)[key])


def test_initialising_leaves_the_global_generator_alone_and_does_not_depend_on_it() -> None:
    model = network("conv8")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models.initialise(model, "prospr", 3)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = values(model)
    torch.manual_seed(6)
    models.initialise(model, "prospr", 3)
    assert torch.equal(values(model), drawn)


def test_initialising_draws_the_same_in_every_dtype_and_keeps_the_parameters() -> None:
    single, double = network("conv8"), network("conv8").double()
    parameters = list(double.parameters())
    models.initialise(single, "torch", 3)
    models.initialise(double, "torch", 3)
    assert torch.equal(values(single), values(double))
    assert all(a is b for a, b in zip(double.parameters(), parameters, strict=True))
    assert all(p.dtype == torch.float64 for p in double.parameters())


@pytest.mark.parametrize("scheme", models.schemes())
def test_initialising_resets_the_norms(scheme: str) -> None:
    model = network("conv8")
    model(images("conv8"))
    for p in model.parameters():
        p.data.add_(1)
    models.initialise(model, scheme, 0)
    norm = model.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    fresh = nn.BatchNorm2d(16).state_dict()
    drawn = {"weight"} if scheme == "openlth" else set()
    assert all(torch.equal(value, fresh[key]) for key, value in norm.state_dict().items() if key not in drawn)


def test_openlth_draws_the_norms_weights_in_the_unit_interval() -> None:
    model = network("resnet20-conv")
    models.initialise(model, "openlth", 0)
    weights = torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(weights.min()) >= 0 and float(weights.max()) < 1
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.05)


def spread(weight: Tensor) -> float:
    return float(weight.detach().pow(2).mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "name", "conv", "linear", "linear_bias"),
    [
        ("torch", "vgg16-bn", math.sqrt(1 / 3 / (512 * 9)), math.sqrt(1 / 3 / 512), True),
        ("kaiming-normal-fan-in", "vgg16-bn", math.sqrt(2 / (512 * 9)), math.sqrt(2 / 512), False),
        ("kaiming-normal-fan-out", "resnet18", math.sqrt(2 / (512 * 9)), math.sqrt(1 / 3 / 512), True),
        ("ntk-sap", "vgg16-bn", math.sqrt(2 / (512 * 9)), math.sqrt(2 / 512), True),
        ("openlth", "resnet20-conv", math.sqrt(2 / (64 * 9)), math.sqrt(2 / 64), True),
        ("grasp", "vgg16-bn", math.sqrt(2 / (512 * 9)), 0.01, False),
        ("prospr", "vgg16-bn", math.sqrt(2 / (512 * 9)), math.sqrt(1 / 3 / 512), True),
        ("prospr", "resnet20", math.sqrt(2 / (64 * 9)), math.sqrt(2 / 64), True),
        ("prospr", "resnet18", math.sqrt(1 / 3 / (512 * 9)), math.sqrt(1 / 3 / 512), True),
    ],
)
def test_schemes_have_the_spread_they_are_named_for(
    scheme: str, name: str, conv: float, linear: float, linear_bias: bool
) -> None:
    model = network(name, 100)
    models.initialise(model, scheme, 0)
    *convs, head = prunable(model).values()
    assert spread(convs[-1]) == pytest.approx(conv, rel=0.01)
    assert spread(head) == pytest.approx(linear, rel=0.03)
    bias = list(model.parameters())[-1]
    assert bool(bias.any()) == linear_bias
    conv_biases = [m.bias for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert all(bool(b.any()) == (scheme in ("torch", "ntk-sap")) for b in conv_biases)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "first", "conv", "recurrent", "bound"),
    [
        ("variance-scaling", 1 / 784, 1 / 500, 1 / 256, 2),
        ("glorot-truncated", 2 / 1084, 2 / 1750, 2 / 640, 2),
        ("he-truncated", 2 / 784, 2 / 500, 2 / 256, 2),
        ("truncated-normal", 0.01 * TRUNCATED_STD**2, 0.01 * TRUNCATED_STD**2, 0.01 * TRUNCATED_STD**2, 2),
        ("normal", 0.01, 0.01, 0.01, math.inf),
    ],
)
def test_schemes_of_snip_have_tensorflows_variance_and_zero_biases(
    scheme: str, first: float, conv: float, recurrent: float, bound: float
) -> None:
    """A truncated normal has no value beyond two standard deviations of the normal distribution it is cut from."""
    networks = {name: network(name) for name in ("lenet-300-100", "lenet-5-caffe", "gru-s")}
    for model in networks.values():
        models.initialise(model, scheme, 0)
        assert not any(bool(p.any()) for p in model.parameters() if p.dim() == 1)
    dense = networks["lenet-300-100"].get_parameter("fc1.weight")
    assert spread(dense) == pytest.approx(math.sqrt(first), rel=0.01)
    assert spread(networks["lenet-5-caffe"].get_parameter("conv2.weight")) == pytest.approx(math.sqrt(conv), rel=0.02)
    gates = networks["gru-s"].get_parameter("recurrent.weight_hh_l0")
    assert spread(gates) == pytest.approx(math.sqrt(recurrent), rel=0.01)
    largest = float(dense.detach().abs().max()) / (spread(dense) / (TRUNCATED_STD if bound == 2 else 1))
    assert largest <= 2.01 if bound == 2 else largest > 4


def test_the_rows_of_an_image_are_the_steps_of_a_recurrent_network() -> None:
    """Without its last row an image gives the state before that row; the classifier reads the last state."""
    model = network("gru-s").eval()
    x = images("gru-s")
    seen: list[Tensor] = []
    model.get_submodule("linear").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x), model(x[:, :, :-1])
    step, _ = model.get_submodule("recurrent")(model.get_submodule("embed")(x[:, 0, -1:]), seen[1][None].contiguous())
    torch.testing.assert_close(step[:, 0], seen[0])


@pytest.mark.slow
def test_fan_out_and_fan_in_differ_where_the_width_changes() -> None:
    model = network("vgg16-bn")
    weight = model.get_parameter("features.7.weight")  # 64 to 128 channels
    models.initialise(model, "grasp", 0)
    assert spread(weight) == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    assert spread(weight) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(PaiBenchError, match="resnet20"):
        models.build("resnet21", 3, 32, 10)
    with pytest.raises(PaiBenchError, match="did you mean prospr"):
        models.initialise(network("conv8"), "prosper", 0)


@pytest.mark.parametrize("name", ["vgg16-bn", "lenet-5-caffe"])
def test_images_that_are_too_small_are_refused(name: str) -> None:
    with pytest.raises(PaiBenchError, match="16x16"):
        models.build(name, 1, 8, 10)


def test_a_plug_in_may_add_a_model_but_not_an_existing_name() -> None:
    @models.register_model("line")
    def line(channels: int, size: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

    assert "line" in models.names()
    assert models.build("line", 1, 2, 3)(torch.zeros(5, 1, 2, 2)).shape == (5, 3)
    with pytest.raises(ValueError, match="registered twice"):
        models.register_model("line")(line)


def test_the_index_names_all_built_in_models() -> None:
    assert list(model_index.builtin()) == [name for name in models.names() if models.is_builtin(name)]
    assert model_index.is_complete() and not model_index.is_complete([Path("mine.py")])
