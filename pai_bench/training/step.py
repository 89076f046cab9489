"""A training step, one launch of kernels at a time or captured as a CUDA graph."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.core.precision import forward
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.recipes import Train

WARM_UP = 3
"""Steps before the capture, in which PyTorch and the libraries settle."""

TOLERANCE = 0.01
"""How far a replayed step may be from the same one launched by hand, relative to what the step changes."""


class Step:
    """Forward, backward, masks and SGD for one batch; sums the losses up. Waits for nothing."""

    mechanism = "eager"

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], settings: Train) -> None:
        """Take the model; its pruned weights become zero."""
        self.device = next(model.parameters()).device
        self.total = torch.zeros((), device=self.device)
        """The sum over images of the losses, since whoever reads it has last set it to zero."""
        self.masked = MaskedGradients(model, masks)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        if settings.momentum:
            # PyTorch's fused step fails where a layer has its first gradient later than others; 0.9 x 0 + g is g.
            for weight in model.parameters():
                self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self._model = model
        self._bfloat16 = settings.precision == "bfloat16"
        self._channels_last = settings.channels_last

    def __call__(self, x: Tensor, y: Tensor, lr: float) -> None:
        """Do the step for a batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._launch(x, y)

    def _launch(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(self._model, x, self._bfloat16, self._channels_last), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.masked()
        self.optimizer.step()
        self.total += loss.detach() * len(y)


@dataclass
class _Batch:
    """Where the batches of a size lie, and the graph of their step."""

    x: Tensor
    y: Tensor
    launched: int = 0
    graph: torch.cuda.CUDAGraph | None = None


class GraphStep(Step):
    """The same step on a GPU, captured once and then replayed: the same kernels, and next to no work for the host.

    Each size of batch (the last one of an epoch may be short) has its graph; its first steps are launched by hand. A
    captured step is compared with one launched by hand before it is trusted; a model that cannot be captured, or whose
    replay is something else, is trained eagerly, and `mechanism` says so.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], settings: Train) -> None:
        super().__init__(model, masks, settings)
        self._lr = torch.zeros((), device=self.device)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._batches: dict[torch.Size, _Batch] = {}
        self._refused = False

    def __call__(self, x: Tensor, y: Tensor, lr: float) -> None:
        self._lr.fill_(lr)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr
        if self._refused:
            self._on_stream(x, y)
            return
        if x.shape not in self._batches:
            self._batches[x.shape] = _Batch(x.clone(), y.clone())
        batch = self._batches[x.shape]
        if batch.launched < WARM_UP:
            batch.launched += 1
            self._on_stream(x, y)
            return
        batch.x.copy_(x)
        batch.y.copy_(y)
        if batch.graph is None:
            self._capture_and_check(batch)
        else:
            batch.graph.replay()

    def _on_stream(self, x: Tensor, y: Tensor) -> None:
        """By hand, on the stream of the capture: what libraries set up for a stream is there when it begins."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._launch(x, y)
        current.wait_stream(self._stream)

    def _capture_and_check(self, batch: _Batch) -> None:
        """Do the step by hand, and see whether the captured one does the same from the same state."""
        generator = torch.cuda.default_generators[self._stream.device_index]
        draws, host = generator.get_state(), _host_draws()
        before = self._copies()
        self._on_stream(batch.x, batch.y)
        by_hand = self._copies()
        if _host_draws() != host:
            self._refuse("it draws random numbers on the host, which a replay would not draw again", by_hand)
            return
        drew = not torch.equal(generator.get_state(), draws)
        if drew and torch.cuda.current_stream(self.device) != torch.cuda.default_stream(self.device):
            # All captured steps read where the generator stands from one place, which another cell's replay sets anew.
            self._refuse("it draws random numbers, which cells that train side by side cannot", by_hand)
            return
        try:
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            # All graphs of a cell work in the same memory. Other threads may use the device meanwhile.
            pool = next((other.graph.pool() for other in self._batches.values() if other.graph is not None), None)
            # A capture that fails does not leave its stream by itself.
            with (
                torch.cuda.stream(torch.cuda.current_stream(self.device)),
                torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
            ):
                self._launch(batch.x, batch.y)
            self._put(before)
            generator.set_state(draws)
            graph.replay()
            reason = (
                None if self._agrees(before, by_hand) else "the replayed step differs from the one launched by hand"
            )
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
        if reason is None:
            batch.graph, self.mechanism = graph, "cuda-graph"
        else:
            self._refuse(reason, by_hand)

    def _refuse(self, reason: str, by_hand: list[list[Tensor]]) -> None:
        """Go on by hand from where that has led."""
        warnings.warn(f"no CUDA graph: {reason}; training goes on without", RuntimeWarning, stacklevel=3)
        self._refused, self.mechanism = True, "eager"
        self._batches.clear()
        self.optimizer.zero_grad(set_to_none=True)
        self._put(by_hand)

    def _state(self) -> list[list[Tensor]]:
        """All that a step changes: parameters, buffers, momentum, the sum of the losses."""
        momentum = [value for state in self.optimizer.state.values() for value in state.values() if value is not None]
        return [list(self._model.parameters()), list(self._model.buffers()), momentum, [self.total]]

    def _copies(self) -> list[list[Tensor]]:
        return [[tensor.detach().clone() for tensor in group] for group in self._state()]

    def _put(self, copies: list[list[Tensor]]) -> None:
        with torch.no_grad():
            for group, copied in zip(self._state(), copies, strict=True):
                for tensor, copy in zip(group, copied, strict=True):
                    tensor.copy_(copy)

    def _agrees(self, before: list[list[Tensor]], by_hand: list[list[Tensor]]) -> bool:
        """Whether what a step changes is as by hand; not bit for bit, some of cuDNN's kernels add in any order.

        By group and not by tensor: a bias before a norm has a gradient of rounding errors alone.
        """
        for old, wanted, found in zip(before, by_hand, self._copies(), strict=True):
            change, error = _distance(wanted, old), _distance(found, wanted)
            if math.isfinite(change) and not error <= TOLERANCE * change:
                return False
        return True


def _host_draws() -> tuple[Any, ...]:
    """Where the global generators of the host stand."""
    legacy = np.random.get_state(legacy=False)["state"]
    return random.getstate(), legacy["pos"], legacy["key"].tobytes(), torch.get_rng_state().numpy().tobytes()


def _distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in zip(ours, theirs, strict=True)))


def make_step(model: nn.Module, masks: Mapping[str, Tensor], settings: Train) -> Step:
    """The step that the recipe asks for; a CUDA graph needs a GPU, and is the same step without."""
    if settings.cuda_graph and next(model.parameters()).device.type == "cuda":
        return GraphStep(model, masks, settings)
    return Step(model, masks, settings)
