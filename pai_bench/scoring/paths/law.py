"""The conservation law of path networks (Tanaka et al. 2020, theorem 3), checked on the scores of a dense network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring.paths.operations import LINEAR, MAXIMA, MEANS, NORMS, PRODUCTS, SHAPES, UNARY
from pai_bench.scoring.paths.tracing import Graph, Kind, Slot

REMEDY = "score with a method that uses data (snip, prospr), or change the layer"


def check_law(
    graph: Graph,
    scores: Mapping[str, Tensor],
    total: Tensor,
    sources: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
) -> None:
    """Check the scores |w| dR/d|w| of the layers that lie on paths from the input to the output.

    No score is negative, each layer has a positive sum (R in a chain without biases; branches share it), and the flow
    that begins at the `sources` (the input and all biases) is R, as it is in each cut through the network.

    Raises: PaiBenchError that names a layer for which this does not hold.
    """
    flow = float(total.detach())
    if not torch.isfinite(total.detach()):
        return  # the check of the scores has the words for it
    # Far above rounding errors of sums over a whole network, far below the effect of an operation without a rule.
    tolerance = 1e-6 if total.dtype == torch.float64 else 1e-3
    sums = dict(zip(scores, torch.stack([score.sum() for score in scores.values()]).tolist(), strict=True))
    lows = torch.stack([score.min() for score in scores.values()]).tolist()
    dead = [name for name in scores if not scores[name].any()]
    if dead:
        raise _dead(dead, scores, parameters)
    for name, low in zip(scores, lows, strict=True):
        # Relative to the sum of the layer, because single scores may be negative by rounding.
        if low < -tolerance * abs(sums[name]):
            raise _broken(name, "has negative scores", graph)
    sources = [source for source in sources if source.requires_grad]
    gradients = torch.autograd.grad(total, sources, allow_unused=True)
    begun = sum(float((s.detach() * g).sum()) for s, g in zip(sources, gradients, strict=True) if g is not None)
    if graph.input is not None and abs(begun - flow) > tolerance * abs(flow):
        # Where flow is lost or made, the layers before it have another sum than the network.
        name = max(sums, key=lambda name: abs(sums[name] - flow))
        raise _broken(name, f"has the sum {sums[name]:.6g}, but the flow of the network is {flow:.6g}", graph)


def check_factors(graph: Graph, pathless: Sequence[str]) -> None:
    """Check that the logits do not depend on weights to which no path leads.

    Divisors and conditions are left out of a path network. A layer that is used for nothing else would have scores of 0
    and be emptied. Layers on which the logits do not depend at all (auxiliary heads in eval mode) are not meant.

    Raises: PaiBenchError that names a layer.
    """
    used = set() if graph.output is None else {graph.output}
    for node in reversed(graph.nodes):
        if used.intersection(slot for slot in node.outputs if slot is not None):
            parts = [part for a in node.arguments.values() for part in (a if isinstance(a, (list, tuple)) else [a])]
            used.update(part.index for part in parts if isinstance(part, Slot))
    hidden = [name for name in pathless if graph.parameters.get(name) in used]
    if hidden:
        raise PaiBenchError(
            f"SynFlow cannot score {hidden[0]}: the logits depend on it only through a divisor, a condition or a"
            f" centring ({len(hidden)} layer{'s' * (len(hidden) > 1)})",
            REMEDY,
        )


def check_routes(method: str, graph: Graph, weights: Iterable[str], on_data: Callable[[], Graph]) -> None:
    """Check that the network uses for its data no layer that it does not use in the recorded pass of one input.

    The path network has the branch that this input takes. Experts that other inputs are routed to would be emptied.
    `on_data` records a pass of scoring data; it is called only if the recorded pass does not use all layers.

    Raises: PaiBenchError that names a layer.
    """
    unused = [name for name in weights if name not in graph.parameters]
    routed = set(on_data().parameters).intersection(unused) if unused else set()
    if routed:
        name = next(name for name in unused if name in routed)
        raise PaiBenchError(
            f"{method} cannot score {name}: it depends on the input whether the network uses it"
            f" ({len(routed)} layer{'s' * (len(routed) > 1)})",
            "score with a method that uses data (snip, prospr)",
        )


def _dead(dead: Sequence[str], scores: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> PaiBenchError:
    zeros = [name for name, p in parameters.items() if p.numel() and not p.any() and not name.endswith("bias")]
    name = next((name for name in dead if name in zeros), dead[0])
    cause = f"; all zero are {', '.join(zeros[:3])}{' and others' if len(zeros) > 3 else ''}" if zeros else ""
    return PaiBenchError(
        f"SynFlow cannot score {name}: all paths through it have the value 0 "
        f"({len(dead)} of {len(scores)} layers{cause})",
        "initialise heads, gains and residual branches with other values than 0, or score with another method",
    )


def _broken(name: str, what: str, graph: Graph) -> PaiBenchError:
    others = _unknown_operations(graph)
    cause = f" (operations without a rule: {', '.join(others[:3])})" if others else ""
    return PaiBenchError(f"SynFlow's law does not hold: layer {name} {what}{cause}", REMEDY)


def _unknown_operations(graph: Graph) -> list[str]:
    """Return the operations that the path network takes as they are although no rule states that they are linear."""
    known = UNARY | SHAPES | LINEAR | PRODUCTS | MAXIMA | MEANS | set(NORMS)
    return [
        f"{node.name} in {node.layer or 'the model'}"
        for node in graph.nodes
        if node.name not in known and "batch_norm" not in node.name and "max_pool" not in node.name
        if any(slot is not None and graph.kinds[slot] in (Kind.SIGNAL, Kind.GATE) for slot in node.outputs)
    ]
