"""Replacement of a model's ReLUs, which are recognised by the function that they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.scoring.compositions import Compositions
from pai_bench.scoring.function_overrides import FunctionOverrides

Gate = Callable[[Tensor, float], Tensor]
"""(input u, cap) -> output in the place of min(max(u, 0), cap)."""

_OTHERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Abs": (torch.abs, torch.abs_, torch.absolute, Tensor.abs, Tensor.abs_, Tensor.absolute, Tensor.absolute_),
    "CELU": (F.celu, torch.celu, torch.celu_),
    "Cosine": (torch.cos, torch.cos_, Tensor.cos, Tensor.cos_),
    "ELU": (F.elu, F.elu_),
    "GELU": (F.gelu,),
    "GLU": (F.glu,),
    "Hardshrink": (F.hardshrink, torch.hardshrink, Tensor.hardshrink),
    "Hardsigmoid": (F.hardsigmoid,),
    "Hardswish": (F.hardswish,),
    "LogSigmoid": (F.logsigmoid,),
    "Mish": (F.mish,),
    "RReLU": (F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_),
    "SELU": (F.selu, torch.selu, torch.selu_),
    "SiLU": (F.silu,),
    "Sigmoid": (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid),
    "Sine": (torch.sin, torch.sin_, Tensor.sin, Tensor.sin_),
    "Softplus": (F.softplus,),
    "Softshrink": (F.softshrink,),
    "Softsign": (F.softsign,),
    "Tanh": (torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.tanh),
    "Tanhshrink": (F.tanhshrink,),
}


def refusal(layer: str, what: str) -> PaiBenchError:
    """Return the error for a network that computes something other than ReLUs in the layer (or "" for the model)."""
    where = f"layer {layer}" if layer else "the model"
    return PaiBenchError(
        f"px is defined for networks of ReLUs, and {where} computes {what}",
        "use ReLU there, or score with another method (snip, synflow, prospr)",
    )


class Relus(FunctionOverrides):
    """Context in which `gate` replaces every ReLU and ReLU6 of `model`, under any name that the model calls it by.

    A threshold of 0, a leaky ReLU of slope 0, a PReLU of weights 0, a clamp at 0, a maximum with zeros and compositions
    with a comparison with 0 (`x * (x > 0)`, `torch.where(x > 0, x, 0)`, `x.masked_fill(x < 0, 0)`) are ReLUs. For
    compositions that are not recognised see `pai_bench.scoring.relu_networks`.

    Raises: PaiBenchError, that names the layer, when the model computes another activation.
    """

    def __init__(self, model: nn.Module, gate: Gate) -> None:
        self._model, self._gate = model, gate
        self._layers: list[str] = []
        self._handles: list[Any] = []
        self._compositions = Compositions(self._apply)
        super().__init__({**self._table(), **self._compositions.table()})

    def __enter__(self) -> Relus:
        for name, module in self._model.named_modules():
            self._handles += [
                module.register_forward_pre_hook(lambda *_, name=name: self._layers.append(name)),
                module.register_forward_hook(lambda *_: self._leave(), always_call=True),
            ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def _leave(self) -> None:
        self._layers.pop()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        while self._handles:
            self._handles.pop().remove()
        self._compositions.clear()

    def _apply(self, input: Tensor, inplace: bool, cap: float = math.inf) -> Tensor:
        output = self._gate(input, cap)
        # A model may use the input again, which an in-place ReLU changes.
        return input.copy_(output) if inplace and output is not input else output

    def _refuse(self, what: str) -> PaiBenchError:
        return refusal(next((name for name in reversed(self._layers) if name), ""), what)

    def _table(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        def relu(input: Tensor, inplace: bool = False) -> Tensor:
            return self._apply(input, inplace)

        def relu_in_place(input: Tensor) -> Tensor:
            return self._apply(input, True)

        def relu6(input: Tensor, inplace: bool = False) -> Tensor:
            return self._apply(input, inplace, 6.0)

        def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
            if min_val != 0:
                raise self._refuse(f"Hardtanh({min_val:g}, {max_val:g})")
            return self._apply(input, inplace, float(max_val))

        def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
            if threshold != 0 or value != 0:
                raise self._refuse(f"Threshold({threshold:g}, {value:g})")
            return self._apply(input, inplace)

        def leaky(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
            if negative_slope != 0:
                raise self._refuse(f"LeakyReLU({negative_slope:g})")
            return self._apply(input, inplace)

        def prelu(input: Tensor, weight: Tensor) -> Tensor:
            if weight.any():
                raise self._refuse("PReLU with weights that are not 0")
            return self._apply(input, False)

        def clamp(function: Callable[..., Tensor], inplace: bool) -> Callable[..., Tensor]:
            def clamped(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
                plain = not isinstance(min, Tensor) and not isinstance(max, Tensor)
                # Bounds that are tensors may differ by element.
                if plain and min == 0 and (max is None or max > 0):
                    return self._apply(input, inplace, math.inf if max is None else float(max))
                return function(input, min, max) if max is not None else function(input, min=min)

            return clamped

        def least(function: Callable[..., Tensor], inplace: bool) -> Callable[..., Tensor]:
            def at_least(input: Tensor, min: Any) -> Tensor:
                if not isinstance(min, Tensor) and min == 0:
                    return self._apply(input, inplace)
                return function(input, min)

            return at_least

        def refusing(name: str) -> Callable[..., Any]:
            def other(*_: Any, **__: Any) -> Any:
                raise self._refuse(name)

            return other

        table: dict[Callable[..., Any], Callable[..., Any]] = {}
        for name, functions in _OTHERS.items():
            table |= dict.fromkeys(functions, refusing(name))
        table |= dict.fromkeys((F.relu, torch.relu, Tensor.relu), relu)
        table |= dict.fromkeys((F.relu_, torch.relu_, Tensor.relu_), relu_in_place)
        table |= {F.relu6: relu6, F.hardtanh: hardtanh, F.prelu: prelu, torch.prelu: prelu, Tensor.prelu: prelu}
        table |= {F.threshold: threshold, torch.threshold: threshold, F.leaky_relu: leaky}
        table |= {F.hardtanh_: lambda *a, **k: hardtanh(*a, **{**k, "inplace": True})}
        table |= {F.leaky_relu_: lambda *a, **k: leaky(*a, **{**k, "inplace": True})}
        table |= {f: lambda *a, **k: threshold(*a, **{**k, "inplace": True}) for f in (torch.threshold_,)}
        table |= {f: clamp(f, False) for f in (torch.clamp, Tensor.clamp, torch.clip, Tensor.clip)}
        table |= {f: clamp(f, True) for f in (torch.clamp_, Tensor.clamp_)}
        table |= {f: least(f, False) for f in (torch.clamp_min, Tensor.clamp_min)}
        table |= {f: least(f, True) for f in (torch.clamp_min_, Tensor.clamp_min_)}
        logs = (F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax)
        # A log-softmax at the end shifts all logits of a sample alike, and does not count as an activation.
        table |= dict.fromkeys(logs, lambda input, *_, **__: input)
        return table


def noting(gates: list[Tensor]) -> Gate:
    """Return the ReLU itself, which adds to `gates` the places where its derivative is one."""

    def relu(u: Tensor, cap: float) -> Tensor:
        gates.append(u > 0)
        if cap == math.inf:
            return u * gates[-1]
        gates[-1] &= u < cap
        return u.clamp(0, cap)

    return relu
