"""Training step on a GPU, captured as a CUDA graph and replayed."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pai_bench.core.precision import float32_products
from pai_bench.core.randomness import host_random_state
from pai_bench.recipes import Train
from pai_bench.training.eager_step import Change, Step, no_seed
from pai_bench.training.foreach import FewerKernels

WARM_UP = 3
"""Eager steps before the capture; PyTorch, cuDNN and cuBLAS initialise lazily, which a capture does not allow."""

TOLERANCE = 0.01
"""Allowed deviation of a replayed step from the eager one, relative to the change that the step makes."""


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for captures, one per process: PyTorch may keep 35 MB of workspace for each stream."""
    return torch.cuda.Stream(device)


@dataclass
class _Program:
    """A sequence of launches on static memory, and its graph once it has been captured."""

    by_hand: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    draws: bool = False
    """The launches draw random numbers, which must be seeded before each replay."""
    seconds: float = 0.0
    """Duration of a replay on the device."""


class GraphStep(Step):
    """The same step on a GPU, captured once as a CUDA graph and then replayed to save launch overhead on the host.

    Each kind of launch has its own graph (each batch size, because the last batch of an epoch may be short, and each
    number of steps); the first launches run eagerly. A captured step is compared with an eager step before it is used.
    If a model cannot be captured, or the replay differs, the training continues eagerly; `mechanism` records the mode.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        settings: Train,
        alone: Callable[[], bool] = lambda: True,
        changing: bool = False,
    ) -> None:
        """Take the arguments of `Step`; `alone` returns True while no other cell trains on the device."""
        super().__init__(model, masks, settings, changing)
        self.rate = torch.zeros(1, device=self.device)
        """The learning rate of the next step; in float32, as a captured step reads it from the device."""
        self.several = True
        """False when several steps in one graph have not agreed with the same steps by hand."""
        self._alone = alone
        self._stream = _capture_stream(self.device)
        self._programs: dict[Hashable, _Program] = {}
        self._static: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        self._fewer = FewerKernels(model, self._bfloat16, settings.compile)
        self._as_defined = False
        """Launch every kernel of the plain step, as a reference for the captured one."""
        self._refused = False
        self._more_state: list[Tensor] = []

    def __call__(
        self, x: Tensor, y: Tensor, lr: float, seed: Callable[[], None] = no_seed, change: Change | None = None
    ) -> None:
        # A Python number would be a constant of the graph; a replay reads this tensor again.
        self.rate.fill_(lr)
        if change is not None:
            self.by_hand(lambda: self.on_batch(x, y, change), seed)
            return
        if x.shape not in self._static:
            # A graph reads fixed addresses; every batch is copied to the tensors that the capture has seen.
            self._static[x.shape] = x.clone(), y.clone()
        batch = self._static[x.shape]
        batch[0].copy_(x)
        batch[1].copy_(y)
        self.launch(x.shape, lambda: self.on_batch(*batch), seed)

    def on_batch(self, x: Tensor, y: Tensor, change: Change | None = None) -> None:
        """Enqueue the kernels of a step with the learning rate in `rate`; for the argument `work` of `launch`."""
        self._launch(x, y, change)

    def by_hand(self, work: Callable[[], None], seed: Callable[[], None]) -> None:
        """Run a step in which masks change. Its kernels are not those of other steps, so it is never captured.

        Masks change in place; graphs that were captured before remain valid.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate[0]
        seed()
        with float32_products(self._products):
            self._by_definition(work)

    def add_state(self, tensor: Tensor) -> None:
        """Declare a tensor that launches change besides the state of the training."""
        self._more_state.append(tensor)

    def replay_seconds(self, key: Hashable) -> float | None:
        """Return the duration of a launch that has been captured and draws no random numbers, else None."""
        program = self._programs.get(key)
        return None if program is None or program.graph is None or program.draws else program.seconds

    def launch(self, key: Hashable, work: Callable[[], None], seed: Callable[[], None], steps: int = 1) -> None:
        """Run `work`, which enqueues `steps` steps on tensors that keep their addresses, or replay its graph.

        All launches with one `key` must enqueue the same kernels.

        Raises: torch.OutOfMemoryError when the memory does not suffice for a capture beside other cells.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate[0]
        program = self._programs.setdefault(key, _Program())
        if program.graph is not None:
            if program.draws:
                seed()
            program.graph.replay()
            return
        seed()
        with float32_products(self._products):
            if self._refused:
                self._by_definition(work)
            elif program.by_hand < WARM_UP and steps == 1:
                program.by_hand += 1
                self._on_stream(work)
            else:
                self._capture_and_check(program, work, steps)

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        return super()._gradients(x, y) if self._as_defined else self._fewer.run(lambda: self._forward(x, y))

    def _by_definition(self, work: Callable[[], None]) -> None:
        self._as_defined = True
        try:
            work()
        finally:
            self._as_defined = False

    def _on_stream(self, work: Callable[[], None]) -> None:
        """Enqueue `work` on the capture stream, so that per-stream library state exists before the capture."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def _capture_and_check(self, program: _Program, work: Callable[[], None], steps: int) -> None:
        """Run the steps eagerly, then capture them and check that a replay from the same state does the same."""
        generator = torch.cuda.default_generators[self._stream.device_index]
        draws, host = generator.get_state(), host_random_state()
        before = self._copies_if_room()
        self._on_stream(lambda: self._by_definition(work))
        by_hand = None if before is None else self._copies_if_room()
        if before is None or by_hand is None:
            if steps > 1:
                self.several = False
            else:
                self._refuse("the memory does not suffice for copies of the training's state")
            return
        if host_random_state() != host:
            self._refuse("it draws random numbers on the host, which a replay cannot draw again", by_hand)
            return
        # The state of the generator shows draws of any operation; a model does not declare them.
        program.draws = not torch.equal(generator.get_state(), draws)
        if program.draws and torch.cuda.current_stream(self.device) != torch.cuda.default_stream(self.device):
            # All CUDA graphs read the generator's offset from one shared tensor, which a replay for another cell
            # overwrites; cells that share the device would therefore change each other's draws.
            self._refuse(
                "it draws random numbers, which a graph cannot do while other cells train on the device", by_hand
            )
            return
        try:
            graph = self._captured(work)
            self._put(before)
            # The replay must draw the numbers of the eager step, or their results could not be compared.
            generator.set_state(draws)
            program.seconds = self._timed(graph)
            reason = (
                None
                if self._agrees(before, by_hand, steps)
                else "the replayed step differs from the one launched by hand"
            )
        except RuntimeError as error:
            self._put(by_hand)
            self._end_of_failed_capture()
            if isinstance(error, torch.OutOfMemoryError) and not self._alone():
                raise  # with fewer cells on the device there is room for the graph
            reason = str(error).partition("\n")[0]
        if reason is None:
            program.graph, self.mechanism = graph, "cuda-graph"
        elif steps > 1:
            self.several = False
            self._put(by_hand)
        else:
            self._refuse(reason, by_hand)

    def _captured(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        # All graphs of a cell share one memory pool, because they never run at the same time. The capture mode
        # "thread_local" allows CUDA calls of other threads during the capture.
        captured = (program.graph for program in self._programs.values() if program.graph is not None)
        pool = next((other.pool() for other in captured), None)
        # The outer context restores the current stream, which torch.cuda.graph does not do after a failed capture.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
            torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph

    def _timed(self, graph: torch.cuda.CUDAGraph) -> float:
        """Replay a graph once and return its duration in seconds."""
        stream = torch.cuda.current_stream(self.device)
        stream.synchronize()
        began = time.perf_counter()
        graph.replay()
        stream.synchronize()
        return time.perf_counter() - began

    def _end_of_failed_capture(self) -> None:
        """Make the random generator of the device usable again.

        In PyTorch 2.11 it stays in capture mode after a capture that was invalidated, and every later draw in the
        process would raise ("Offset increment outside graph capture"); a successful capture ends this mode.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
            torch.cuda.graph(torch.cuda.CUDAGraph(), None, self._stream, capture_error_mode="thread_local"),
        ):
            self.rate.mul_(1)

    def _refuse(self, reason: str, by_hand: list[list[Tensor]] | None = None) -> None:
        """Switch to eager steps for the rest of the training, from the state after the eager step if it is given."""
        warnings.warn(f"no CUDA graph: {reason}; the training continues with eager steps", RuntimeWarning, stacklevel=3)
        self._refused, self.mechanism = True, "eager"
        self._programs.clear()
        self.optimizer.zero_grad(set_to_none=True)
        if by_hand is not None:
            self._put(by_hand)

    def _state(self) -> list[list[Tensor]]:
        """Return all tensors that a step changes: parameters, buffers, momentum, the sum of the losses, counters."""
        momentum = [value for state in self.optimizer.state.values() for value in state.values() if value is not None]
        buffers = list(self._model.buffers())
        return [list(self._model.parameters()), buffers, momentum, [self.total], self._more_state]

    def _copies(self) -> list[list[Tensor]]:
        return [[tensor.detach().clone() for tensor in group] for group in self._state()]

    def _copies_if_room(self) -> list[list[Tensor]] | None:
        """Return copies of the state, or None if the memory does not suffice and no other cell could make room."""
        try:
            return self._copies()
        except torch.OutOfMemoryError:
            if not self._alone():
                raise
            return None

    def _put(self, copies: list[list[Tensor]]) -> None:
        with torch.no_grad():
            for group, copied in zip(self._state(), copies, strict=True):
                for tensor, copy in zip(group, copied, strict=True):
                    tensor.copy_(copy)

    def _agrees(self, before: list[list[Tensor]], by_hand: list[list[Tensor]], steps: int) -> bool:
        """Check that the replayed steps change the state like the eager ones, up to TOLERANCE per step.

        Not bit for bit, because some cuDNN kernels add in a nondeterministic order. By group and not by tensor,
        because the gradient of a bias before a norm consists of rounding errors only. Waits for the device once.
        """
        groups = [group for group in zip(before, by_hand, self._copies(), strict=True) if group[0]]
        distances = [(_distance(expected, old), _distance(found, expected)) for old, expected, found in groups]
        for change, error in torch.stack([torch.stack(pair) for pair in distances]).tolist():
            if math.isfinite(change) and not error <= TOLERANCE * steps * change:
                return False
        return True


def _distance(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Return the Euclidean distance, a scalar on the device."""
    # In float64: the change of one step may be close to the rounding errors of float32 values.
    squares = [(a.double() - b.double()).square().sum() for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(squares).sum().sqrt()
