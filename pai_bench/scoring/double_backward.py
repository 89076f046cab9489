"""Convolutions, BatchNorm and ReLU whose second derivatives take little time and memory, and activations without any.

PyTorch composes those of BatchNorm of some thirty operations with as many tensors of the size of the activations, takes
a convolution's weight gradient by convolving with kernels of the size of the image, and adds a tensor of zeros for each
ReLU. Here BatchNorm's are two linear combinations of what is there anyway, with coefficients by channel, a
convolution's are four calls of the kernels that training uses, and a ReLU's is its mask. PyTorch has no second
derivative of hardsigmoid at all (MobileNetV3): it is zero on both sides of the kinks; and that of `normalize` is NaN at
vectors of zeros, where the function is linear (padded tokens of Swin v2). First derivatives in float64 are exact too:
PyTorch rounds the factor 1/6 of hardsigmoid, and those of CELU unless its alpha is 1, to float32 (errors of 1e-8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pai_bench.scoring.convolutions import IN_PARTS, along, convolve, convolve_backward
from pai_bench.scoring.function_overrides import FunctionOverrides
from pai_bench.scoring.transforms import is_transformed

aten = torch.ops.aten


class LeanDoubleBackward(FunctionOverrides):
    """Context in which convolutions, BatchNorm in train mode and ReLU have cheap second derivatives, and no third ones.

    Hardsigmoid can be differentiated twice too, and `normalize` also at vectors of zeros. Inside a transform of
    torch.func (vmap, grad, …), which takes no such functions, PyTorch's own are computed.
    """

    def __init__(self) -> None:
        super().__init__({plain: _outside_transforms(plain, lean) for plain, lean in _LEAN.items()})


class FirstDerivatives(FunctionOverrides):
    """Context for first derivatives: convolutions a few images at a time, hardsigmoid and CELU to the last bit."""

    def __init__(self) -> None:
        super().__init__({**IN_PARTS, **{plain: _outside_transforms(plain, exact) for plain, exact in _EXACT.items()}})


def _outside_transforms(plain: Callable[..., Tensor], lean: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `lean`, and inside a transform of torch.func `plain`."""

    def function(*args: Any, **kwargs: Any) -> Tensor:
        return (plain if is_transformed() else lean)(*args, **kwargs)

    return function


def _convolution(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the convolution `plain` of torch.nn.functional."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        # The ATen operation takes neither padding by name nor inputs without a batch dimension.
        if isinstance(padding, str) or input.dim() != weight.dim():  # or without a batch dimension
            return plain(input, weight, bias, stride, padding, dilation, groups)
        dimensions = weight.dim() - 2
        options = [along(value, dimensions) for value in (stride, padding, dilation)]
        result: Tensor = _Convolution.apply(input, weight, bias, (*options, False, [0] * dimensions, groups))
        return result

    return convolution


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
    result: Tensor = _BatchNorm.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return result


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    result: Tensor = F.relu(x, inplace=True) if inplace else _ReLU.apply(x)
    return result


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    result: Tensor = _HardSigmoid.apply(x)
    return x.copy_(result) if inplace else result


def _celu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    result = F.elu(x / alpha) * alpha
    return x.copy_(result) if inplace else result


def _normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    if out is not None or not input.is_floating_point():
        return F.normalize(input, p, dim, eps, out)
    zeros = (input == 0).all(dim, keepdim=True)
    # Near 0 the norm is below eps, which divides instead.
    # The 1 keeps the derivative of the norm finite: `where` multiplies the unused branch by zero, and 0 x NaN is NaN.
    return torch.where(zeros, input / eps, F.normalize(torch.where(zeros, 1, input), p, dim, eps))


_EXACT: dict[Callable[..., Any], Callable[..., Any]] = {F.celu: _celu, F.hardsigmoid: _hardsigmoid}

_LEAN: dict[Callable[..., Any], Callable[..., Any]] = {
    **_EXACT,
    F.batch_norm: _batch_norm,
    F.conv1d: _convolution(F.conv1d),
    F.conv2d: _convolution(F.conv2d),
    F.conv3d: _convolution(F.conv3d),
    F.normalize: _normalize,
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
}


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = options
        return convolve(x, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        output_mask = ctx.needs_input_grad[:3]
        return *_ConvolutionBackward.apply(grad, *ctx.saved_tensors, ctx.options, output_mask), None


class _ConvolutionBackward(Function):
    """The derivative by input, weight and bias; linear in the gradient that comes in, and in each of the former two."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, options: Any, output_mask: Sequence[bool]) -> Any:
        ctx.save_for_backward(grad, x, weight)
        ctx.options = options
        # Missing gradients stay None, so that the products which they would only multiply by zero are not computed.
        ctx.set_materialize_grads(False)
        return tuple(convolve_backward(grad, x, weight, [weight.shape[0]], options, output_mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the derivative of the products of the first ones with u, p and q by gradient, input and weight."""
        grad, x, weight = ctx.saved_tensors
        by_grad = by_x = by_weight = None
        if u is not None:
            by_grad = convolve(u, weight, None, *ctx.options)
            _, by_weight, _ = convolve_backward(grad, u, weight, None, ctx.options, [False, True, False])
        if p is not None:
            more = convolve(x, p, q, *ctx.options)
            by_grad = more if by_grad is None else by_grad.add_(more)
            if ctx.needs_input_grad[1]:
                by_x, _, _ = convolve_backward(grad, x, p, None, ctx.options, [True, False, False])
        elif q is not None:
            # An expanded view is not writable, and nothing adds to it: this branch excludes the one with `p`.
            q = q.view([-1] + [1] * (x.dim() - 2)).expand_as(grad)
            by_grad = q if by_grad is None else by_grad.add_(q)
        return by_grad, by_x, by_weight, None, None


class _ReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # The output is saved instead of the input: the next layer saves it as well, and its sign gives the same mask.
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _ReLUBackward.apply(grad, *ctx.saved_tensors)


class _ReLUBackward(Function):
    """Gradient of ReLU: the incoming gradient where the output is positive, with a second derivative of zero."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor) -> Any:
        ctx.save_for_backward(y)
        return aten.threshold_backward(grad, y, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        return aten.threshold_backward(u, *ctx.saved_tensors, 0), None


class _HardSigmoid(Function):
    """min(max(x / 6 + 1/2, 0), 1); its derivative, a constant on each side of the kinks, can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # Bool takes one byte per element, the input would take four or eight.
        ctx.save_for_backward((x > -3) & (x < 3))
        return F.hardsigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (between,) = ctx.saved_tensors
        slope: Tensor = grad * between * (1 / 6)
        return slope


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Tensor:
        running_mean, running_var, momentum, eps = rest
        y, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = _BatchNormBackward.apply(grad, *ctx.saved_tensors)
        gradients = [value if needed else None for value, needed in zip(found, ctx.needs_input_grad, strict=False)]
        return *gradients, None, None, None, None


class _BatchNormBackward(Function):
    """The derivative by input, weight and bias; mean and scale (one over the deviation) are the input's."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor) -> Any:
        ctx.save_for_backward(grad, x, weight, mean, scale)
        return _native(grad, x, weight, mean, scale, [True, weight is not None, weight is not None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the derivatives by g, x and weight of the products of the first derivatives with u, p and q.

        With z = (x - mean) scale, means <.> over all dimensions but the channels, and g the incoming gradient, the
        first derivatives are weight scale (g - <g> - z <gz>), n <gz> and n <g>.
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

        # In x and not in z, whose mean is moved to the constants: z would be one more tensor of this size.
        dg = (u * channels(gain)).addcmul_(x, channels(by_g))
        dg += channels((0 if q is None else q) - gain * u_ - by_g * mean)
        dx = (g * channels(by_g)).addcmul_(u, channels(by_u)).addcmul_(x, channels(by_x))
        dx += channels(constant)
        return dg, dx, None if weight is None else n * scale * left, None, None


def _means(a: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return <a (x - mean) scale> and <a> by channel through BatchNorm's gradient, which needs no large product."""
    n = x.numel() // x.shape[1]
    # These do not depend on the weight, but on a GPU PyTorch takes their dtype from it.
    _, products, sums = _native(a, x, scale, mean, scale, [False, True, True])
    return products / n, sums / n


def _native(a: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, output_mask: list[bool]) -> Any:
    # In train mode the saved mean and scale are used: running statistics and eps (0.0) have no effect.
    return aten.native_batch_norm_backward(a, x, weight, None, None, mean, scale, True, 0.0, output_mask)
