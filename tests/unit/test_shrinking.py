"""Tests of shrink: equal outputs in float64, and the channels that disappear."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.errors import PaiBenchError
from pai_bench.scoring.weights import prunable_weights

TORCHVISION = ("resnet", "bottleneck", "vgg", "mobilenet", "mobilenet_v3", "densenet", "convnext", "squeezenet")
OURS = ("lenet-300-100", "conv8", "conv4-lth", "conv6-bn", "resnet20", "resnet20-conv", "mobilenetv2")
LARGE = tuple(name for name in models.names() if models.is_builtin(name) and name not in OURS)


def torchvision_network(name: str) -> nn.Module:
    """Build a small network of torchvision, which is imported here because the import takes seconds."""
    import torchvision.models as zoo
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.resnet import BasicBlock, Bottleneck

    def vgg() -> nn.Module:
        """Build a VGG of three layers, whose classifier reads flattened maps of pixels."""
        features = zoo.vgg.make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True)
        model = zoo.VGG(features, num_classes=10, init_weights=False)
        model.classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
        return model

    builders: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: zoo.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10),
        "bottleneck": lambda: zoo.ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10),
        "vgg": vgg,
        "mobilenet": lambda: zoo.MobileNetV2(10, width_mult=0.25),
        "mobilenet_v3": lambda: zoo.mobilenet_v3_small(num_classes=10, width_mult=0.25),
        "densenet": lambda: zoo.DenseNet(8, (2, 2), 16, num_classes=10),
        "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], num_classes=10),
        "squeezenet": lambda: zoo.squeezenet1_1(num_classes=10),
    }
    return builders[name]()


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give norms and biases random values, as training would; float64, eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        for name in ("weight", "bias", "running_mean"):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and value.dim() == 1:
                value.detach().copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64) / 2 + 0.5)
    return model


def channel_masks(model: nn.Module, kept: float, seed: int = 0) -> dict[str, Tensor]:
    """Draw masks that prune whole rows and columns besides single weights."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, weight in prunable_weights(model).items():
        mask = torch.rand(weight.shape, generator=generator) < 0.7
        mask[torch.rand(weight.shape[0], generator=generator) > kept] = False
        mask[:, torch.rand(weight.shape[1], generator=generator) > kept] = False
        masks[name] = mask
    return masks


def check(model: nn.Module, masks: dict[str, Tensor], example: Tensor) -> nn.Module:
    """Assert equal outputs for other inputs than the example; return the smaller model."""
    before = copy.deepcopy(model.state_dict())
    smaller = pai_bench.shrink(model, masks, example)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    masked = copy.deepcopy(model)
    pai_bench.apply_masks(masked, masks)
    x = torch.randn(2, *example.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected, found = masked(x), smaller(x)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max().clamp_min(1)
    assert type(smaller) is type(model) and not pai_bench.masks_of(smaller)
    return smaller


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0.9, 0.5])
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_give_equal_outputs_with_fewer_channels(name: str, kept: float) -> None:
    torch.manual_seed(0)
    model = settled(torchvision_network(name))
    masks = channel_masks(model, kept)
    smaller = check(model, masks, torch.randn(1, 3, 40, 40, dtype=torch.float64))
    assert size(smaller) < size(model)


@pytest.mark.parametrize("name", [*OURS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_registered_networks_give_equal_outputs_with_fewer_channels(name: str) -> None:
    side = 64 if "imagenet" in name else 32
    model = models.build(name, 3, side, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    model = settled(model)
    smaller = check(model, channel_masks(model, 0.8), torch.randn(1, 3, side, side, dtype=torch.float64))
    # Recurrent layers have no rule, so that the layers around them keep their channels.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    assert (size(smaller) == size(model)) if recurrent else (size(smaller) < size(model))


class Chain(nn.Module):
    """Two convolutions with BatchNorm, an average and a classifier."""

    def __init__(self, padding: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=padding), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3, padding=padding, bias=False), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def ones(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable_weights(model).items()}


X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_network_without_pruned_weights_keeps_its_size() -> None:
    model = settled(Chain())
    smaller = check(model, ones(model), X)
    assert {n: p.shape for n, p in smaller.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_a_channel_that_no_layer_reads_is_removed() -> None:
    model = settled(Chain())
    masks = ones(model)
    masks["conv2.weight"][:, 2] = False
    smaller = check(model, masks, X)
    assert smaller.conv1.weight.shape == (3, 3, 3, 3) and smaller.bn1.num_features == 3
    assert smaller.conv2.weight.shape == (5, 3, 3, 3) and smaller.conv2.in_channels == 3


def test_constants_become_biases_where_no_zeros_are_padded() -> None:
    model = settled(Chain(padding=0))
    masks = ones(model)
    masks["conv1.weight"][[0, 2]] = False
    smaller = check(model, masks, X)
    assert smaller.conv1.out_channels == 2 and smaller.conv2.bias is not None


def test_one_channel_represents_all_constants_before_zero_padding() -> None:
    model = settled(Chain())
    masks = ones(model)
    masks["conv1.weight"][[0, 2, 3]] = False
    model.bn1.bias.data.fill_(2.0)  # no constant is zero behind the ReLU
    model.bn1.running_mean.fill_(0.0)
    model.conv1.bias.data.fill_(0.0)
    smaller = check(model, masks, X)
    assert smaller.conv1.out_channels == 2, "one live channel and one carrier"


def test_removal_propagates_through_several_layers() -> None:
    """Rows of conv2 without readers leave no reader for the channels of conv1 either."""
    model = settled(Chain())
    masks = ones(model)
    masks["fc.weight"][:, [1, 2, 3, 4]] = False
    masks["conv2.weight"][0, 1:] = False
    smaller = check(model, masks, X)
    assert smaller.conv2.weight.shape == (1, 1, 3, 3) and smaller.fc.in_features == 1


class Residual(nn.Module):
    """A sum of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.one(x) + self.other(x)).mean((2, 3)))


def test_channels_that_meet_in_a_sum_are_removed_together() -> None:
    model = settled(Residual())
    masks = ones(model)
    masks["one.weight"][[0, 1]] = False
    masks["other.weight"][[1, 2]] = False
    smaller = check(model, masks, X)
    assert smaller.one.out_channels == smaller.other.out_channels == smaller.fc.in_features == 3


def test_a_network_without_paths_keeps_its_constant_output() -> None:
    model = settled(Chain())
    masks = {name: torch.zeros_like(mask) for name, mask in ones(model).items()}
    smaller = check(model, masks, X)
    assert smaller.conv1.out_channels == smaller.conv2.out_channels == 1


def test_a_shared_layer_and_an_unknown_operation_keep_their_channels() -> None:
    class Shared(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(5, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
            return self.fc(torch.cumsum(self.twice(self.twice(x)), 1).mean((2, 3)))

    model = settled(Shared())
    masks = ones(model)
    masks["twice.weight"][0] = False
    masks["conv2.weight"][:, 1] = False
    smaller = check(model, masks, X)
    assert smaller.twice.weight.shape == (5, 5, 1, 1) and smaller.conv1.out_channels == 3


def test_masks_on_the_model_are_the_default() -> None:
    model = settled(Chain())
    masks = ones(model)
    masks["conv2.weight"][:, 2] = False
    pai_bench.apply_masks(model, masks)
    assert pai_bench.shrink(model, None, X).conv1.out_channels == 3
    assert pai_bench.masks_of(model), "the model itself keeps its masks"


@pytest.mark.slow
def test_masks_of_a_method_in_float32() -> None:
    torch.manual_seed(0)
    model = models.build("vgg11-bn", 3, 32, 10)
    masks = pai_bench.prune(model, [(torch.randn(10, 3, 32, 32), torch.arange(10))], "magnitude", sparsity=0.98)
    smaller = pai_bench.shrink(model, masks, torch.randn(2, 3, 32, 32))
    assert size(smaller) < size(model)


class Branching(nn.Module):
    """A forward pass that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


@pytest.mark.parametrize(
    ("model", "masks", "text"),
    [
        (Branching(), {"fc.weight": torch.ones(2, 3, dtype=torch.bool)}, "cannot be traced by torch.fx"),
        (Chain(), None, "has no masks"),
        (Chain(), {"nope": torch.ones(1, dtype=torch.bool)}, "no parameter is called 'nope'"),
    ],
)
def test_networks_that_cannot_be_shrunk_are_refused(
    model: nn.Module, masks: dict[str, Tensor] | None, text: str
) -> None:
    example = torch.randn(2, 3) if isinstance(model, Branching) else torch.randn(2, 3, 8, 8)
    with pytest.raises(PaiBenchError, match=text):
        pai_bench.shrink(model, masks, example)


def test_a_size_written_as_a_constant_is_refused() -> None:
    class Fixed(Chain):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.bn1(self.conv1(x)))
            x = F.relu(self.bn2(self.conv2(x.view(-1, 4, 8, 8))))
            return self.fc(x.mean((2, 3)))

    model = settled(Fixed())
    masks = ones(model)
    masks["conv2.weight"][:, 2] = False
    smaller = check(model, masks, X)
    assert smaller.conv1.out_channels == 4, "a view pins the channels of its input"


def test_a_norm_over_flattened_pixels_keeps_the_channels_before_it() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.BatchNorm1d(80), nn.Linear(80, 10))
    )
    model = settled(model)
    masks = channel_masks(model, 0.5)
    smaller = check(model, masks, X)
    assert smaller[2].out_channels == 5 and smaller[0].out_channels < 4


ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten(1)": lambda x: x.flatten(1),
    "flatten(start_dim=1)": lambda x: x.flatten(start_dim=1),
    "torch.flatten": lambda x: torch.flatten(x, 1),
    "view": lambda x: x.view(x.size(0), -1),
    "mean": lambda x: x.mean((2, 3)),
    "amax": lambda x: torch.amax(x, (2, 3)),
}


@pytest.mark.parametrize("end", ENDS)
def test_channels_disappear_before_every_kind_of_classifier(end: str) -> None:
    class Ending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)
            self.fc = nn.Linear(6 if end in ("mean", "amax") else 6 * (X.shape[2] - 2) * (X.shape[3] - 2), 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(ENDS[end](F.relu(self.conv(x))))

    model = settled(Ending())
    masks = ones(model)
    masks["conv.weight"][:2] = False
    assert check(model, masks, X).conv.out_channels == 4


def test_layers_that_share_a_weight_keep_their_channels() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
            self.three.weight = self.two.weight
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.three(F.relu(self.two(F.relu(self.one(x)))))).mean((2, 3)))

    model = settled(Tied())
    smaller = check(model, channel_masks(model, 0.5), X)
    assert smaller.two.weight is smaller.three.weight and smaller.two.weight.shape == (8, 8, 3, 3)


class Gated(nn.Module):
    """Squeeze and excitation: a product of channels with a gate of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.down, self.up, self.fc = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc((x * gate).mean((2, 3)))


class Joined(nn.Module):
    """An encoder and a decoder with a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.up, self.three, self.out = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        y = self.up(F.relu(self.two(F.max_pool2d(x, 2))))
        return self.out(F.relu(self.three(torch.cat([y, x], 1)))).flatten(1)


@pytest.mark.parametrize("kept", [0.8, 0.4])
@pytest.mark.parametrize("kind", [Gated, Joined])
def test_gates_and_concatenations(kind: type[nn.Module], kept: float) -> None:
    model = settled(kind())
    assert size(check(model, channel_masks(model, kept), X)) < size(model)
