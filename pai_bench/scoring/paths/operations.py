"""ATen operations, grouped by their rule in a path network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

UNARY = {
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
ALIASES = {"alias", "detach", "lift_fresh", "neg", "positive", "abs"}
SHAPES = {
    *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "split"),
    *("split_with_sizes", "unbind", "squeeze", "unsqueeze", "clone", "_to_copy", "flip", "roll", "repeat"),
    *("as_strided", "overlay", "cat", "stack", "constant_pad_nd", "index", "gather", "unfold", "pixel_shuffle"),
}
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
