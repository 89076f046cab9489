"""Rules for operations on channels that modules, functions and methods share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pai_bench.pruning.shrinking.channels import Channels, joined, varying_channels
from pai_bench.pruning.shrinking.graph import option, shape_of
from pai_bench.pruning.shrinking.structure import PerChannel, Structure

PRODUCTS = (operator.mul, operator.imul, torch.mul)


class Rules:
    """Channels by node, and the structure that the rules fill in.

    The value of a node is None for a tensor without known channels and for anything that is not a tensor.
    """

    def __init__(self, model: nn.Module, uses: dict[str, int]) -> None:
        self._modules = dict(model.named_modules())
        self._parameters = dict(model.named_parameters())
        self._uses = uses
        self._values: dict[fx.Node, Channels | None] = {}
        self._structure = Structure()

    def _pin_inputs(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            if (value := self._values[source]) is not None:
                self._structure.identities.pin(value.ids)

    def _unknown(self, node: fx.Node) -> Channels | None:
        """Pin the channels of all inputs; the channels of the output are unknown."""
        self._pin_inputs(node)
        return None

    def _of(self, node: fx.Node, dim: int) -> Channels:
        """Return the channels of a node along `dim`; channels that are unknown, or lie elsewhere, are pinned."""
        value, size = self._values[node], shape_of(node)
        assert size is not None
        if value is not None and value.dim == dim % len(size):
            return value
        if value is not None:
            self._structure.identities.pin(value.ids)
        return varying_channels(self._structure.identities.new(size[dim], pinned=True), dim % len(size))

    def _binary(self, node: fx.Node) -> Channels | None:
        function: Any = node.target
        shape = shape_of(node)
        operands: list[Channels | Tensor | float] = []
        for argument in node.args[:2]:
            if isinstance(argument, (int, float)):
                operands.append(float(argument))
            elif not isinstance(argument, fx.Node):
                return self._unknown(node)
            elif argument.op == "get_attr" and str(argument.target) in self._parameters:
                operands.append(self._parameters[str(argument.target)])
            elif (value := self._values[argument]) is None:
                return self._unknown(node)
            else:
                operands.append(value)
        known = [operand for operand in operands if isinstance(operand, Channels)]
        if shape is None or not known or any(part.repeat != known[0].repeat for part in known):
            return self._unknown(node)
        nodes = [argument for argument in node.args[:2] if isinstance(argument, fx.Node) and self._values[argument]]
        # Broadcasting aligns dimensions at the end.
        dims = {part.dim + len(shape) - len(shape_of(one) or ()) for part, one in zip(known, nodes, strict=True)}
        if len(dims) > 1 or len({len(part.ids) for part in known}) > 1:
            return self._unknown(node)
        dim = dims.pop()
        if len(known) == 2:
            self._structure.identities.merge(known[0].ids, known[1].ids)
        constants = []
        for operand, argument in zip(operands, node.args[:2], strict=True):
            if isinstance(operand, Tensor):
                expanded = self._per_channel_parameter(operand, str(argument.target), known[0], len(shape))  # type: ignore[union-attr]
                if expanded is None:
                    return self._unknown(node)
                constants.append(expanded)
            else:
                constants.append(operand.constant if isinstance(operand, Channels) else torch.tensor(operand).double())
        constant = function(constants[0].clone(), constants[1])
        if function in PRODUCTS:
            # Zero times a varying channel is zero, but NaN stands for "varies", and 0 x NaN would be NaN.
            constant = torch.where((constants[0] == 0) | (constants[1] == 0), 0.0, constant)
        return Channels(known[0].ids, constant.expand(len(known[0].ids)).clone(), dim, known[0].repeat)

    def _per_channel_parameter(self, parameter: Tensor, name: str, like: Channels, ndim: int) -> Tensor | None:
        """Return the values of a parameter that has one entry per channel (float64 [C]), and note it; else None."""
        shape = (1,) * (ndim - parameter.dim()) + tuple(parameter.shape)
        if like.repeat != 1 or parameter.numel() != shape[like.dim] or shape[like.dim] != len(like.ids):
            return None
        dim = like.dim - (ndim - parameter.dim())
        self._structure.per_channel.append(PerChannel(name, like, dim))
        return parameter.detach().double().flatten()

    def _concatenated(self, node: fx.Node) -> Channels | None:
        parts, dim = node.args[0], option(node, 1, "dim", 0)
        if not isinstance(parts, Sequence) or dim % len(shape_of(node) or (1,)) != 1:
            return self._unknown(node)
        values = [self._of(part, 1) for part in parts if isinstance(part, fx.Node)]
        return joined(values) if all(value.repeat == 1 for value in values) else self._unknown(node)

    def _flattened(self, node: fx.Node, source: fx.Node, value: Channels, start: Any, end: Any) -> Channels | None:
        before, after = shape_of(source), shape_of(node)
        if before is None or after is None or value.dim != 1:
            return self._unknown(node)
        if start % len(before) != 1 or end % len(before) != len(before) - 1:
            return self._unknown(node)
        pixels = after[1] // (len(value.ids) * value.repeat)
        return Channels(value.ids, value.constant, 1, value.repeat * pixels)

    def _pooled(self, node: fx.Node, value: Channels) -> Channels | None:
        """Return the channels of a mean, maximum or minimum over pixels, which leaves constants as they are."""
        dims = option(node, 1, "dim", None)
        dims = list(node.args[1:]) if node.op == "call_method" and len(node.args) > 2 else dims
        source = shape_of(node.args[0])
        listed = [dims] if isinstance(dims, int) else list(dims or ())
        if source is None or not listed or not all(isinstance(dim, int) for dim in listed):
            return self._unknown(node)
        averaged = {dim % len(source) for dim in listed}
        if value.dim in averaged or value.repeat != 1:
            return self._unknown(node)
        keep = len(shape_of(node) or ()) == len(source)
        return Channels(value.ids, value.constant, value.dim - (0 if keep else sum(d < value.dim for d in averaged)))

    def _permuted(self, node: fx.Node, value: Channels, dims: Any) -> Channels | None:
        order = list(dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims)
        if not all(isinstance(dim, int) for dim in order):
            return self._unknown(node)
        return Channels(value.ids, value.constant, [dim % len(order) for dim in order].index(value.dim), value.repeat)
