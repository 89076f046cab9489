"""A check that a network whose ReLUs are left out is linear, so that no activation of it goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pai_bench.scoring.gates import refusal
from pai_bench.scoring.paths.operations import LINEAR, SHAPES
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot

_ATTENTION = {"_softmax", "_safe_softmax", "bmm", "baddbmm", "mm"}
"""Operations of attention, which is neither linear nor an activation: a signal may be a factor of another one."""
_LINEAR = {"convolution", "addmm", "mv", "addmv", "dot", "mul", "native_dropout"} | LINEAR | SHAPES | _ATTENTION
_LINEAR |= {"alias", "detach", "lift_fresh", "neg", "positive", "upsample_bicubic2d", "upsample_linear1d"}
# Path networks have rules for these; as functions of the input they need not be linear.
_LINEAR -= {"topk", "sort", "glu", "addcmul", "addcdiv", "lerp"}
_SOFTMAX = {"_softmax", "_safe_softmax"}
_PASSING = SHAPES | {"native_dropout", "alias", "detach", "where", "masked_fill"}
"""Operations after which the weights of an attention are still weights."""
_POOLED = {"amax", "max"}
"""Maxima over the positions of one signal."""


def check_relu_network(graph: Graph, model: nn.Module) -> None:
    """Check that the operations which were recorded with all ReLUs and norms left out are linear.

    Poolings, which choose one of several values, count as linear, and so do attention and torch's own recurrent layers,
    whose gates are taken as they are. A softmax that is not a factor of a product, as in attention, does not.

    Raises: PaiBenchError that names the layer with an activation composed of other operations.
    """
    recurrent = {name for name, module in model.named_modules() if isinstance(module, (nn.RNNBase, nn.RNNCellBase))}
    live, found = {graph.output}, None
    factors: set[int] = set()
    """Slots of which every use so far, from the last operation on, is a factor of the product of two signals."""
    producers = {slot: node for node in graph.nodes for slot in node.outputs if slot is not None}
    for node in reversed(graph.nodes):
        if not live.intersection(node.outputs) or all(not _varies(graph, slot) for slot in node.outputs):
            continue
        slots = [slot.index for slot in _slots(node)]
        passes = node.name in _PASSING and factors.issuperset(live.intersection(node.outputs))
        if passes or (node.name in _ATTENTION - _SOFTMAX and len(_signals(graph, node)) > 1):
            factors.update(slot for slot in slots if slot not in live)
        else:
            factors.difference_update(slots)
        what = _fault(graph, node, producers)
        if node.name in _SOFTMAX and not factors.issuperset(live.intersection(node.outputs)):
            what = "a softmax outside of attention"
        live.update(slots)
        if node.layer not in recurrent and what is not None:
            found = refusal(node.layer, what)  # the first one of the forward pass, at last
    if found is not None:
        raise found


def _slots(node: Node) -> list[Slot]:
    parts = [a if isinstance(a, (list, tuple)) else [a] for a in node.arguments.values()]
    return [part for several in parts for part in several if isinstance(part, Slot)]


def _signals(graph: Graph, node: Node) -> list[Slot]:
    return [slot for slot in _slots(node) if graph.kinds[slot.index] in (Kind.SIGNAL, Kind.GATE)]


def _varies(graph: Graph, slot: int | None) -> bool:
    return slot is not None and graph.kinds[slot] is not Kind.WEIGHT


def _fault(graph: Graph, node: Node, producers: Mapping[int, Node]) -> str | None:
    """Return a description of an operation that is not linear in the input of the network; None for a linear one."""
    if any(graph.kinds[slot.index] is Kind.NEUTRAL for slot in _slots(node)):
        return f"{node.name} with a condition on the input or a normaliser"
    if node.name in ("mul", "dot", "mv") and len(_signals(graph, node)) > 1:
        return "the product of two values that depend on the input"
    if node.name in ("sub", "rsub") and len(_signals(graph, node)) > 1:
        return "the difference of two values that depend on the input"
    if node.name == "neg" or (node.name in ("mul", "div") and any(map(_is_negative, node.arguments.values()))):
        return "a change of sign"
    if node.name == "div" and _is_signal(graph, node.arguments["other"]):
        return "a division by a value that depends on the input"
    if node.name in _POOLED and "other" not in node.arguments:
        return "a maximum of values that are joined for it" if _joined(node, producers) else None
    return None if node.name in _LINEAR or "max_pool" in node.name else node.name


def _is_signal(graph: Graph, argument: Any) -> bool:
    return isinstance(argument, Slot) and graph.kinds[argument.index] in (Kind.SIGNAL, Kind.GATE)


def _is_negative(argument: Any) -> bool:
    """Return True for a constant below 0, with which paths would have negative values."""
    if isinstance(argument, Tensor):
        return argument.is_floating_point() and bool((argument < 0).any())
    return isinstance(argument, (int, float)) and argument < 0


def _joined(node: Node, producers: Mapping[int, Node]) -> bool:
    """Return True for a maximum over the dimension at which several values have just been stacked or concatenated."""
    origin = producers.get(node.arguments["self"].index)
    if origin is None or origin.name not in ("stack", "cat"):
        return False
    rank, dims = len(origin.shapes[0]), node.arguments.get("dim", ())
    reduced = [dim % rank for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]
    return not reduced or origin.arguments.get("dim", 0) % rank in reduced
