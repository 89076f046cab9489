"""Trace of a network as a torch.fx graph with shapes, and readers of its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from pai_bench.errors import PaiBenchError
from pai_bench.models.resnet import ZeroPadShortcut


class _Tracer(fx.Tracer):
    """A tracer for which the zero-padding shortcut is one operation, because its sizes are attributes."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ZeroPadShortcut) or super().is_leaf_module(module, name)


def traced(model: nn.Module, example: Tensor) -> fx.Graph:
    """Return the graph of a model in eval mode; the nodes have the shapes of a forward pass of `example`.

    Raises: PaiBenchError when torch.fx cannot trace the model.
    """
    try:
        graph = _Tracer().trace(model)
        with torch.no_grad():
            ShapeProp(fx.GraphModule(model, graph)).propagate(example)
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise PaiBenchError(
            f"{type(model).__name__} cannot be traced by torch.fx: {line}",
            "channels are found in a forward pass without control flow that depends on tensors; masks of single weights"
            " (granularity weight, kernel, 2:4) do not need it",
        ) from error
    return graph


def uses(graph: fx.Graph, model: nn.Module) -> dict[str, int]:
    """Count the calls by module name, plus one if another module has one of its parameters; shared ones have two."""
    holders: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), set()).add(name.rpartition(".")[0])
    tied = {name for names in holders.values() if len(names) > 1 for name in names}
    found: dict[str, int] = dict.fromkeys(tied, 1)
    for node in graph.nodes:
        if node.op == "call_module":
            found[str(node.target)] = found.get(str(node.target), 0) + 1
    return found


def last_weights(
    graph: fx.Graph, modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]
) -> Iterator[str]:
    """Yield the modules and bare parameters with weights, by name, which no other weights follow in the graph."""

    def matrices(node: fx.Node) -> bool:
        if node.op == "call_module":
            return any(p.dim() > 1 for p in modules[str(node.target)].parameters())
        return node.op == "get_attr" and str(node.target) in parameters and parameters[str(node.target)].dim() > 1

    followed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        # A bare parameter and the operation that uses it count as one.
        for user in node.users:
            beside = node.op != "get_attr" and any(matrices(n) for n in user.all_input_nodes if n.op == "get_attr")
            if user in followed or matrices(user) or beside:
                followed.add(node)
        if matrices(node) and node not in followed:
            yield str(node.target)


def shape_of(node: object) -> tuple[int, ...] | None:
    """Return the shape of the tensor that a node yields; None when it yields something else."""
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return None if meta is None or not hasattr(meta, "shape") else tuple(meta.shape)


def option(node: fx.Node, position: int, name: str, default: object) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def has_nodes(*values: object) -> bool:
    found: list[fx.Node] = []
    fx.node.map_arg(values, found.append)  # type: ignore[type-var]
    return bool(found)


def pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (0 if value == "valid" else value,)


def applied(function: Callable[[Tensor], Tensor], constant: Tensor) -> Tensor:
    """Apply an elementwise function to constants; channels that vary stay NaN."""
    return torch.where(constant.isnan(), torch.nan, function(constant.clone()))


def zeros_only(constant: Tensor) -> Tensor:
    """Return constants of which only zeros stay constant, because zero padding lets others vary with the position."""
    return torch.where(constant == 0, 0.0, torch.nan)
