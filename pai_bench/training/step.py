"""A training step, launched kernel by kernel or captured as a CUDA graph."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pai_bench.core.precision import forward
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.recipes import Train
from pai_bench.scoring.losses import by_name

WARM_UP = 3
"""Eager steps before the capture; PyTorch, cuDNN and cuBLAS initialise lazily, which a capture does not allow."""

TOLERANCE = 0.01
"""Allowed deviation of a replayed step from the eager one, relative to the change that the step makes."""


class Step:
    """Forward pass, backward pass, masking and SGD update of one batch; accumulates the loss without synchronising."""

    mechanism = "eager"

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], settings: Train) -> None:
        """Take the model and set its pruned weights to zero."""
        self.device = next(model.parameters()).device
        self.total = torch.zeros((), device=self.device)
        """Sum of the losses over images; the caller reads it and resets it to zero."""
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
            # PyTorch's fused SGD fails when a parameter gets its first gradient later than others. A zero momentum
            # buffer avoids this and gives the same first update, because momentum x 0 + g = g.
            for weight in model.parameters():
                self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self._model = model
        self._bfloat16 = settings.precision == "bfloat16"
        self._channels_last = settings.channels_last
        self._loss = by_name(settings.loss)

    def __call__(self, x: Tensor, y: Tensor, lr: float) -> None:
        """Run the step for a batch with the learning rate `lr`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._launch(x, y)

    def _launch(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(forward(self._model, x, self._bfloat16, self._channels_last), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.masked()
        self.optimizer.step()
        self.total += loss.detach() * len(y)


@dataclass
class _Batch:
    """Input buffers for one batch size and the CUDA graph captured with them."""

    x: Tensor
    y: Tensor
    launched: int = 0
    graph: torch.cuda.CUDAGraph | None = None


class GraphStep(Step):
    """The same step on a GPU, captured once as a CUDA graph and then replayed to save launch overhead on the host.

    Each batch size has its own graph (the last batch of an epoch may be short); the first steps of each size run
    eagerly. A captured step is compared with an eager step before it is used. If a model cannot be captured, or the
    replay differs, the training continues eagerly; `mechanism` records the mode.
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
        """Run an eager step on the capture stream, so that per-stream library state exists before the capture."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._launch(x, y)
        current.wait_stream(self._stream)

    def _capture_and_check(self, batch: _Batch) -> None:
        """Run the step eagerly, then capture it and check that a replay from the same state gives the same change."""
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
            # All CUDA graphs read the generator's offset from one shared tensor, which a replay for another cell
            # overwrites; cells that share the device would therefore change each other's draws.
            self._refuse(
                "it draws random numbers, which a graph cannot do while other cells train on the device", by_hand
            )
            return
        try:
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            # All graphs of a cell share one memory pool, because they never run at the same time. The capture mode
            # "thread_local" allows CUDA calls of other threads during the capture.
            pool = next((other.graph.pool() for other in self._batches.values() if other.graph is not None), None)
            # The outer context restores the current stream, which torch.cuda.graph does not do after a failed capture.
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
        """Switch to eager steps for the rest of the training, starting from the state after the eager step."""
        warnings.warn(f"no CUDA graph: {reason}; the training continues with eager steps", RuntimeWarning, stacklevel=3)
        self._refused, self.mechanism = True, "eager"
        self._batches.clear()
        self.optimizer.zero_grad(set_to_none=True)
        self._put(by_hand)

    def _state(self) -> list[list[Tensor]]:
        """Return all tensors that a step changes: parameters, buffers, momentum buffers, and the sum of the losses."""
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
        """Check that the replayed step changes the state like the eager step, up to TOLERANCE.

        Not bit for bit, because some cuDNN kernels add in a nondeterministic order. By group and not by tensor,
        because the gradient of a bias before a norm consists of rounding errors only.
        """
        for old, wanted, found in zip(before, by_hand, self._copies(), strict=True):
            change, error = _distance(wanted, old), _distance(found, wanted)
            if math.isfinite(change) and not error <= TOLERANCE * change:
                return False
        return True


def _host_draws() -> tuple[Any, ...]:
    """Return the states of the global random generators on the host."""
    legacy = np.random.get_state(legacy=False)["state"]
    return random.getstate(), legacy["pos"], legacy["key"].tobytes(), torch.get_rng_state().numpy().tobytes()


def _distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in zip(ours, theirs, strict=True)))


def make_step(model: nn.Module, masks: Mapping[str, Tensor], settings: Train) -> Step:
    """Create the step for the recipe's settings; `cuda_graph` has an effect on a GPU only."""
    if settings.cuda_graph and next(model.parameters()).device.type == "cuda":
        return GraphStep(model, masks, settings)
    return Step(model, masks, settings)
