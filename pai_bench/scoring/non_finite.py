"""Causes of scores that are NaN or infinite: values, data, a layer, or an operation without a derivative there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pai_bench.scoring.derivatives import layer_that_calls
from pai_bench.scoring.problem import Problem
from pai_bench.scoring.transforms import is_transformed

_RETURNED_NAN = re.compile(r"Function '(\w+)' returned nan values")
_INDUCED_BY = re.compile(r"induced by (\w+)")
_LINEAR = {"addmm", "mm", "bmm", "matmul", "convolution", "_convolution", "_convolutionbackward", "add", "sum", "mean"}
"""Operations whose derivatives are not finite only where numbers overflow."""


@dataclass(frozen=True)
class NotFinite:
    """Scores that are NaN or infinite, and all that is needed to find the cause."""

    problem: Problem
    state: Mapping[str, Tensor]
    """Parameters and buffers of the caller's model by name."""
    score: Callable[[], Any]
    """Repeats the scoring, which runs forward passes of the problem's model."""
    ways: Sequence[str]
    """Remedies for numbers that become too large with this method and type."""

    def reason(self) -> tuple[str, str]:
        """Return cause and remedy."""
        for name, value in self.state.items():
            if count := _count(value):
                return f"{name} has {_values(count)}", "draw or load the values of the model again before scoring"
        batches = list(self.problem.stream.drawn())
        for number, batch in enumerate(batches, start=1):
            if count := sum(map(_count, batch)):
                return (
                    f"scoring batch {number} has {_values(count)}",
                    "remove these samples, or correct how they are scaled",
                )
        layer, node = self._trace()
        if layer:
            ways = *self.ways, "change the inputs of that layer", "replace it"
            return f"{layer} returns NaN or infinity in the forward pass", one_of_several(ways)
        if node and node.lower() not in _LINEAR:
            where = layer_that_calls(node, self.problem.model, batches[0][0])
            operation = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.strip("_")).lower()
            others = "snip, force" if self._is_differentiable(*batches[0]) else "magnitude, erk"
            return (
                f"{operation} in {where} has a derivative that is not finite, as a root or a power has at 0",
                one_of_several(
                    ("add a small constant to its inputs", "replace it", f"score with another method ({others})")
                ),
            )
        kind = str(batches[0][0].dtype).removeprefix("torch.")
        return f"numbers exceed the range of {kind}", one_of_several((*self.ways, "scale the inputs down"))

    def _trace(self) -> tuple[str, str]:
        """Return the layer that first returns NaN or infinity, and the operation whose derivative first is NaN."""
        with _first_layer(self.problem.model) as found, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with torch.autograd.detect_anomaly(check_nan=True):
                    self.score()
            except RuntimeError as error:
                raised = _RETURNED_NAN.search(str(error))
            else:
                raised = None
        # A second derivative consists of many operations; the one that PyTorch differentiated for it is the user's.
        names = [raised[1]] if raised else []
        names += [name for warning in caught for name in _INDUCED_BY.findall(str(warning.message))]
        return "".join(found), re.sub(r"Backward\d*$", "", names[-1]) if names else ""

    def _is_differentiable(self, x: Tensor, y: Tensor) -> bool:
        """Return True if the gradient of the loss is finite."""
        weights = {name: w.detach().requires_grad_() for name, w in self.problem.dense_weights.items()}
        value = self.problem.loss(self.problem.forward(x, weights), y)
        return not any(map(_count, torch.autograd.grad(value, list(weights.values()), materialize_grads=True)))


def one_of_several(ways: Sequence[str]) -> str:
    """Return the ways as alternatives of one sentence."""
    return " or ".join(ways) if len(ways) < 3 else ", ".join(ways[:-1]) + f", or {ways[-1]}"


def _count(tensor: Tensor) -> int:
    """Return the number of values that are NaN or infinite."""
    return int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() or tensor.is_complex() else 0


def _values(count: int) -> str:
    return "a value that is NaN or infinite" if count == 1 else f"{count} values that are NaN or infinite"


@contextmanager
def _first_layer(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list to which the innermost layer is added that first returns NaN or infinity for finite inputs."""
    found: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def look(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            if not found and _any(output) and not _any((args, kwargs)):
                found.append(f"layer {name} ({type(module).__name__})" if name else f"{type(module).__name__}.forward")

        handles.append(module.register_forward_hook(look, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _any(tensors: Any) -> bool:
    if is_transformed():  # values inside of a transform cannot be read
        return False
    return any(isinstance(leaf, Tensor) and not leaf.is_meta and _count(leaf) for leaf in tree_leaves(tensors))
