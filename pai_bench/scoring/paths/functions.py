"""The values of path networks: flows of positive numbers, and plain reachability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from pai_bench.errors import PaiBenchError
from pai_bench.scoring.paths.tracing import Node


class Halved(Function):
    """The identity, which passes on half of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / 2


class Unit(Function):
    """One in the place of a gate p, whose flow p dR/dp is half of the flow through the product."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        ctx.save_for_backward(p)
        return torch.ones_like(p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        # Where p = 0 there is no flow to pass on, and the quotient would be infinite or NaN.
        return torch.where(p > 0, grad / p / 2, torch.zeros_like(p))


class Rooted(Function):
    """The square root, with a derivative of zero at zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.clamp_min(0).sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        # At zero the derivative of the root is infinite, and infinity times a flow of zero would be NaN.
        return torch.where(root > 0, grad / root / 2, torch.zeros_like(root))


class Flow:
    """Positive numbers: parameters as they are given, which must not be negative."""

    def __init__(self, absolute_means: bool = True) -> None:
        """Take minus the absolute running means of norms as in SynFlow's code, or the running means as they are."""
        self.added: list[Tensor] = []
        """All that was added to signals: biases, class tokens."""
        self._absolute_means = absolute_means
        self._signed = False

    def constant(self, value: Tensor) -> Tensor:
        """Return the absolute value."""
        return value.abs() if value.is_floating_point() or value.is_complex() else value

    def bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the sum."""
        self.added.append(bias.expand_as(x))
        return x + self.added[-1]

    def deviation(self, variance: Tensor, eps: float) -> Tensor:
        """Return the root of the absolute variance."""
        return (variance.abs() + eps).sqrt()

    def centre(self, mean: Tensor, scale: Tensor) -> Tensor | None:
        """Return minus the (absolute) mean; None where it is 0, as before any training."""
        if not mean.is_meta and not mean.any():
            return None
        # From here on signals may be negative; until then a ReLU would only cost time.
        self._signed = True
        return -(mean.abs() if self._absolute_means else mean) * scale

    def activation(self, x: Tensor) -> Tensor:
        """Return the signal itself, or a ReLU where signals may be negative."""
        return x.relu() if self._signed else x

    def factor(self, x: Tensor) -> Tensor:
        """Return the signal itself, or a ReLU where signals may be negative, which would make scores negative."""
        return x.relu() if self._signed else x

    def joined(self, value: Tensor) -> Tensor:
        """Return the absolute value."""
        self.added.append(value.abs())
        return self.added[-1]

    def maximum(self, node: Node, arguments: Mapping[str, Any], signals: Sequence[Tensor]) -> Any:
        """Return the maximum or minimum of signals, which has degree one; one with a constant leaves the signal."""
        if node.name in ("maximum", "minimum", "fmax", "fmin"):
            return signals[0] if len(signals) == 1 else getattr(torch, node.name)(*signals)
        if "other" in arguments:
            return signals[0] if len(signals) == 1 else node.function(*signals)
        rest = {key: value for key, value in arguments.items() if key != "self"}
        return node.function(arguments["self"], **rest)

    def pooled(self, node: Node, arguments: Mapping[str, Any]) -> Any:
        """Return the max-pool itself."""
        return node.function(*arguments.values())

    def product(self, function: Callable[..., Any], a: Tensor, b: Tensor) -> Any:
        """Return the product of the roots: half of the flow goes to each."""
        return function(Rooted.apply(a), Rooted.apply(b))

    def done(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value

    def unknown(self, node: Node, values: Sequence[Tensor], cause: str) -> Sequence[Tensor] | None:
        """Return None: a replacement would have other scores, and the conservation law shows whether they are wrong.

        Raises: PaiBenchError that names an operation which cannot be computed.
        """
        if not cause:
            return None
        raise PaiBenchError(
            f"{f'layer {node.layer}' if node.layer else 'the model'} computes {node.name}, which has no rule in a"
            f" network of positive values: {cause.partition(chr(10))[0]}",
            "score with a method that uses data (snip, prospr), or change the layer",
        )


class _Reached(Function):
    """Function that is one where there is a path, in the forward and in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad > 0).to(grad.dtype)


class Reach:
    """Zeros and ones: one where a path of kept weights leads from the input."""

    def constant(self, value: Tensor) -> Tensor:
        """Return one where the value is not zero."""
        return (value != 0).to(value.abs().dtype) if value.is_floating_point() or value.is_complex() else value

    def bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the signal alone, because a bias does not begin a path."""
        del bias
        return x

    def deviation(self, variance: Tensor, eps: float) -> Tensor:
        """Return one."""
        return torch.ones_like(variance)

    def centre(self, mean: Tensor, scale: Tensor) -> Tensor | None:
        """Return None, because a mean does not begin a path."""
        return None

    def activation(self, x: Tensor) -> Tensor:
        """Return the signal itself."""
        return x

    def factor(self, x: Tensor) -> Tensor:
        """Return the signal itself."""
        return x

    def joined(self, value: Tensor) -> Tensor:
        """Return zeros, because a path does not begin there."""
        return torch.zeros_like(value)

    def maximum(self, node: Node, arguments: Mapping[str, Any], signals: Sequence[Tensor]) -> Any:
        """Return the sum, since any of the values may be the chosen one."""
        if "other" in arguments or node.name in ("maximum", "minimum", "fmax", "fmin"):
            return signals[0] if len(signals) == 1 else signals[0] + signals[1]
        dim = arguments.get("dim")
        total = signals[0].sum([] if dim is None else dim).reshape(node.shapes[0])
        return [total] * len(node.shapes)

    def pooled(self, node: Node, arguments: Mapping[str, Any]) -> Any:
        """Return the sum over each window."""
        x, shape = arguments["self"], node.shapes[0]
        if "adaptive" in node.name:
            average = F.adaptive_avg_pool2d if "2d" in node.name else F.adaptive_avg_pool3d
            return [average(x, arguments["output_size"]), None]
        rank = 3 if "3d" in node.name else 2
        sizes = {key: _along(arguments.get(key) or default, rank) for key, default in _POOL.items()}
        steps = _along(arguments["stride"], rank) if arguments.get("stride") else sizes["kernel_size"]
        pads: list[int] = []
        for axis in reversed(range(rank)):
            length = (
                (shape[axis - rank] - 1) * steps[axis] + sizes["dilation"][axis] * (sizes["kernel_size"][axis] - 1) + 1
            )
            before = sizes["padding"][axis]
            pads += [before, length - before - x.shape[axis - rank]]
        flat = F.pad(x, pads).reshape(-1, 1, *F.pad(x, pads).shape[-rank:])
        # Average pooling would need a product with the window's size, and has no dilation.
        window = torch.ones(1, 1, *sizes["kernel_size"], dtype=x.dtype)
        convolve = F.conv2d if rank == 2 else F.conv3d
        return [convolve(flat, window, None, steps, 0, sizes["dilation"]).reshape(shape), None]

    def product(self, function: Callable[..., Any], a: Tensor, b: Tensor) -> Any:
        """Return the product: there is a path where both are reached."""
        return function(a, b)

    def unknown(self, node: Node, values: Sequence[Tensor], cause: str) -> Sequence[Tensor]:
        """Return the sum of all values for each result: any element may depend on any other."""
        total = torch.stack([value.sum() for value in values]).sum()
        return [total.expand(shape) for shape in node.shapes]

    def done(self, value: Tensor) -> Tensor:
        """Return zeros and ones again, so that deep networks neither overflow nor underflow."""
        reached: Tensor = _Reached.apply(value)
        return reached


class PathCount(Reach):
    """Numbers of paths of kept weights from the input, all weights of zero or one, in float64."""

    def constant(self, value: Tensor) -> Tensor:
        """One where it is not zero."""
        return (value != 0).double() if value.is_floating_point() or value.is_complex() else value

    def done(self, value: Tensor) -> Tensor:
        """The number itself."""
        return value


_POOL = {"kernel_size": 1, "padding": 0, "dilation": 1}


def _along(value: int | Sequence[int], rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values
