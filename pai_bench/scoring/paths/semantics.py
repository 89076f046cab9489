"""The values that a path network can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from pai_bench.scoring.paths.tracing import Node


class Semantics(Protocol):
    """The values of a path network."""

    def constant(self, value: Tensor) -> Tensor:
        """Return the factor in the place of a constant or, without paths of its own, of a parameter."""
        ...

    def bias(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the signal x with parameters added."""
        ...

    def deviation(self, variance: Tensor, eps: float) -> Tensor:
        """Return the running deviation of a norm."""
        ...

    def centre(self, mean: Tensor, scale: Tensor) -> Tensor | None:
        """Return the shift by the running mean of a norm; None for none."""
        ...

    def activation(self, x: Tensor) -> Tensor:
        """Return the result of a function of one signal."""
        ...

    def factor(self, x: Tensor) -> Tensor:
        """Return a signal that weights multiply."""
        ...

    def joined(self, value: Tensor) -> Tensor:
        """Return the values of parameters or constants that stand beside a signal (a class token)."""
        ...

    def maximum(self, node: Node, arguments: Mapping[str, Any], signals: Sequence[Tensor]) -> Any:
        """Return the result of a choice among values."""
        ...

    def pooled(self, node: Node, arguments: Mapping[str, Any]) -> Any:
        """Return the result of a max-pool."""
        ...

    def product(self, function: Callable[..., Any], a: Tensor, b: Tensor) -> Any:
        """Return the product of two signals, neither of which is a gate."""
        ...

    def done(self, value: Tensor) -> Tensor:
        """Return the result of an operation that sums."""
        ...

    def unknown(self, node: Node, values: Sequence[Tensor], cause: str) -> Sequence[Tensor] | None:
        """Return the results of an operation without a rule; None to compute it as it is.

        cause: the error that it raises with these values, or "".

        Raises: PaiBenchError if the network cannot be evaluated.
        """
        ...
