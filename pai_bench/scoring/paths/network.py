"""The path network of a model: the same paths from the input to the output, of non-negative values.

Norms are identities with their scale, activations identities (their part of degree one on positive values), differences
and choices sums. A product of two signals has degree two, and would count every path through it twice: each factor
carries half of the flow instead, a geometric mean. Gates (sigmoid, softmax) are constants in a product, and pass on
their half. Sources: Tanaka et al. 2020 (arXiv 2006.05467, theorems 2 and 3, conservation of synaptic saliency) and
Vysogorets and Kempe 2023 (arXiv 2107.02306, effective sparsity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pai_bench.scoring.diagnosis import is_out_of_memory
from pai_bench.scoring.paths.functions import Halved, Unit
from pai_bench.scoring.paths.operations import (
    ALIASES,
    COMPLEX,
    FACTORS,
    JOINS,
    MATRIX_PRODUCTS,
    MAXIMA,
    MEANS,
    NORMS,
    PRODUCTS,
    SHAPES,
    UNARY,
    call,
    complex_value,
    mixes,
    rounds,
    slots,
)
from pai_bench.scoring.paths.semantics import Semantics
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot


def replay(graph: Graph, semantics: Semantics, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the logits of the path network (zeros if independent of x), differentiable in x and the parameters."""
    output = Replay(graph, semantics, parameters, x).output()
    graph.on_replay(output)
    return output


class Replay:
    """Forward pass through the path network."""

    def __init__(self, graph: Graph, semantics: Semantics, parameters: Mapping[str, Tensor], x: Tensor | None) -> None:
        self._graph = graph
        self._semantics = semantics
        self._like = x if x is not None else next(iter(parameters.values()))
        self.values: dict[int, Tensor] = {slot: parameters[name] for name, slot in graph.parameters.items()}
        if graph.input is not None and x is not None:
            self.values[graph.input] = x

    def output(self) -> Tensor:
        """Compute all nodes; returns the value of the graph's output."""
        for node in self._graph.nodes:
            self.compute(node)
        return self._like.new_zeros(()) if self._graph.output is None else self.values[self._graph.output]

    def compute(self, node: Node) -> None:
        """Compute the outputs of one node from the values of its arguments."""
        try:
            result = self._result(node)
        except (RuntimeError, ArithmeticError) as error:
            if is_out_of_memory(error):
                raise
            result = self._unknown(node, str(error))
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        for position, slot in enumerate(node.outputs):
            if slot is None:
                continue
            shape = node.shapes[position]
            if self._graph.kinds[slot] is Kind.NEUTRAL:
                # Ones leave the paths through a product with a condition or a normaliser as they are.
                self.values[slot] = self._like.new_ones(shape)
                continue
            value = results[position] if position < len(results) else None
            if value is None:  # the statistics of a norm, the indices of a pool
                value = self._like.new_zeros(shape)
            if value.is_floating_point() and node.name not in SHAPES:
                value = self._semantics.done(value)
            self.values[slot] = value if tuple(value.shape) == shape else value.expand(shape)

    def kind(self, argument: Any) -> Kind | None:
        """Return the kind of a node's argument; None for constants and for objects that are not tensors."""
        return self._graph.kinds[argument.index] if isinstance(argument, Slot) else None

    def is_signal(self, argument: Any) -> bool:
        """Return True for an argument that depends on the input."""
        return self.kind(argument) in (Kind.SIGNAL, Kind.GATE)

    def value(self, argument: Any) -> Any:
        """Return the value of an argument, slots replaced also in lists."""
        if isinstance(argument, Slot):
            return self.values[argument.index]
        if isinstance(argument, (list, tuple)):
            return [self.value(part) for part in argument]
        return argument

    def _first(self, node: Node) -> Tensor:
        return self.values[slots(node)[0].index]

    def _result(self, node: Node) -> Any:
        name, arguments = node.name, node.arguments
        if all(self._graph.kinds[slot] is Kind.NEUTRAL for slot in node.outputs if slot is not None):
            return ()
        if name in UNARY or rounds(name):
            return self._unary(node)
        if mixes(name) and (mixed := self._unknown(node, "")) is not None:
            return mixed
        if name in COMPLEX:
            return complex_value(node, [self.value(part) for part in slots(node)])
        if name in ("add", "sub", "rsub", "lerp", "where", "addcdiv", "addcmul"):
            return self._sum(node)
        if name == "div":
            return self._quotient(node)
        if name in PRODUCTS:
            return self._product(node)
        if name in NORMS or "batch_norm" in name:
            return self._norm(node)
        if name in MAXIMA:
            signals = [self.value(a) for a in arguments.values() if self.is_signal(a)] or [self._first(node)]
            return self._semantics.maximum(node, {k: self.value(v) for k, v in arguments.items()}, signals)
        if name in MEANS:
            return self._first(node).sum(arguments.get("dim") or []).reshape(node.shapes[0])
        if "max_pool" in name:
            return self._semantics.pooled(node, {k: self.value(v) for k, v in arguments.items()})
        if name == "glu":
            halves = self._first(node).chunk(2, arguments.get("dim", -1))
            return torch.mul(Halved.apply(halves[0]), Unit.apply(halves[1]))
        if name == "masked_fill":
            kept = arguments["mask"]
            x = self.value(arguments["self"])
            return x if isinstance(kept, Slot) else x.masked_fill(kept, 0)
        return self._plain(node)

    def _unknown(self, node: Node, cause: str) -> Any:
        return self._semantics.unknown(node, [self.value(part) for part in slots(node)], cause)

    def _unary(self, node: Node) -> Tensor:
        x = self._first(node)
        scale = node.arguments.get("scale") if node.name == "elu" else None
        if self._graph.kinds[self._tracked(node)] is not Kind.WEIGHT and node.name not in ALIASES:
            x = self._semantics.activation(x)
        return x if scale is None or scale == 1 else x * abs(float(scale))

    def _tracked(self, node: Node) -> int:
        return next(part.index for part in node.arguments.values() if isinstance(part, Slot))

    def _plain(self, node: Node) -> Any:
        """Return an operation that is linear and positive as it is."""
        arguments = {key: self.value(argument) for key, argument in node.arguments.items()}
        if node.name in JOINS and any(
            self.is_signal(part)
            for argument in node.arguments.values()
            for part in (argument if isinstance(argument, (list, tuple)) else [argument])
        ):
            for key, argument in node.arguments.items():
                if isinstance(argument, (list, tuple)) and key != "layouts":
                    arguments[key] = [self._beside(part) for part in argument]
                elif key in ("self", "base", "src", "values", "source"):
                    arguments[key] = self._beside(argument)
        if node.name == "copy":
            return arguments["src"].to(self._like.dtype)
        return call(node.function, arguments)

    def _beside(self, argument: Any) -> Any:
        value = self.value(argument)
        if not isinstance(value, Tensor) or not value.is_floating_point() or self.is_signal(argument):
            return value
        return self._semantics.joined(value)

    def _sum(self, node: Node) -> Any:
        """Return sums, differences and choices: signals add up, parameters are biases, constants are left out."""
        name, arguments = node.name, node.arguments
        if name == "where" and not isinstance(arguments["condition"], Slot):
            parts = [self.value(arguments[key]) if isinstance(arguments[key], Slot) else 0 for key in ("self", "other")]
            return torch.where(arguments["condition"], *parts)
        terms = {key: a for key, a in arguments.items() if isinstance(a, Slot) and key not in ("weight", "condition")}
        if name in ("addcmul", "addcdiv"):
            terms.pop("tensor2", None)
        found = [(key, a) for key, a in terms.items() if self.is_signal(a)]
        chosen = found or [(key, a) for key, a in terms.items() if self.kind(a) is Kind.WEIGHT]
        total: Any = None
        largest = max(self.value(a).numel() for _, a in chosen)
        for key, argument in chosen:
            term = self.value(argument)
            # A mean that is subtracted would add paths between all elements which it averages.
            if name == "sub" and term.numel() < largest:  # centring
                continue
            alpha = arguments.get("alpha", 1)
            if key == "other" and name != "rsub" and alpha != 1:
                term = term * abs(alpha)
            total = term if total is None else total + term
        if found:
            for _, argument in terms.items():
                if self.kind(argument) is Kind.WEIGHT:
                    total = self._semantics.bias(total, self.value(argument))
        return total

    def _quotient(self, node: Node) -> Any:
        numerator, denominator = self.value(node.arguments["self"]), node.arguments["other"]
        if self.is_signal(denominator) or self.kind(denominator) is Kind.NEUTRAL:
            return numerator
        value = self.value(denominator)
        if self.kind(denominator) is Kind.WEIGHT and self.kind(node.arguments["self"]) is Kind.WEIGHT:
            return numerator
        if isinstance(value, Tensor):
            return numerator / self._semantics.constant(value)
        return numerator / abs(value) if value else numerator

    def _product(self, node: Node) -> Any:
        function, arguments = node.function, dict(node.arguments)
        keys = [key for key in FACTORS if key in arguments]
        bias = None
        if node.name == "convolution":
            keys, bias = ["input", "weight"], arguments["bias"]
            arguments["bias"] = None
        elif node.name in ("addmm", "addmv", "baddbmm"):
            bias = arguments.pop("self")
            keys.remove("self")
            arguments.pop("beta", None)
            arguments.pop("alpha", None)
            function = MATRIX_PRODUCTS[node.name]
        elif node.name == "_trilinear":
            keys = ["i1", "i2", "i3"]
        operands = {key: self._operand(arguments[key]) for key in keys}
        signals = [key for key in keys if self.is_signal(arguments[key])]

        def apply(*values: Tensor) -> Any:
            if node.name in ("addmm", "addmv", "baddbmm"):
                return function(*values)
            return call(function, {**arguments, **operands, **dict(zip(keys, values, strict=True))})

        if len(signals) == 2 and len(keys) == 2:
            result = self._split(apply, *(arguments[key] for key in keys))
        else:
            if len(signals) == 1 and node.name != "mul":
                operands[signals[0]] = self._semantics.factor(operands[signals[0]])
            result = apply(*operands.values())
        if bias is None:
            return result
        if self.is_signal(bias):
            return result + self.value(bias)
        if isinstance(bias, Slot) and self.kind(bias) is Kind.WEIGHT and signals:
            value = self.value(bias)
            spatial = node.name == "convolution"
            return self._semantics.bias(result, value.view(-1, *[1] * (result.dim() - 2)) if spatial else value)
        return result

    def _operand(self, argument: Any) -> Any:
        value = self.value(argument)
        if isinstance(argument, Slot):
            return value
        if isinstance(value, Tensor):
            return self._semantics.constant(value)
        return abs(value)

    def _split(self, function: Callable[..., Any], a: Any, b: Any) -> Any:
        """Return the product of two signals; a gate is a constant that passes on its half of the flow."""
        first, second = self.value(a), self.value(b)
        gates = self.kind(a) is Kind.GATE, self.kind(b) is Kind.GATE
        if gates[0] == gates[1]:
            return self._semantics.product(function, first, second)
        if gates[0]:
            return function(Unit.apply(first), Halved.apply(second))
        return function(Halved.apply(first), Unit.apply(second))

    def _norm(self, node: Node) -> Any:
        """Return the identity, times the scale (over the running deviation, where there is one), plus the bias."""
        arguments = node.arguments
        x = self.value(arguments.get("input", arguments.get("self")))
        weight, bias = arguments.get("weight"), arguments.get("bias")
        axis = NORMS.get(node.name, 1)
        mean, variance = arguments.get("running_mean"), arguments.get("running_var")
        shift: Tensor | None = None
        scale: Tensor | None
        if mean is not None and variance is not None and not arguments.get("training", False):
            eps = arguments.get("eps", arguments.get("epsilon", 1e-5))
            scale = self._semantics.deviation(variance, eps).reciprocal()
            scale = scale if weight is None else scale * self._operand(weight)
            shift = self._semantics.centre(mean, scale)
        else:
            scale = None if weight is None else self._operand(weight)
        if scale is not None:
            x = x * self._along(scale, x, axis)
        if bias is not None and self.is_signal(arguments.get("input", arguments.get("self"))):
            shift = self.value(bias) if shift is None else self.value(bias) + shift
        if shift is not None:
            x = self._semantics.bias(x, self._along(shift, x, axis))
        return (x,)

    def _along(self, value: Tensor, x: Tensor, axis: int) -> Tensor:
        return value if axis == -1 else value.view(-1, *[1] * (x.dim() - 2))
