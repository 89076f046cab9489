"""Second derivatives, and forward passes that can be repeated exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from pai_bench.core.randomness import random_state
from pai_bench.errors import PaiBenchError
from pai_bench.scoring.double_backward import FirstDerivatives, LeanDoubleBackward


def gradient(loss: Callable[[], Tensor], leaves: Sequence[Tensor], *, graph: bool = False) -> list[Tensor]:
    """Return the gradient of `loss` by leaf; with `graph` it can be differentiated again, with little memory."""
    if graph:
        # The plain kernel of attention is the only one that can be differentiated twice.
        with LeanDoubleBackward(), sdpa_kernel(SDPBackend.MATH):
            value = loss()
    else:
        # The cheap second derivatives are of no use here; chunks save time and memory of the first ones.
        with FirstDerivatives():
            value = loss()
    found = list(torch.autograd.grad(value, leaves, create_graph=graph, materialize_grads=True))
    # Torch would not raise: such a node leads to no leaf, and torch treats a missing gradient as zero.
    if graph and any(type(node).__name__ == "Error" for node in _nodes(found)):
        raise RuntimeError(f"trying to differentiate twice a function that was {_ONCE_ONLY}")
    return found


def hessian_product(
    slope: Sequence[Tensor], vector: Sequence[Tensor], leaves: Sequence[Tensor], *, retain: bool = False
) -> list[Tensor]:
    """Return the Hessian of the loss whose gradient, made with a graph, is `slope`, times `vector`.

    Frees the graph unless `retain` is True.
    """
    # A loss that is linear in a leaf has a gradient without a graph there, which counts as a zero Hessian.
    pairs = [(g, v) for g, v in zip(slope, vector, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outputs, weights = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, leaves, weights, retain_graph=retain, materialize_grads=True))


KEPT_GRAPHS = 64 * 2**20
"""Bytes that the graphs of one `Graphs` may take."""


class Graphs:
    """Gradients that are differentiated later: their graphs are kept while there is room, and else made again then."""

    def __init__(self) -> None:
        self._room = KEPT_GRAPHS

    def gradient(
        self, make: Callable[[bool], list[Tensor]], device: torch.device
    ) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
        """Return the gradient that `make(graph)` gives, without a graph, and a function that gives it with one, once.

        `make` may draw random numbers (dropout, Python's, NumPy's): the same ones both times.
        """
        # The second forward pass must draw the same numbers, or its graph would belong to another loss.
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
    """Count the memory of the tensors that graphs made inside save for the backward pass; shared ones count once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # By address, because several nodes may save views of one storage.
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


def in_one_block(tensors: Sequence[Tensor], count: int) -> Iterator[list[Tensor]]:
    """Yield `count` lists of new tensors of these shapes and the type of the first one, all in one block of memory.

    Small tensors that outlive large temporary ones would fragment the heap: the freed gaps become too small for the
    next large tensors, and the heap grows by many times the size of the small ones.
    """
    sizes = [tensor.numel() for tensor in tensors]
    for row in tensors[0].new_empty(max(0, count), sum(sizes)):
        # Detached: autograd refuses to change views that were made several at a time.
        yield [part.detach().view_as(tensor) for part, tensor in zip(row.split(sizes), tensors, strict=True)]


_NO_DERIVATIVE = re.compile(r"derivative for '?(?:aten::)?(\w+?)_backward\w*'? is not implemented")
_ONCE_ONLY = "marked with @once_differentiable"


def no_second_derivative(method: str, error: RuntimeError, model: nn.Module, x: Tensor) -> PaiBenchError | None:
    """Return the error for an operation that torch cannot differentiate twice, with its layer; None for other errors.

    `x` is an input of the model, which computes it once more to find the layer.
    """
    match = _NO_DERIVATIVE.search(str(error))
    # PyTorch raises plain RuntimeErrors here: only the text tells them apart.
    if match is None and _ONCE_ONLY not in str(error):
        return None
    operation = match[1].lstrip("_") if match else "a custom autograd function"
    place = layer_that_calls(match[1] if match else None, model, x)
    return PaiBenchError(
        f"method {method} needs a second derivative that torch does not have: {operation}, in {place}",
        "score with a method of first derivatives (snip, force, synflow, …), or replace that operation",
    )


def layer_that_calls(operation: str | None, model: nn.Module, x: Tensor) -> str:
    """Return the innermost layer that uses an operation (None: a custom autograd function)."""
    found: list[str] = []
    handles = []

    def is_searched(node: Any) -> bool:
        if operation is None:
            forward = getattr(node, "_forward_cls", None)  # of custom functions alone
            return forward is not None and hasattr(forward.backward, "__wrapped__")
        return bool(re.sub(r"Backward\d*$", "", node.name()).lower() == operation.replace("_", "").lower())

    for name, module in model.named_modules():

        def look(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            if not found and any(map(is_searched, _nodes(output, set(_nodes((args, kwargs)))))):
                found.append(f"layer {name} ({type(module).__name__})" if name else f"{type(module).__name__}.forward")

        handles.append(module.register_forward_hook(look, with_kwargs=True))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss"


def _nodes(tensors: Any, known: Iterable[Any] = ()) -> Iterator[Any]:
    """Yield the graph nodes of (nested) tensors, except `known` nodes and nodes reached only through them."""
    seen = set(known)
    waiting = [tensor.grad_fn for tensor in tree_leaves(tensors) if isinstance(tensor, Tensor)]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [next_node for next_node, _ in node.next_functions]
