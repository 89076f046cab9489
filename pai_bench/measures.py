"""What a mask does to a network: effective sparsity and arithmetic; what a piece of work costs."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.host import return_freed
from pai_bench.outputs import logits
from pai_bench.replacing import IDENTITY_NORMS, Replacing
from pai_bench.scoring import PRUNABLE_MODULES


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def effective_masks(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The kept weights that lie on a path of kept weights from the input to the output, bool by name.

    Vysogorets and Kempe 2023 (arXiv 2107.02306). Every kept weight is set to one over its fan-in, biases and
    positions to zero, scales to one, norms are left out, and max-pools average, since of equal values they would pass
    on one alone; a weight matters if the summed output for an all-ones input of `shape` (without the batch dimension)
    depends on it.
    """
    network = copy.deepcopy(model).double().eval().requires_grad_(True)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            kind = name.rpartition(".")[2]
            if name in masks:
                parameter.copy_(masks[name].double() / max(1, parameter[0].numel()))
            elif "weight" in kind and parameter.ndim > 1:  # of a layer that is not prunable
                parameter.fill_(1 / max(1, parameter[0].numel()))
            else:
                parameter.fill_(float(parameter.ndim == 1 and "bias" not in kind))
    device = next(network.parameters()).device
    with Replacing({**IDENTITY_NORMS, **_AVERAGES}):
        output = logits(network(torch.ones(1, *shape, dtype=torch.float64, device=device))).sum()
    weights = [parameters[name] for name in masks]
    if not output.requires_grad:
        return {name: torch.zeros_like(mask) for name, mask in masks.items()}
    gradients = torch.autograd.grad(output, weights, materialize_grads=True)
    return {name: mask & (g != 0) for (name, mask), g in zip(masks.items(), gradients, strict=True)}


def _average(pool: Callable[..., Tensor], average: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The max-pool `pool` of torch.nn.functional, as the average-pool of the same windows."""

    def pooled(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if dilation != 1:
            return pool(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return average(input, kernel_size, stride or kernel_size, padding, ceil_mode)

    return pooled


def _adaptive_average(average: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The adaptive max-pool, as the adaptive average-pool of the same windows."""

    def pooled(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        del return_indices
        return average(input, output_size)

    return pooled


_AVERAGES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.max_pool1d: _average(F.max_pool1d, F.avg_pool1d),
    F.max_pool2d: _average(F.max_pool2d, F.avg_pool2d),
    F.max_pool3d: _average(F.max_pool3d, F.avg_pool3d),
    F.adaptive_max_pool1d: _adaptive_average(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: _adaptive_average(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: _adaptive_average(F.adaptive_avg_pool3d),
}


def flops(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[int, int]:
    """Floating point operations of one forward pass of one sample: dense, and with pruned weights left out.

    Two per multiply-add of the conv and linear layers, that at the end of torch's attention too; nothing else is
    counted.
    """
    network = copy.deepcopy(model).eval()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    totals = [0, 0]

    def add(weight: Any, output: Tensor) -> None:
        # Each weight is used once per position of the output (of the input, when transposed).
        positions = output.numel() // weight.shape[0]
        totals[0] += 2 * positions * weight.numel()
        mask = masks.get(names[id(weight)])
        totals[1] += 2 * positions * (weight.numel() if mask is None else int(mask.sum()))

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if isinstance(module, nn.MultiheadAttention):
            add(module.out_proj.weight, output[0])  # whose forward it does not call
        else:
            transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
            add(module.weight, inputs[0] if transposed else output)

    kinds = (*PRUNABLE_MODULES, nn.MultiheadAttention)
    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    parameter = next(network.parameters())
    with torch.no_grad():
        network(torch.ones(1, *shape, dtype=parameter.dtype, device=parameter.device))
    for handle in handles:
        handle.remove()
    return totals[0], totals[1]


@dataclass
class Cost:
    """Wall seconds, and the peak of memory in bytes above its start (None where it cannot be measured)."""

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure what happens inside; the yielded Cost is filled in at the end."""
    cost = Cost()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start: int | None = torch.cuda.memory_allocated(device)
    else:
        start = _reset_peak()
    began = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - began
        if cuda:
            cost.peak_bytes = torch.cuda.max_memory_allocated(device) - (start or 0)
        elif start is not None:
            peak = _status("VmHWM")
            cost.peak_bytes = None if peak is None else max(0, peak - start)


def _reset_peak() -> int | None:
    """Reset the process's own high-water mark (Linux); returns the resident bytes now."""
    return_freed()  # what is kept of earlier work would hide the same amount of new memory
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
