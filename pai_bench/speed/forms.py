"""Forms of a pruned network: dense, masked, shrunk, and with the kernels for the pattern 2:4."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.pruning.flops import flops
from pai_bench.pruning.masking import apply_masks, remove_masks
from pai_bench.pruning.shrinking import shrink
from pai_bench.scoring.weights import prunable_weights

FORMS = ("dense", "masked", "shrunk", "2:4")
TWO_OF_FOUR = (8, 0)
"""Lowest compute capability with kernels for 2:4."""


@dataclass(frozen=True, eq=False)
class Form:
    """A network to measure, with its size."""

    name: str
    model: nn.Module
    parameters: int
    """Number of stored parameters; of a 2:4 weight, the kept half."""
    flops: int
    """Operations that the device executes for one sample; a masked network has those of the dense one."""


def check_forms(forms: tuple[str, ...], device: torch.device, dtype: torch.dtype) -> None:
    """Check that the device has kernels for all forms.

    Raises: PaiBenchError for an unknown form, and for 2:4 without a kernel.
    """
    for form in forms:
        if form not in FORMS:
            raise unknown("form", form, FORMS)
    if "2:4" not in forms:
        return
    remedy = "measure on an NVIDIA GPU of compute capability 8.0 or later, or leave 2:4 out of --forms"
    if device.type != "cuda":
        raise PaiBenchError(f"there is no kernel for 2:4 on the device {device.type}", remedy)
    if not torch.backends.cusparselt.is_available():
        raise PaiBenchError("there is no kernel for 2:4 in this build of torch, which lacks cuSPARSELt", remedy)
    capability = torch.cuda.get_device_capability(device)
    if capability < TWO_OF_FOUR:
        found = ".".join(map(str, capability))
        raise PaiBenchError(f"there is no kernel for 2:4 on a GPU of compute capability {found}", remedy)
    if dtype not in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        raise PaiBenchError(f"there is no kernel for 2:4 in {name}", "measure with --dtype float16 or bfloat16")


def build(
    form: str,
    model: nn.Module,
    masks: Mapping[str, Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Form:
    """Return a form, in eval mode on the device, of a float32 network on the CPU and masks (bool by name).

    Raises: PaiBenchError where the network has no such form.
    """
    made = {"dense": _dense, "masked": _masked, "shrunk": _shrunk, "2:4": _two_of_four}[form](model, masks, shape)
    return Form(form, made.model.eval().to(device, dtype), made.parameters, made.flops)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _dense_flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    return flops(model, {}, shape)[0]


def _dense(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Form:
    del masks
    return Form("", copy.deepcopy(model), _size(model), _dense_flops(model, shape))


def _masked(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Form:
    """Return the network with zeros in the place of pruned weights, without hooks."""
    masked = copy.deepcopy(model)
    apply_masks(masked, masks)
    remove_masks(masked)
    return Form("", masked, _size(masked), _dense_flops(model, shape))


def _shrunk(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Form:
    smaller = shrink(model, masks, torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    return Form("", smaller, _size(smaller), _dense_flops(smaller, shape))


class _Converted(nn.Module):
    """A 2:4 network, whose weights are compressed on the device that it is moved to."""

    def __init__(self, model: nn.Module, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self._layers = model, layers

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Converted:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        first = next(self.model.parameters())
        # Compression needs a GPU and half precision, and a device and a dtype may be set in two calls.
        if first.device.type == "cuda" and first.dtype != torch.float32:
            for name in self._layers:
                layer = self.model.get_submodule(name)
                weight = layer.get_parameter("weight").detach()
                with warnings.catch_warnings():
                    # Users of `pai-bench speed` do not call the interface of torch that may change.
                    warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
                    layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(weight), False)
            self._layers = ()
        return self

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.model(x)
        return found


def _two_of_four(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Form:
    """Return the network with compressed weights in the linear layers that have the pattern; torch has no other kernel.

    Raises: PaiBenchError if no layer has it.
    """
    masked = _masked(model, masks, shape)
    layers = tuple(
        name.removesuffix(".weight")
        for name in prunable_weights(masked.model)
        if name in masks and _fits(masked.model.get_submodule(name.rpartition(".")[0]), masks[name])
    )
    if not layers:
        raise PaiBenchError(
            "no linear layer has the pattern 2:4 and a shape with a kernel (multiples of 32 outputs and 64 inputs)",
            "prune with --granularity 2:4, or leave 2:4 out of --forms",
        )
    halves = {name: torch.zeros_like(mask) for name, mask in masks.items() if name.removesuffix(".weight") in layers}
    spared = (masked.flops - flops(model, halves, shape)[1]) // 2
    saved = sum(mask.numel() for mask in halves.values()) // 2
    return Form("", _Converted(masked.model, layers), masked.parameters - saved, masked.flops - spared)


def _fits(layer: nn.Module, mask: Tensor) -> bool:
    # Torch has 2:4 kernels for linear layers of these shapes only.
    if not isinstance(layer, nn.Linear) or mask.shape[0] % 32 or mask.shape[1] % 64:
        return False
    return bool(mask.view(len(mask), -1, 4).sum(2).max() <= 2)
