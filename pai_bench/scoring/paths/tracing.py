"""Record the operations of a model's forward pass as a graph.

The record is made below torch's Python functions (ATen operations), so that it does not depend on how a model calls an
operation: as a module, a function, a method, in place, or inside of torch's own attention and recurrent layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_map_only

from pai_bench.core.dispatch import DispatchMode
from pai_bench.core.outputs import logits
from pai_bench.scoring.paths.layouts import Layout, layout_of, overlap, overlay, storage_of


class Kind(Enum):
    """The origin of a recorded tensor."""

    SIGNAL = "depends on the input"
    GATE = "depends on the input through a function with a bounded, positive range"
    WEIGHT = "depends on parameters alone"
    NEUTRAL = "a condition or a normaliser, which counts as one"


@dataclass(frozen=True)
class Slot:
    """The place of a recorded tensor among the arguments of a node."""

    index: int


@dataclass(frozen=True)
class Node:
    """One operation. `outputs` holds a slot for each output, None for an output that is not recorded."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    """By the names of the operation's schema."""
    outputs: tuple[int | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    layer: str


@dataclass(frozen=True)
class Graph:
    """The operations of one forward pass in their order."""

    nodes: Sequence[Node]
    kinds: Sequence[Kind]
    """By slot."""
    shapes: Sequence[tuple[int, ...]]
    """By slot."""
    input: int | None
    """The slot of the input; None for integers."""
    parameters: Mapping[str, int]
    """The slots of the parameters that the pass uses, by name."""
    output: int | None
    """The slot of the logits; None when they do not depend on the input."""
    on_replay: Callable[[Tensor], None] = lambda _: None  # receives the result of every evaluation


GATES = {"sigmoid", "hardsigmoid", "_softmax", "_safe_softmax", "softmax"}
NORMALISERS = {"rsqrt", "reciprocal"}
STEPS = {"heaviside"}
STATISTICS = {"mean", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm"}
_SPREADING = {"add", "sub", "rsub", "mul", "div"}
"""A gate stays one under these with a constant; under all others with a weight it becomes an ordinary signal."""
_MAPPING = {"convolution", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "native_layer_norm", "native_group_norm"}

CONSTRUCTORS = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones"),
    *("new_full", "new_empty", "new_empty_strided", "empty_strided"),
}
"""Operations that take nothing but a shape from their argument."""


def trace(model: nn.Module, x: Tensor) -> Graph:
    """Record one forward pass of `model` on the inputs x [B, …], in the modes that the modules have.

    The values of the pass are not kept, except those that depend neither on x nor on a parameter.
    """
    x = x.clone()  # the model may change it in place
    recorder = _Recorder(model, x)
    with ExitStack() as stack:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        # oneDNN computes an LSTM in float32 by one operation whose products could not be followed or counted.
        # (The context manager of torch.backends.mkldnn also sets TF32, and warns of it.)
        enabled, *_ = torch.backends.mkldnn.set_flags(False)
        stack.callback(torch.backends.mkldnn.set_flags, enabled)
        stack.enter_context(recorder.layers(model))
        # For a layer that is compiled by itself: its hooks run twice, which does not change the name that is noted.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", r"Using `torch\.compile\(module\)` when there are global hooks", UserWarning)
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        output = logits(model(x))
    return recorder.graph(output)


@dataclass
class _Write:
    slot: int
    layout: Layout
    itemsize: int


@dataclass
class _Known:
    slot: int
    writes: int
    """The number of writes to the storage that the slot includes."""


class _Recorder(DispatchMode):
    """Tensors are recognised by their storage and layout: views of one layout are one tensor."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self._nodes: list[Node] = []
        self._kinds: list[Kind] = []
        self._shapes: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, Layout], _Known] = {}
        self._writes: dict[int, list[_Write]] = {}
        self._tokens: set[int] = set()
        self._alive: list[Any] = [x]  # a storage that is freed could be taken for another one
        self._owners = {storage_of(p): (name, p) for name, p in model.named_parameters() if p.is_floating_point()}
        self._parameters: dict[str, int] = {}
        self._layer: list[str] = [""]
        self._input: int | None = None
        if x.is_floating_point():
            self._input = self._new(x, Kind.SIGNAL)
        else:
            self._tokens.add(storage_of(x))

    @contextmanager
    def layers(self, model: nn.Module) -> Iterator[None]:
        """Note the names of the modules that are being computed."""
        names = {module: name for name, module in model.named_modules()}

        def enter(module: nn.Module, _: Any) -> None:
            self._layer.append(names.get(module, self._layer[-1]))

        def leave(_: nn.Module, __: Any, ___: Any) -> None:
            self._layer.pop()

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def graph(self, output: Tensor) -> Graph:
        """Return all that was recorded."""
        slot = self._slot(output)
        signal = slot is not None and self._kinds[slot] in (Kind.SIGNAL, Kind.GATE)
        return Graph(self._nodes, self._kinds, self._shapes, self._input, self._parameters, slot if signal else None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        in_place = func.overloadpacket.__name__.endswith("_") and not func.overloadpacket.__name__.endswith("__")
        named = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        written = named.pop("out", None)
        recorded = tree_map_only(Tensor, self._reference, named)
        result = func(*args, **kwargs)
        self._alive.append((args, kwargs, result))
        slots = [part for part in tree_flatten(recorded)[0] if isinstance(part, Slot)]
        tokens = any(storage_of(t) in self._tokens for t in tree_flatten(named)[0] if isinstance(t, Tensor))
        if (slots or tokens) and func.overloadpacket.__name__ not in CONSTRUCTORS:
            first = args[0] if in_place else written
            self._record(func, in_place, recorded, slots, tokens, result, first)
        return result

    def _record(
        self, func: Any, in_place: bool, recorded: Any, slots: list[Slot], tokens: bool, result: Any, written: Any
    ) -> None:
        name = func.overloadpacket.__name__.removesuffix("_") if in_place else func.overloadpacket.__name__
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        tensors = [part if isinstance(part, Tensor) else None for part in results]
        outputs: list[int | None] = []
        kind = self._kind(name, recorded, slots, tokens)
        for tensor in tensors:
            if tensor is None:
                outputs.append(None)
            elif tensor.is_floating_point() or tensor.is_complex():
                outputs.append(None if kind is None else self._new(tensor, kind, written))
            elif tensor.dtype == torch.bool and slots:
                outputs.append(self._new(tensor, Kind.NEUTRAL, written))
            else:
                self._tokens.add(storage_of(tensor))
                outputs.append(None)
        if any(slot is not None for slot in outputs):
            shapes = tuple(tuple(t.shape) if t is not None else () for t in tensors)
            function = _functional(func, name) if in_place else func
            self._nodes.append(Node(name, function, recorded, tuple(outputs), shapes, self._layer[-1]))

    def _kind(self, name: str, recorded: Mapping[str, Any], slots: list[Slot], tokens: bool) -> Kind | None:
        kinds = {self._kinds[slot.index] for slot in slots}
        if name == "embedding" and tokens:
            return Kind.SIGNAL
        if not kinds:
            return None
        if kinds == {Kind.NEUTRAL} or self._normalises(name, recorded, kinds):
            return Kind.NEUTRAL
        if not kinds & {Kind.SIGNAL, Kind.GATE}:
            return Kind.WEIGHT
        if name in GATES:
            return Kind.GATE
        if Kind.SIGNAL in kinds or name in _MAPPING or "batch_norm" in name:
            return Kind.SIGNAL
        gates = sum(self._kinds[slot.index] is Kind.GATE for slot in slots)
        return Kind.SIGNAL if gates > 1 and name not in _SPREADING and name not in ("cat", "stack") else Kind.GATE

    def _normalises(self, name: str, recorded: Mapping[str, Any], kinds: set[Kind]) -> bool:
        if name in NORMALISERS | STEPS or (name == "pow" and _negative(recorded.get("exponent"))):
            return True
        if name == "div" and not isinstance(recorded["self"], Slot):  # one over it
            return True
        return name in STATISTICS and not kinds & {Kind.SIGNAL, Kind.GATE}

    def _new(self, tensor: Tensor, kind: Kind, written: Any = None) -> int:
        slot, storage = self._add(kind, tensor), storage_of(tensor)
        writes = self._writes.setdefault(storage, [])
        if isinstance(written, Tensor):
            writes.append(_Write(slot, layout_of(tensor), tensor.element_size()))
        self._known[storage, layout_of(tensor)] = _Known(slot, len(writes))
        return slot

    def _add(self, kind: Kind, tensor: Tensor) -> int:
        self._kinds.append(kind)
        self._shapes.append(tuple(tensor.shape))
        return len(self._kinds) - 1

    def _reference(self, tensor: Tensor) -> Any:
        slot = self._slot(tensor)
        return tensor if slot is None else Slot(slot)

    def _slot(self, tensor: Tensor) -> int | None:
        """Return the slot of a tensor, updated by all writes to its storage; None for a constant."""
        storage, layout = storage_of(tensor), layout_of(tensor)
        known = self._known.get((storage, layout))
        if known is None and storage in self._owners and layout_of(self._owners[storage][1]) == layout:
            name = self._owners[storage][0]
            self._parameters[name] = self._new(tensor, Kind.WEIGHT)
            return self._parameters[name]
        writes = self._writes.get(storage, [])
        if known is None and not writes:
            return None
        if known is not None and known.writes == len(writes):
            return known.slot
        value: Any = Slot(known.slot) if known is not None else None
        for write in writes[known.writes if known is not None else 0 :]:
            # A write beside the tensor, as to another gate of a recurrent cell, leaves its value and its kind.
            if write.itemsize == tensor.element_size() and not overlap(write.layout, layout):
                continue
            value = tensor.clone() if value is None else value  # which may be overwritten later
            kinds = {self._kinds[part.index] for part in (value, Slot(write.slot)) if isinstance(part, Slot)}
            slot = self._add(Kind.SIGNAL if kinds & {Kind.SIGNAL, Kind.GATE} else Kind.WEIGHT, tensor)
            size = tensor.untyped_storage().nbytes() // tensor.element_size()
            arguments = {"base": value, "src": Slot(write.slot), "layouts": (layout, write.layout, size)}
            self._nodes.append(Node("overlay", overlay, arguments, (slot,), (tuple(tensor.shape),), self._layer[-1]))
            value = Slot(slot)
        if not isinstance(value, Slot):
            return None
        self._known[storage, layout] = _Known(value.index, len(writes))
        return value.index


def _negative(value: Any) -> bool:
    return isinstance(value, (int, float)) and value < 0


def _functional(func: Any, name: str) -> Any:
    """Return the operation that returns what `func` writes in place."""
    packet = getattr(torch.ops.aten, name, None)
    return getattr(packet, func._overloadname, None) or func
