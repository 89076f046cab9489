"""What a pruning method sees: the problem it scores, and the signature it has.

This is the only module of the harness that the author of a method needs to read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.convolutions import InParts
from pai_bench.errors import PaiBenchError

Batch = tuple[Tensor, Tensor]
"""Inputs [B, …] and targets [B]."""

PRUNABLE_MODULES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


class Scorer(Protocol):
    """A pruning method: a frozen dataclass whose fields are its hyper-parameters.

    A method with outer pruning rounds has an integer field `rounds`, and may have `schedule`
    ("exponential" or "linear"); one that decides how many weights each layer keeps has a method
    `quotas(problem) -> dict[str, int]`; one that needs a number of batches of its own has
    `batches_needed() -> int`. Two facts may stand in the class: `fresh = True`, every round gets new batches, and
    `revives = True`, a pruned weight may come back in a later round.
    """

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        """One score per prunable weight, by parameter name and in its shape; a higher score is kept."""
        ...


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable parameters by name, in the model's order: weights of conv and linear layers.

    Biases and norms are not prunable. A weight shared by two layers is listed once.

    Raises: PaiBenchError when the model has none.
    """
    wanted = {id(module.weight) for module in model.modules() if isinstance(module, PRUNABLE_MODULES)}
    weights = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in wanted}
    if not weights:
        raise PaiBenchError(
            f"{type(model).__name__} has nothing to prune: it has no conv or linear layer with a weight",
            "pass a model with torch.nn.Conv*d or torch.nn.Linear layers (biases and norms are not prunable)",
        )
    return weights


class Batches:
    """The scoring batches, drawn once from the caller's iterable and kept, so that every pass sees the same ones.

    Batches are drawn only as far as a method reads; inputs of floating type are cast to `dtype`.
    """

    def __init__(
        self, source: Iterable[Batch], device: torch.device, dtype: torch.dtype, tick: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self._device = device
        self._dtype = dtype
        self.tick = tick
        """Called at every batch and every forward pass: a sign of progress for whoever waits."""
        self._drawn: list[Batch] = []
        self._stream: Iterator[Batch] | None = None

    def _next(self) -> Batch:
        if self._stream is None:
            self._stream = iter(self._source)
        x, y = next(self._stream)
        return x, y

    def _cast(self, batch: Batch) -> Batch:
        self.tick()
        x, y = batch
        x = x.to(self._device)
        return (x.to(self._dtype) if x.is_floating_point() else x), y.to(self._device)

    def __call__(self) -> Iterator[Batch]:
        """The batches from the first one on."""
        position = 0
        while True:
            if position == len(self._drawn):
                try:
                    self._drawn.append(self._next())
                except StopIteration:
                    break
            yield self._cast(self._drawn[position])
            position += 1
        if not self._drawn:
            raise _empty()

    def fresh(self) -> Iterator[Batch]:
        """Batches not seen before: the rest of the stream, which starts anew at its end."""
        while True:
            try:
                batch = self._next()
            except StopIteration:
                self._stream = iter(self._source)
                try:
                    batch = self._next()
                except StopIteration:
                    raise _empty() from None
            yield self._cast(batch)

    def dealt(self, rounds: int) -> Iterator[Batches]:
        """The batches of each round, without end: all of them are dealt out, and when too few they take turns."""
        size = max(1, len(self._source) // rounds) if isinstance(self._source, Sized) else 1
        stream = Batches(self._source, self._device, self._dtype).fresh()
        while True:
            yield Batches(list(itertools.islice(stream, size)), self._device, self._dtype, self.tick)


def _empty() -> PaiBenchError:
    return PaiBenchError("the scoring data hold no batch", "pass a non-empty re-iterable of (x, y) batches")


@dataclass(frozen=True)
class Problem:
    """One round of scoring, on a private copy of the model that the method may do with as it likes."""

    model: nn.Module
    """The copy; pruned weights are zero. The method chooses train or eval mode."""
    weights: Mapping[str, Tensor]
    """Prunable weights by name, pruned ones at zero; detached."""
    dense_weights: Mapping[str, Tensor]
    """The same as they were before any pruning."""
    masks: Mapping[str, Tensor]
    """Bool, True = still kept."""
    density: float
    """The fraction of prunable weights that is kept after this round."""
    kept: int
    """The number of prunable weights that is kept after this round."""
    generator: torch.Generator
    """The source of the method's own random draws; lives on the CPU, so draws do not depend on the device."""
    stream: Batches
    initialise: Callable[[nn.Module], None]
    """Draws the weights of a model anew, in place, as the model itself does."""

    def batches(self) -> Iterator[Batch]:
        """The scoring batches; every call starts at the same first one."""
        return self.stream()

    def fresh_batches(self) -> Iterator[Batch]:
        """Batches that no earlier round has seen, without end."""
        return self.stream.fresh()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of logits [B, classes] and targets [B] (class indices or probabilities)."""
        return F.cross_entropy(logits, targets)

    def forward(self, inputs: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """The model's outputs, with `params` in the place of its parameters of those names; differentiable in both."""
        self.stream.tick()
        if params is None:
            outputs: Tensor = self.model(inputs)
        else:
            outputs = torch.func.functional_call(self.model, dict(params), (inputs,))
        return outputs

    def train_mode(self, bn: str) -> None:
        """Put the copy in the mode of a method's option `bn`: "train" (batch statistics) or "eval" (running ones).

        Raises: PaiBenchError for any other value.
        """
        if bn not in ("train", "eval"):
            raise PaiBenchError(f"bn must be 'train' or 'eval', not {bn!r}", "write for instance snip:bn=eval")
        self.model.train(bn == "train")

    def first_batches(self, count: int) -> list[Batch]:
        """The first `count` scoring batches.

        Raises: PaiBenchError when there are fewer.
        """
        batches = list(itertools.islice(self.batches(), count))
        if len(batches) < count:
            raise PaiBenchError(
                f"the method needs {count} scoring batches, but there are {len(batches)}",
                f"pass at least {count} batches, or lower its number of steps",
            )
        return batches

    def gradient(self) -> dict[str, Tensor]:
        """dL/dw of the prunable weights, L the mean loss over all samples of all scoring batches."""
        weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        total: list[Tensor] = []
        samples = 0
        for x, y in self.batches():
            with InParts():
                loss = self.loss(self.forward(x, weights), y) * len(x)
            parts = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else list(parts)
            samples += len(x)
        return {name: g / samples for name, g in zip(weights, total, strict=True)}

    def parameters(self) -> dict[str, Tensor]:
        """All parameters (biases and norms too) as fresh leaves that require gradients."""
        return {name: p.detach().clone().requires_grad_() for name, p in self.model.named_parameters()}
