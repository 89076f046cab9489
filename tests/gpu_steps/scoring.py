"""Time scoring in units of one pass, float64 convolutions by cuDNN and by products, and the threshold of a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.core.precision import float32_products
from pai_bench.experiment.cost import measured
from pai_bench.scoring.product_convolutions import GAIN, SAME, convolve, convolve_backward, gain, mechanism
from tests.gpu_steps.common import DEVICE, REAL, STUB, batch, interleaved, median_and_spread, network, record, seconds

SIZE = 128 if REAL else 4


def one_pass(model: nn.Module, x: Tensor, y: Tensor, products: str = "ieee") -> None:
    """Run one forward and backward pass."""
    model.zero_grad()
    with float32_products(products):
        F.cross_entropy(model(x), y).backward()


def in_passes() -> None:
    """Time the methods in units of an IEEE float32 pass of ResNet-20 at batch 128."""
    model, double = network(), network(dtype=torch.float64)
    data = [batch(SIZE, seed=seed) for seed in range(4)]
    grasp = [batch(100 if REAL else 4)]
    wide = (data[0][0].double(), data[0][1])
    works = {
        "pass ieee": lambda: one_pass(model, *data[0]),
        "pass tf32": lambda: one_pass(model, *data[0], products="tf32"),
        "pass float64": lambda: one_pass(double, *wide),
        "snip float32": lambda: pai_bench.score(model, data[:1], "snip", dtype="float32"),
        "grasp float32": lambda: pai_bench.score(model, grasp, "grasp", dtype="float32"),
        "synflow float32": lambda: pai_bench.prune(model, data[:1], "synflow", sparsity=0.98, dtype="float32"),
        "prospr float32": lambda: pai_bench.score(model, data, "prospr", dtype="float32"),
        "snip float64": lambda: pai_bench.score(model, data[:1], "snip"),
        "prospr float64": lambda: pai_bench.score(model, data, "prospr"),
    }
    found = interleaved(works, 20.0, rounds=3)  # type: ignore[arg-type]
    unit, _ = median_and_spread(found["pass ieee"])
    for name, samples in found.items():
        middle, spread = median_and_spread(samples)
        record("scoring", name=name, seconds=middle, units=middle / unit, spread=round(spread, 3))


def large_networks() -> None:
    """Time ProsPr's full meta-gradient for VGG-19 at batch 512 in float32 and float64, and SNIP of ResNet-50."""
    model = network("vgg19-bn" if REAL else "conv8")
    data = [batch(512 if REAL else 4, seed=seed) for seed in range(4)]
    for dtype in ("float32", "float64"):
        with measured(DEVICE) as cost:
            pai_bench.score(model, data, "prospr", dtype=dtype)
        record("prospr vgg19", dtype=dtype, seconds=cost.seconds, peak_bytes=cost.peak_bytes)
    size, side = (128, 224) if REAL else (2, 32)
    large = models.build("resnet50-imagenet", 3, side, 1000).to(DEVICE)
    images = torch.randn(size, 3, side, side, device=DEVICE), torch.arange(size, device=DEVICE)
    with measured(DEVICE) as cost:
        pai_bench.score(large, [images], "snip")
    record("snip resnet50", dtype="float64", batch=size, seconds=cost.seconds, peak_bytes=cost.peak_bytes)


def float64_convolutions() -> None:
    """Time forward and backward passes of float64 convolutions by cuDNN and by matrix products.

    The product is measured also for narrow layers, for which it is not used.
    """
    options = *SAME, False, [0, 0], 1
    wanted = [True, True, False]
    for channels, side in ((16, 32), (32, 16), (64, 32), (64, 8), (128, 16), (256, 8), (512, 4), (512, 2)):
        x = torch.randn(SIZE, channels, side, side, dtype=torch.float64, device=DEVICE)
        weight = torch.randn(channels, channels, 3, 3, dtype=torch.float64, device=DEVICE)

        def cudnn(x: Tensor = x, weight: Tensor = weight) -> None:
            out = torch.ops.aten.convolution(x, weight, None, *options)
            torch.ops.aten.convolution_backward(out, x, weight, None, *options, wanted)

        def product(x: Tensor = x, weight: Tensor = weight) -> None:
            convolve_backward(convolve(x, weight, None, SAME), x, weight, SAME, wanted)

        found = interleaved({"cudnn": cudnn, "product": product}, 2.0, rounds=3)
        times = {name: median_and_spread(samples)[0] for name, samples in found.items()}
        flops = 3 * 2 * SIZE * channels**2 * 9 * side**2
        record("float64 convolution", channels=channels, side=side, flops=flops, **times)
        if not REAL:
            break
    gains = [gain(DEVICE, images=64 if REAL else 1) for _ in range(3)]
    record("float64 choice", gains=gains, threshold=GAIN, mechanism=mechanism(DEVICE))


def thresholds() -> None:
    """Time three ways to find the threshold of 20 million float64 scores at 98 % sparsity."""
    n = 20_000_000 if REAL and not STUB else 2_000
    scores = torch.rand(n, dtype=torch.float64, device=DEVICE)
    dropped = int(0.98 * n)
    ways = {
        "kthvalue": lambda: scores.kthvalue(dropped + 1).values,
        "sort": lambda: scores.sort().values[dropped],
        "topk": lambda: scores.topk(n - dropped).values[-1],
    }
    values = {name: float(way()) for name, way in ways.items()}
    assert len(set(values.values())) == 1, values
    record("threshold", scores=n, **{name: seconds(way, 3) for name, way in ways.items()})


def main() -> None:
    """Run the step."""
    in_passes()
    thresholds()
    float64_convolutions()
    large_networks()


if __name__ == "__main__":
    main()
