"""ReLUs that are composed of a comparison with zero and a product or a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_Function = Callable[..., Any]

_GREATER: tuple[_Function, ...] = (torch.gt, torch.ge, torch.greater, torch.greater_equal)
_GREATER += (Tensor.gt, Tensor.ge, Tensor.greater, Tensor.greater_equal)
_LESS: tuple[_Function, ...] = (torch.lt, torch.le, torch.less, torch.less_equal)
_LESS += (Tensor.lt, Tensor.le, Tensor.less, Tensor.less_equal)
_CASTS: tuple[_Function, ...] = (Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type)
_CASTS += (Tensor.type_as,)
_ZEROS: tuple[_Function, ...] = (torch.zeros, torch.zeros_like, Tensor.new_zeros)
_NUMBERS: tuple[_Function, ...] = (torch.tensor, torch.scalar_tensor, Tensor.new_tensor)
_PRODUCTS: tuple[_Function, ...] = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply)
_MAXIMA: tuple[_Function, ...] = (torch.maximum, torch.fmax, Tensor.maximum, Tensor.fmax, torch.max, Tensor.max)


@dataclass(frozen=True)
class _Sign:
    """The comparison of `source` with zero. `held` keeps the result alive, because it is found by its id."""

    source: Tensor
    version: int
    positive: bool
    held: Tensor


class Compositions:
    """Overrides of the functions of which ReLUs are composed.

    Recognised are `x * (x > 0)`, also with a cast, `torch.where(x > 0, x, 0)`, `x.masked_fill(x < 0, 0)` and
    `torch.maximum(x, zeros)`, for a comparison with the number 0 and zeros that the model makes in its forward pass.
    """

    def __init__(self, relu: Callable[[Tensor, bool], Tensor]) -> None:
        """Take the function (input, inplace) that is computed in the place of a ReLU."""
        self._relu = relu
        self._signs: dict[int, _Sign] = {}
        self._zeros: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Forget the tensors of a forward pass."""
        self._signs.clear()
        self._zeros.clear()

    def table(self) -> dict[_Function, _Function]:
        """Return the overrides by function."""
        table: dict[_Function, _Function] = {}
        table |= {f: self._compared(f, True) for f in _GREATER} | {f: self._compared(f, False) for f in _LESS}
        table |= {f: self._cast(f) for f in _CASTS}
        table |= {f: self._made(f, number=False) for f in _ZEROS} | {f: self._made(f, number=True) for f in _NUMBERS}
        table |= {f: self._product(f, False) for f in _PRODUCTS}
        table |= {f: self._product(f, True) for f in (Tensor.mul_, Tensor.multiply_)}
        table |= {f: self._maximum(f) for f in _MAXIMA}
        table |= {f: self._filled(f, False) for f in (torch.masked_fill, Tensor.masked_fill)}
        table |= {Tensor.masked_fill_: self._filled(Tensor.masked_fill_, True)}
        table |= {torch.where: self._where, Tensor.where: self._where_method}
        return table

    def _compared(self, function: _Function, positive: bool) -> _Function:
        def compare(input: Any, other: Any, **options: Any) -> Any:
            result = function(input, other, **options)
            if isinstance(input, Tensor) and self._is_zero(other):
                # The version detects a later write in place, after which the condition would belong to older values.
                self._signs[id(result)] = _Sign(input, input._version, positive, result)
            return result

        return compare

    def _cast(self, function: _Function) -> _Function:
        def convert(input: Tensor, *args: Any, **options: Any) -> Any:
            result = function(input, *args, **options)
            if (sign := self._signs.get(id(input))) is not None and isinstance(result, Tensor):
                self._signs[id(result)] = replace(sign, held=result)
            return result

        return convert

    def _made(self, function: _Function, *, number: bool) -> _Function:
        def make(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            if not number or self._is_zero(args[-1] if args else None):
                # The tensor itself is stored, because the id of a freed tensor may be reused.
                self._zeros[id(result)] = result
            return result

        return make

    def _product(self, function: _Function, inplace: bool) -> _Function:
        def multiply(input: Any, other: Any, **options: Any) -> Any:
            if self._selects(other, input, positive=True):
                return self._relu(input, inplace)
            if not inplace and self._selects(input, other, positive=True):
                return self._relu(other, False)
            return function(input, other, **options)

        return multiply

    def _maximum(self, function: _Function) -> _Function:
        def maximum(input: Tensor, *args: Any, **options: Any) -> Any:
            other = args[0] if args else options.get("other")
            for one, zeros in ((input, other), (other, input)):
                if isinstance(one, Tensor) and isinstance(zeros, Tensor) and self._is_zero(zeros):
                    return self._relu(one, False)
            return function(input, *args, **options)

        return maximum

    def _filled(self, function: _Function, inplace: bool) -> _Function:
        def fill(input: Tensor, mask: Tensor, value: Any) -> Any:
            if self._selects(mask, input, positive=False) and self._is_zero(value):
                return self._relu(input, inplace)
            return function(input, mask, value)

        return fill

    def _where(self, condition: Tensor, *args: Any, **options: Any) -> Any:
        named = dict(zip(("input", "other"), args, strict=False)) | options
        first, second = named.get("input"), named.get("other")
        for one, other, positive in ((first, second, True), (second, first, False)):
            if self._selects(condition, one, positive=positive) and self._is_zero(other):
                assert isinstance(one, Tensor)
                return self._relu(one, False)
        return torch.where(condition, *args, **options)

    def _where_method(self, input: Tensor, condition: Tensor, other: Any) -> Any:
        return self._where(condition, input, other)

    def _is_zero(self, value: Any) -> bool:
        """Return True for the number 0 and for zeros that the model has just made."""
        return id(value) in self._zeros if isinstance(value, Tensor) else isinstance(value, (int, float)) and value == 0

    def _selects(self, condition: Any, source: Any, *, positive: bool) -> bool:
        """Return True if the condition is `source` > 0 (or < 0), of a source that has not been written to since."""
        sign = self._signs.get(id(condition)) if isinstance(condition, Tensor) else None
        if sign is None or sign.source is not source or sign.positive != positive:
            return False
        return bool(sign.version == sign.source._version)
