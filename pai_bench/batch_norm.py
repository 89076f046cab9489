"""BatchNorm on batch statistics whose second derivatives take little time and next to no memory.

PyTorch composes them of some thirty operations with a dozen tensors of the size of the activations; a fifth of
ProsPr's time, and what its peak of memory is made of. Here they are two linear combinations of what is there anyway,
with coefficients by channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class LeanBatchNorm(TorchFunctionMode):
    """Inside, `batch_norm` in train mode can be differentiated twice at low cost; the same function otherwise."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return _batch_norm(*args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training or x.numel() <= x.shape[1]:  # of one value a channel PyTorch complains
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    result: Tensor = _Forward.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return result


class _Forward(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Tensor:
        running_mean, running_var, momentum, eps = rest
        y, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = _Backward.apply(grad, *ctx.saved_tensors)
        wanted = [value if needed else None for value, needed in zip(found, ctx.needs_input_grad, strict=False)]
        return *wanted, None, None, None, None


class _Backward(Function):
    """The derivative by input, weight and bias; mean and scale (one over the deviation) are the input's."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor) -> Any:
        ctx.save_for_backward(grad, x, weight, mean, scale)
        return _native(grad, x, weight, mean, scale, [True, weight is not None, weight is not None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        """With z = (x - mean) scale, means <.> over all but the channels, and g the gradient that came in:

        the first derivatives are weight scale (g - <g> - z <gz>), n <gz> and n <g>; what follows is the derivative of
        their products with u, p and q by g, x and weight.
        """
        g, x, weight, mean, scale = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        gz, g_ = _means(g, x, mean, scale)
        uz, u_ = _means(u, x, mean, scale)
        ug, _ = _means(u, g, torch.zeros_like(mean), torch.ones_like(scale))
        gain = scale if weight is None else weight * scale
        left = ug - u_ * g_ - uz * gz
        by_g = scale * ((0 if p is None else p) - gain * uz)
        by_u = -gain * scale * gz
        by_x = -scale * (by_g * gz + by_u * uz + gain * scale * left)
        constant = -by_g * g_ - by_u * u_ - by_x * mean
        along = [1, -1] + [1] * (x.dim() - 2)

        def channels(values: Tensor) -> Tensor:
            return values.view(along)

        dg = (u * channels(gain)).addcmul_(x, channels(by_g))
        dg += channels((0 if q is None else q) - gain * u_ - by_g * mean)
        dx = (g * channels(by_g)).addcmul_(u, channels(by_u)).addcmul_(x, channels(by_x))
        dx += channels(constant)
        return dg, dx, None if weight is None else n * scale * left, None, None


def _means(a: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """<a (x - mean) scale> and <a> by channel, without a product of their size: they are BatchNorm's own gradients."""
    n = x.numel() // x.shape[1]
    _, products, sums = _native(a, x, None, mean, scale, [False, True, True])
    return products / n, sums / n


def _native(a: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, wanted: list[bool]) -> Any:
    return torch.ops.aten.native_batch_norm_backward(a, x, weight, None, None, mean, scale, True, 0.0, wanted)
