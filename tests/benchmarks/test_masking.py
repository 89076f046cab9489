"""A training step under `apply_masks`: zeros at every forward pass, beside masked gradients alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.pruning.mask_hooks import after_step, layer_masks
from tests.benchmarks.conftest import Compare


def stepper(device: torch.device, size: int, *, zeros: bool, backward: bool = True) -> Callable[[], None]:
    """A training step (or a forward pass) of ResNet-20 under masks; without `zeros`, its gradients alone are masked."""
    model, masks = masked(device)
    if not zeros:
        pai_bench.remove_masks(model)
        for name, mask in masks.items():
            removed = ~mask.to(device)
            model.get_parameter(name).register_hook(lambda g, removed=removed: g.masked_fill(removed, 0))
    step, _ = stepping(model, device, size)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    x = torch.randn(size, 3, 32, 32, device=device)
    return step if backward else forward


def stepping(model: nn.Module, device: torch.device, size: int) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """A training step of a model on random images, and its optimiser."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    x, y = torch.randn(size, 3, 32, 32, device=device), torch.arange(size, device=device) % 10

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()

    return step, optimiser


def masked(device: torch.device) -> tuple[nn.Module, dict[str, Tensor]]:
    """ResNet-20 under random masks, and these masks."""
    model = models.build("resnet20", 3, 32, 10).to(device)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.1 for n, p in model.named_parameters() if p.dim() > 1}
    pai_bench.apply_masks(model, masks)
    return model, masks


def test_training_under_applied_masks(compare: Compare, device: torch.device, measuring: bool) -> None:
    size = 32 if measuring else 2
    compare(
        stepper(device, size, zeros=True),
        stepper(device, size, zeros=False),
        "x a step with masked gradients alone",
        rounds=9,
        most=1.05,
    )


def test_hooks_of_masks_without_masked_gradients(compare: Compare, device: torch.device, measuring: bool) -> None:
    """All that masks add to a step but the mask of the gradients: before the forward pass and after the update."""
    model, _ = masked(device)
    step, optimiser = stepping(model, device, 32 if measuring else 2)
    step()
    before = [hook for hook in model._forward_pre_hooks.values() if hasattr(hook, "__self__")]
    after = [hook for hook in model._forward_hooks.values() if hasattr(hook, "__self__")]
    layers = list(layer_masks(model))

    def hooks() -> None:
        for hook in before:
            hook(model, None)
        for layer, mask in layers:
            mask(layer, None)
        for hook in after:
            hook(model, None, None)
        after_step(optimiser, None, None)

    compare(hooks, step, "x a training step under masks", rounds=9, most=0.05)


def test_smallest_forward_pass_under_applied_masks(compare: Compare, device: torch.device) -> None:
    compare(
        stepper(device, 1, zeros=True, backward=False),
        stepper(device, 1, zeros=False, backward=False),
        "x a forward pass of one image without masks",
        rounds=31,
    )
