"""What a mask does to a network: effective sparsity and arithmetic; what a piece of work costs."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pai_bench.host import return_freed
from pai_bench.path_functions import Reach
from pai_bench.path_network import replay
from pai_bench.tracing import Graph, trace
from pai_bench.weight_uses import weight_uses


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def effective_masks(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The kept weights that lie on a path of kept weights from the input to the output, bool by name.

    Vysogorets and Kempe 2023 (arXiv 2107.02306), on the path network of the model (see pai_bench.path_network) for one
    input of `shape` (without the batch dimension), in zeros and ones on the CPU. Weights that lie on no path of the
    dense network either (of a head that is used in training alone, or that see nothing but padding) count as
    effective, so that the dense network has an effective sparsity of 0.
    """
    graph, network = _graph(model, shape, torch.float64)
    ones = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    kept = {name: mask.detach().cpu() for name, mask in masks.items()}
    reached = _reached(graph, {**ones, **{name: mask.double() for name, mask in kept.items()}}, list(masks), shape)
    if any(bool((kept[name] & ~reached[name]).any()) for name in masks):
        dense = _reached(graph, ones, list(masks), shape)
        reached = {name: reached[name] | ~dense[name] for name in masks}
    return {name: mask & reached[name].to(mask.device) for name, mask in masks.items()}


def _graph(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Graph, nn.Module]:
    """The operations of a forward pass of one sample in eval mode, and the copy of the model on the CPU."""
    network = copy.deepcopy(model).cpu().to(dtype).eval()
    with torch.random.fork_rng(devices=[]):
        return trace(network, torch.ones(1, *shape, dtype=dtype)), network


def _reached(
    graph: Graph, parameters: Mapping[str, Tensor], names: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """The weights that a path through the network of these parameters (zeros and ones) uses, or would if kept."""
    leaves = {name: value.clone().requires_grad_(name in names) for name, value in parameters.items()}
    with torch.enable_grad():
        total = replay(graph, Reach(), leaves, torch.ones(1, *shape, dtype=torch.float64)).sum()
        if not total.requires_grad:
            return {name: torch.zeros_like(leaves[name], dtype=torch.bool) for name in names}
        weights = [leaves[name] for name in names]
        gradients = torch.autograd.grad(total, weights, materialize_grads=True)
    return {name: g > 0 for name, g in zip(names, gradients, strict=True)}


def flops(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[int, int]:
    """Floating point operations of one forward pass of one sample: dense, and with pruned weights left out.

    Two per multiply-add of a signal with a weight in convolutions and matrix products, however the model calls them, as
    torch.utils.flop_counter counts; nothing else is counted, nor are products of two signals (in attention).
    """
    graph, network = _graph(model, shape, torch.float32)
    parameters = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    parameters |= {name: mask.detach().cpu().float() for name, mask in masks.items()}
    with torch.no_grad():
        uses = weight_uses(graph, parameters)
    return 2 * sum(use.positions * use.size for use in uses), 2 * sum(use.positions * use.kept for use in uses)


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
