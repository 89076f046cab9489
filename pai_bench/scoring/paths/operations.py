"""ATen operations, grouped by their rule in a path network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pai_bench.scoring.paths.tracing import Node, Slot

_CONJUGATES = {"_conj", "conj_physical", "_conj_physical", "resolve_conj", "_neg_view", "resolve_neg"}
UNARY = {
    *_CONJUGATES,
    *("abs", "acos", "acosh", "alias", "asin", "asinh", "atan", "atanh", "ceil", "celu", "clamp", "clamp_max"),
    *("clamp_min", "cos", "cosh", "detach", "digamma", "elu", "erf", "erfc", "erfinv", "exp", "exp2", "expm1"),
    *("fix", "floor", "frac", "gelu", "glu_jvp", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
    *("lgamma", "lift_fresh", "log", "log10", "log1p", "log2", "log_sigmoid", "log_sigmoid_forward", "logit", "mish"),
    *("nan_to_num", "native_dropout", "neg", "positive", "pow", "prelu", "_prelu_kernel", "relu", "relu6", "round"),
    *("rrelu", "rrelu_with_noise", "rrelu_with_noise_functional", "selu", "sgn", "sigmoid", "sign", "silu", "sin"),
    *("sinc", "sinh", "softplus", "softshrink", "sqrt", "square", "tan", "tanh", "threshold", "trunc"),
    *("_softmax", "_safe_softmax", "_log_softmax", "softmax", "log_softmax", "bernoulli", "atan2", "hypot"),
    *("special_erf", "special_entr", "special_log_ndtr", "floor_divide", "fmod", "remainder", "xlogy", "copysign"),
}
"""Operations whose first tensor argument passes through."""
ALIASES = {"alias", "detach", "lift_fresh", "neg", "positive", "abs", *_CONJUGATES}
SHAPES = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "split"),
    *("split_with_sizes", "unbind", "squeeze", "unsqueeze", "clone", "_to_copy", "flip", "roll", "repeat"),
    *("as_strided", "overlay", "cat", "stack", "constant_pad_nd", "index", "gather", "unfold", "pixel_shuffle"),
}
COMPLEX = {"view_as_real", "view_as_complex", "complex", "polar", "_fft_r2c", "_fft_c2r", "_fft_c2c"}
"""Operations between real and complex tensors, whose values are one positive number each."""
NORMS = {"native_layer_norm": -1, "native_group_norm": 1, "_fused_rms_norm": -1, "rms_norm": -1}
"""Norms and the dimension at which their parameters' dimensions begin: 1 or the last ones."""
PRODUCTS = {"mul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "convolution", "_trilinear"}
JOINS = {"cat", "stack", "copy", "slice_scatter", "select_scatter", "index_put", "scatter", "index_copy", "overlay"}
FACTORS = ("self", "other", "mat1", "mat2", "vec", "batch1", "batch2", "tensor")
MATRIX_PRODUCTS: dict[str, Callable[..., Any]] = {"addmm": torch.mm, "addmv": torch.mv, "baddbmm": torch.bmm}
MAXIMA = {"maximum", "minimum", "fmax", "fmin", "amax", "amin", "max", "min", "aminmax"}
MEANS = {"var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm", "prod"}
LINEAR = {
    *("mean", "sum", "cumsum", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "embedding"),
    *("adaptive_avg_pool1d", "avg_pool1d", "copy", "index_select", "reflection_pad1d", "reflection_pad2d", "im2col"),
    *("replication_pad1d", "replication_pad2d", "upsample_nearest2d", "upsample_bilinear2d", "pixel_unshuffle"),
    *("slice_scatter", "select_scatter", "index_put", "scatter", "tril", "triu", "diagonal", "masked_fill", "topk"),
    *("sort", "fill", "zero", "lerp", "addcmul", "addcdiv", "add", "sub", "rsub", "where", "div", "glu"),
}


_VIEWS: dict[Callable[..., Any], Callable[..., Any]] = dict.fromkeys(
    (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default), torch.ops.aten.reshape.default
)
"""Views as operations that copy where needed: values of the path network may be laid out otherwise than the signals."""


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Return the operation with arguments by the names of its schema, of which the first may not be given by name."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return function(**arguments)
    positional, named, open_ = [], {}, True
    for argument in schema.arguments:
        if argument.name not in arguments:
            open_ = False
        elif open_ and not argument.kwarg_only:
            positional.append(arguments[argument.name])
        else:
            named[argument.name] = arguments[argument.name]
    return _VIEWS.get(function, function)(*positional, **named)


def slots(node: Node) -> list[Slot]:
    """Return the recorded tensors among the arguments of a node; the weight of a product comes last."""
    parts = [
        part for value in node.arguments.values() for part in (value if isinstance(value, (list, tuple)) else [value])
    ]
    return [part for part in parts if isinstance(part, Slot)]


def rounds(name: str) -> bool:
    """Return True for the simulated quantisations, which round the values of a tensor."""
    return "fake_quant" in name or "fq_helper" in name


def mixes(name: str) -> bool:
    """Return True for factorisations, solutions and distances, whose results positive values do not describe."""
    return name in ("_cdist_forward", "inverse") or ("linalg_" in name and name != "linalg_vector_norm")


def complex_value(node: Node, parts: Sequence[Tensor]) -> Tensor:
    """Return the value of an operation of `COMPLEX`; Fourier transforms have the absolute values of their factors."""
    x, shape = parts[0], node.shapes[0]
    if node.name == "view_as_real":
        return x.unsqueeze(-1).expand(shape)
    if node.name == "view_as_complex":
        return x.sum(-1)
    if node.name in ("complex", "polar"):
        return torch.stack([part.expand(shape) for part in parts]).sum(0)
    dim = node.arguments["dim"]
    signal = shape if node.name == "_fft_c2r" else x.shape
    points = math.prod(signal[d] for d in dim)
    scale = (1.0, math.sqrt(points), float(points))[node.arguments["normalization"]]
    return x.sum(dim, keepdim=True).expand(shape) / scale
