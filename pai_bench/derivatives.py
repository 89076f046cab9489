"""Second derivatives, and forward passes that can be repeated exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pai_bench.convolutions import InParts
from pai_bench.double_backward import LeanDoubleBackward


def gradient(loss: Callable[[], Tensor], leaves: Sequence[Tensor], *, graph: bool = False) -> list[Tensor]:
    """The derivative of what `loss` computes by leaf; with `graph` one that can be differentiated again, cheaply."""
    if graph:
        # Of the kernels of attention the plain one alone can be differentiated twice.
        with LeanDoubleBackward(), sdpa_kernel(SDPBackend.MATH):
            value = loss()
    else:
        with InParts():
            value = loss()
    return list(torch.autograd.grad(value, leaves, create_graph=graph, materialize_grads=True))


def hessian_product(slope: Sequence[Tensor], vector: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian of the loss whose gradient, made with a graph, is `slope`, times `vector`; frees the graph."""
    # A loss that is linear in a leaf has a gradient without a graph there, which counts as a zero Hessian.
    pairs = [(g, v) for g, v in zip(slope, vector, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outputs, weights = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, leaves, weights, materialize_grads=True))


KEPT_GRAPHS = 64 * 2**20
"""Bytes that the graphs of one `Graphs` may take."""


class Graphs:
    """Gradients that are differentiated later: their graphs are kept while there is room, and else made again then."""

    def __init__(self) -> None:
        self._room = KEPT_GRAPHS

    def gradient(
        self, make: Callable[[bool], list[Tensor]], device: torch.device
    ) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
        """The gradient that `make(graph)` gives, without a graph, and a function that gives it with one, once.

        `make` may draw random numbers (dropout, Python's, NumPy's): the same ones both times.
        """
        restore = random_state(device)
        with saved_bytes() as size:
            made = make(self._room > 0)
        self._room -= size()
        values = [tensor.detach() for tensor in made]
        if self._room >= 0:
            return values, lambda: made

        def again() -> list[Tensor]:
            restore()
            return make(True)

        return values, again


@contextmanager
def saved_bytes() -> Iterator[Callable[[], int]]:
    """Count the memory of the tensors that graphs made inside save for the way back; shared ones once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


def in_one_block(tensors: Sequence[Tensor], count: int) -> Iterator[list[Tensor]]:
    """`count` lists of new tensors of these shapes and of the first one's type, all in one block of memory.

    What is kept between large tensors that come and go lies in the places that those leave, which then are too small
    for the next ones: the heap grows with what is kept, many times over.
    """
    sizes = [tensor.numel() for tensor in tensors]
    for row in tensors[0].new_empty(max(0, count), sum(sizes)):
        # Detached: autograd refuses to change views that were made several at a time.
        yield [part.detach().view_as(tensor) for part, tensor in zip(row.split(sizes), tensors, strict=True)]


def random_state(device: torch.device) -> Callable[[], None]:
    """Note where the global random streams stand, which a forward pass may draw from; a call of the result puts them
    back there."""
    host, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        torch.set_rng_state(host)
        random.setstate(python)
        np.random.set_state(legacy)
        if accelerator is not None:
            torch.cuda.set_rng_state(accelerator, device)

    return restore
