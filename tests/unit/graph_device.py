"""CPU substitute for CUDA graphs: a capture records operations and their tensors, a replay runs exactly these.

As on a GPU, a capture computes nothing, a replay reads and writes the tensors of the capture, and Python numbers are
constants of the graph. A value that is read during a capture is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from pai_bench.core.dispatch import DispatchMode
from pai_bench.training import graph_step
from pai_bench.training.eager_step import Change
from pai_bench.training.graph_step import GraphStep

ERROR = "operation not permitted when stream is capturing"


class Recording(DispatchMode):
    """A capture."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, schema = kwargs or {}, func._schema
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(ERROR)
        if func.is_view or func.namespace == "profiler":  # no kernels
            return func(*args, **kwargs)
        if schema.is_mutable:
            given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
            written = [given[one.name] for one in schema.arguments if one.alias_info and one.alias_info.is_write]
            outputs = written[0] if schema.returns else None
        else:
            # On zeros, for shapes and strides: batch norm changes its statistics although its schema does not say so.
            outputs = func(*tree_map_only(Tensor, _zeros, args), **tree_map_only(Tensor, _zeros, kwargs))
        self._operations.append((func, args, kwargs, outputs))
        return outputs

    def replay(self) -> None:
        """Run the operations; their outputs are written to the tensors of the capture."""
        with torch.no_grad():
            for func, args, kwargs, outputs in self._operations:
                for old, new in zip(tree_leaves(outputs), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).zero_()


class Device:
    """Replaces the part of torch.cuda that GraphStep uses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factor: float = 1.0, error: str | None = None) -> None:
        """`factor`: an error of the rate of replays; `error`: the message of a failure of the first capture."""
        self.replays: list[int] = []
        """The number of images of each."""
        self.factor, self.error = factor, error
        self.current = self.default = FakeStream()
        self._step: GraphStep | None = None
        self._captured: set[GraphStep] = set()
        self._sizes: list[int] = []
        monkeypatch.setattr(graph_step, "_capture_stream", lambda device: FakeStream())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda device: self.default)
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
        monkeypatch.setattr(torch.cuda, "default_generators", [torch.default_generator])
        # The generator of the host, which is the device's here, stands still for the host.
        monkeypatch.setattr(graph_step, "host_random_state", lambda: ())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(self))
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**34, 2**34))

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        if self.error is not None:
            error, self.error = self.error, None
            raise RuntimeError(error)
        if (step := self._step) is not None:
            assert pool == ("pool" if step in self._captured else None)
        self._sizes.clear()
        with Recording() as graph.recording:
            yield
        graph.step, graph.images = step, sum(self._sizes)
        if step is not None:
            self._captured.add(step)

    def of(self, step: GraphStep) -> GraphStep:
        """Let the step run on this device."""
        launch, captured = step._launch, step._captured

        def launching(x: torch.Tensor, y: torch.Tensor, change: Change | None = None) -> None:
            self._sizes.append(len(x))
            launch(x, y, change)

        def capturing(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
            self._step = step
            try:
                return captured(work)
            finally:
                self._step = None

        step._launch, step._captured = launching, capturing  # type: ignore[method-assign]
        return step


class FakeGraph:
    """A captured graph."""

    recording: Recording
    step: GraphStep | None
    images: int

    def __init__(self, device: Device) -> None:
        self.device = device

    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        assert self.step is not None
        self.step.rate.mul_(self.device.factor)
        self.recording.replay()
        self.device.replays.append(self.images)


class FakeStream:
    """A stream that does nothing by itself."""

    device_index = 0

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeEvent:
    """An event that the device has reached."""

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return True
