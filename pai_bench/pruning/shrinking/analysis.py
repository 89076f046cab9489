"""Propagation of channels through the graph of a network in eval mode.

Every operation either keeps the channels of its input (norms, activations, poolings, sums), or mixes them (convolutions
and linear layers). Any operation without a rule pins the channels of its inputs, so that they stay.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from pai_bench.models.resnet import ZeroPadShortcut
from pai_bench.pruning.shrinking.channels import Channels, joined, varying_channels
from pai_bench.pruning.shrinking.graph import (
    applied,
    has_nodes,
    last_weights,
    option,
    pair,
    shape_of,
    traced,
    uses,
    zeros_only,
)
from pai_bench.pruning.shrinking.rules import Rules
from pai_bench.pruning.shrinking.structure import Mixing, Padding, PerChannel, Structure

ELEMENTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Threshold, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.AlphaDropout,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.sigmoid, F.tanh, F.hardswish,
    F.hardsigmoid, F.hardtanh, F.softplus, torch.relu, torch.sigmoid, torch.tanh,
}  # fmt: skip
ELEMENTWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone", "float", "double"}
MAX_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
MEAN_POOLINGS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
BINARY = {operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, operator.sub, torch.sub}


def analyse(model: nn.Module, example: Tensor) -> Structure:
    """Trace a model in eval mode and propagate channels through it.

    Raises: PaiBenchError when torch.fx cannot trace the model.
    """
    graph = traced(model, example)
    with torch.no_grad():
        return _Propagation(model, uses(graph, model)).run(graph)


class _Propagation(Rules):
    """Dispatch of nodes to rules."""

    def run(self, graph: fx.Graph) -> Structure:
        for node in graph.nodes:
            self._values[node] = self._value(node)
        self._structure.last.update(last_weights(graph, self._modules, self._parameters))
        return self._structure

    def _value(self, node: fx.Node) -> Channels | None:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "call_module":
            return self._module(node, str(node.target))
        if node.op == "call_function":
            return self._function(node)
        if node.op == "call_method":
            return self._method(node)
        if node.op == "output":
            self._pin_inputs(node)
        return None

    def _input(self, node: fx.Node) -> Channels | None:
        size = shape_of(node)
        if size is None or len(size) < 2:
            return None
        return varying_channels(self._structure.identities.new(size[1], pinned=True), 1)

    def _module(self, node: fx.Node, name: str) -> Channels | None:
        module, source = self._modules[name], node.args[0] if node.args else None
        # A layer that is called twice would have to be sliced for both of its inputs.
        shared = self._uses[name] > 1
        if not isinstance(source, fx.Node) or shape_of(source) is None:
            return self._unknown(node)
        if isinstance(module, _ConvNd) and not module.transposed and not shared:
            return self._convolution(name, module, self._of(source, 1))
        if isinstance(module, nn.Linear) and not shared:
            return self._mixed(name, module.weight.double(), module.bias, self._of(source, -1), spreads=False)
        value = self._values[source]
        if value is None:
            return None
        plain = value.dim == 1 and value.repeat == 1  # one entry of a norm for each channel
        if isinstance(module, _BatchNorm) and module.track_running_stats and not shared and plain:
            return self._norm(name, module, value)
        if isinstance(module, ELEMENTWISE_MODULES) or type(module).__name__ == "StochasticDepth":
            return value.with_constant(applied(module, value.constant))
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return value.with_constant(applied(module, value.constant))
        if isinstance(module, (*MAX_POOLINGS, *MEAN_POOLINGS)) and value.dim == 1:
            return value
        if isinstance(module, (nn.AvgPool1d, nn.AvgPool2d)) and value.dim == 1:
            return value if not any(pair(module.padding)) else value.with_constant(zeros_only(value.constant))
        if isinstance(module, nn.Flatten):
            return self._flattened(node, source, value, module.start_dim, module.end_dim)
        if isinstance(module, ZeroPadShortcut) and value.dim == 1 and not shared:
            return self._padded(name, module, value)
        if type(module).__name__ == "Permute":
            return self._permuted(node, value, module.dims)
        return self._unknown(node)

    def _convolution(self, name: str, module: _ConvNd, inputs: Channels) -> Channels | None:
        weight = module.weight.double().flatten(2)
        spreads = module.padding_mode == "zeros" and (module.padding == "same" or any(pair(module.padding)))
        if module.groups == 1:
            return self._mixed(name, weight.abs().sum(2), module.bias, inputs, spreads, weight.sum(2))
        if module.groups == module.in_channels == module.out_channels:
            value = inputs.constant * weight.sum((1, 2))
            dead = ~weight.abs().sum((1, 2)).bool()
            value = torch.where(dead, 0.0, zeros_only(value) if spreads else value)
            value = value + (0.0 if module.bias is None else module.bias.double())
            out = inputs.with_constant(value)
            self._structure.per_channel.append(PerChannel(name, out))
            return out
        self._structure.identities.pin(inputs.ids)
        return varying_channels(self._structure.identities.new(module.out_channels, pinned=True), 1)

    def _mixed(
        self, name: str, sizes: Tensor, bias: Tensor | None, inputs: Channels, spreads: bool, sums: Tensor | None = None
    ) -> Channels:
        """Return the outputs of a layer with weights [O, I]; `spreads` if zero padding makes constants vary."""
        sums = sizes if sums is None else sums
        constant = inputs.constant.repeat_interleave(inputs.repeat)
        used = sizes != 0
        # Zero padding makes an output at the border differ from the others unless the constant is zero.
        varies = (used & (constant.isnan() | ((constant != 0) & spreads))).any(1)
        # Varying inputs have weights of zero here or make the output vary; as 0.0 they do not turn the sum into NaN.
        values = (sums * torch.where(constant.isnan(), 0.0, constant)).sum(1)
        values = values + (0.0 if bias is None else bias.double())
        outputs = Channels(
            self._structure.identities.new(len(sizes)), torch.where(varies, torch.nan, values), inputs.dim
        )
        self._structure.mixing.append(Mixing(name, inputs, outputs))
        return outputs

    def _norm(self, name: str, module: _BatchNorm, value: Channels) -> Channels:
        assert module.running_mean is not None and module.running_var is not None
        scale = (module.running_var.double() + module.eps).rsqrt()
        if module.affine:
            scale = scale * module.weight.double()
        offset = -module.running_mean.double() * scale + (module.bias.double() if module.affine else 0.0)
        # A scale of zero makes the channel constant even if its input varies (NaN times 0 would stay NaN).
        constant = torch.where(scale == 0, offset, value.constant * scale + offset)
        out = value.with_constant(constant)
        self._structure.per_channel.append(PerChannel(name, out))
        return out

    def _padded(self, name: str, module: ZeroPadShortcut, value: Channels) -> Channels:
        sides = []
        for count in (module.before, module.after):
            ids = self._structure.identities.new(count)
            sides.append(Channels(ids, torch.zeros(count, dtype=torch.float64), value.dim))
        self._structure.paddings.append(Padding(name, sides[0].ids, sides[1].ids))
        return joined([sides[0], value, sides[1]])

    def _function(self, node: fx.Node) -> Channels | None:
        function, arguments = node.target, node.args
        if function in BINARY:
            return self._binary(node)
        source = arguments[0] if arguments else None
        if function is torch.cat:
            return self._concatenated(node)
        if not isinstance(source, fx.Node) or (value := self._values.get(source)) is None:
            return self._unknown(node) if node.all_input_nodes else None
        if function in ELEMENTWISE_FUNCTIONS or getattr(function, "__name__", "") == "stochastic_depth":
            options = {key: item for key, item in node.kwargs.items() if key != "inplace"}
            if function in ELEMENTWISE_FUNCTIONS and not has_nodes(arguments[1:], options):
                return value.with_constant(applied(lambda x: function(x, *arguments[1:], **options), value.constant))
            return value
        if function is F.dropout:
            return value if not option(node, 2, "training", True) else self._unknown(node)
        if function is torch.flatten:
            start, end = option(node, 1, "start_dim", 0), option(node, 2, "end_dim", -1)
            return self._flattened(node, source, value, start, end)
        if function in (F.adaptive_avg_pool2d, F.max_pool2d) or getattr(function, "__name__", "") in (
            "boolean_dispatch",
            "adaptive_avg_pool2d",
            "max_pool2d",
        ):
            return value if value.dim == 1 else self._unknown(node)
        if function is F.avg_pool2d:
            padding = option(node, 3, "padding", 0)
            return value if not any(pair(padding)) else value.with_constant(zeros_only(value.constant))
        if function in (torch.mean, torch.amax, torch.amin):
            return self._pooled(node, value)
        if function is torch.permute:
            return self._permuted(node, value, arguments[1])
        if function is getattr:  # the shape of a tensor
            return None
        return self._unknown(node)

    def _method(self, node: fx.Node) -> Channels | None:
        source, name = node.args[0], str(node.target)
        value = self._values[source] if isinstance(source, fx.Node) else None
        if name == "size" or value is None:
            return None
        assert isinstance(source, fx.Node)
        if name in ELEMENTWISE_METHODS:
            if name in ("relu", "relu_", "sigmoid", "tanh"):
                return value.with_constant(applied(getattr(torch, name.rstrip("_")), value.constant))
            return value
        if name == "flatten":
            start, end = option(node, 1, "start_dim", 0), option(node, 2, "end_dim", -1)
            return self._flattened(node, source, value, start, end)
        if name in ("view", "reshape"):
            after, before = shape_of(node), shape_of(source)
            free = isinstance(node.args[-1], int) and node.args[-1] == -1
            if after and before and len(after) == 2 and after[0] == before[0] and free:
                return self._flattened(node, source, value, 1, -1)
            return self._unknown(node)
        if name in ("mean", "amax", "amin"):
            return self._pooled(node, value)
        if name == "permute":
            return self._permuted(node, value, node.args[1:])
        return self._unknown(node)
