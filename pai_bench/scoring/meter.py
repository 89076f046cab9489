"""Meter of the cost of scoring that does not depend on the machine: passes, and the data seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pai_bench.scoring.problem import Batch


class Meter:
    """Counts passes through a model and its path network, and the samples that are drawn.

    A forward pass is one evaluation for a batch of any size. A backward pass is one return of the gradient through the
    outputs of a forward pass; a Hessian-vector product adds another one.
    """

    def __init__(self) -> None:
        self.forward = self.backward = self.images = self.labels = 0
        self._paused = False

    def watch(self, model: nn.Module) -> None:
        """Count the passes through a model from now on."""
        model.register_forward_hook(lambda _, __, outputs: self.passed(outputs))

    def passed(self, outputs: Any) -> None:
        """Count a forward pass, and the backward passes through its outputs."""
        if self._paused:
            return
        self.forward += 1
        tensors = [part for part in tree_leaves(outputs) if isinstance(part, Tensor) and part.requires_grad]
        with suppress(RuntimeError):  # tensors inside a transform of torch.func take no hooks
            # One output alone, because a backward pass through several would be counted several times.
            for tensor in tensors[:1]:
                tensor.register_hook(self._returned)

    def _returned(self, _: Tensor) -> None:
        self.backward += not self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the passes inside, which do not belong to the method."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def counted(self, batches: Iterable[Batch]) -> Counted:
        """Return the batches; the first draw of each counts its samples."""
        return Counted(batches, self)


class Counted:
    """Batches that count the samples drawn from them."""

    def __init__(self, batches: Iterable[Batch], meter: Meter) -> None:
        self._batches = batches
        self._meter = meter
        self._seen = 0

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        for position, batch in enumerate(self._batches):
            if position < self._seen:  # read before
                yield batch
                continue
            self._seen = position + 1
            with suppress(TypeError, ValueError, IndexError, KeyError):  # the reader refuses other values
                inputs, targets = batch
                self._meter.images += len(inputs)
                self._meter.labels += len(targets)
            yield batch
