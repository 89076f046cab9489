"""Interface of a pruning method: the problem to score, and the signature of a scorer.

This is the only module of the harness that the author of a method needs to read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pai_bench.core.outputs import logits
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import weights
from pai_bench.scoring.batch_checks import checked
from pai_bench.scoring.double_backward import FirstDerivatives
from pai_bench.scoring.losses import Loss, cross_entropy
from pai_bench.scoring.paths.tracing import Graph
from pai_bench.scoring.substitution import call_with

Batch = tuple[Tensor, Tensor]
"""Inputs [B, …] and targets [B]."""


prunable = weights.prunable_weights


class Scorer(Protocol):
    """A pruning method: a frozen dataclass whose fields are its hyper-parameters.

    A method with outer pruning rounds has an integer field `rounds`, and may have `schedule`
    ("exponential" or "linear") and `kept_after(density, size) -> int`, its own count between rounds; one that decides
    how many weights each layer keeps has a method `quotas(problem) -> dict[str, int]`; one that needs a number of
    batches of its own has `batches_needed() -> int`. Two facts may stand in the class: `fresh = True`, every round
    gets new batches, and `revives = True`, a pruned weight may come back in a later round.
    """

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        """Return one score per prunable weight, by parameter name and in its shape; a higher score is kept."""
        ...


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Check that an option such as "snip:bn" has one of the allowed values.

    Raises: PaiBenchError for another value.
    """
    if value not in allowed:
        raise PaiBenchError(f"{option} must be {' or '.join(map(repr, allowed))}, not {value!r}", "name one of them")


def ranked(option: str, ranking: str, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Signed scores as they are ("signed"), or their absolute values ("absolute").

    Raises: PaiBenchError for another ranking.
    """
    one_of(option, ranking, ("signed", "absolute"))
    return {name: score if ranking == "signed" else score.abs() for name, score in scores.items()}


def more_than(option: str, value: float, bound: float) -> None:
    """Check that a numeric option such as "grasp:temperature" is finite and more than `bound`.

    Raises: PaiBenchError for another value.
    """
    if not bound < value < math.inf:
        raise PaiBenchError(f"{option} must be more than {bound:g}, not {value:g}", "give another number")


def round_densities(density: float, rounds: int, schedule: str, start: float = 1.0) -> list[float]:
    """Return the density after each of the outer rounds, from just below `start` down to `density`.

    "exponential": start (density/start)^(t/T); "linear": start - t (start - density)/T.

    Raises: PaiBenchError for another schedule or fewer than one round.
    """
    if rounds < 1:
        raise PaiBenchError(f"rounds must be at least 1, not {rounds}", "write for instance synflow:rounds=100")
    one_of("schedule", schedule, ("exponential", "linear"))
    if schedule == "exponential":
        # The last one is the density itself, because the power would differ from it by rounding.
        return [start * (density / start) ** (t / rounds) for t in range(1, rounds)] + [density]
    return [start - t * (start - density) / rounds for t in range(1, rounds)] + [density]


class Batches:
    """The scoring batches, drawn once from the caller's iterable and kept, so that every pass sees the same ones.

    Batches are drawn only as far as a method reads; inputs of floating type are cast to `dtype`, class
    indices to int64.

    Raises: PaiBenchError for an iterator, and while drawing for what is not a batch.
    """

    def __init__(
        self, source: Iterable[Batch], device: torch.device, dtype: torch.dtype, tick: Callable[[], None] = lambda: None
    ) -> None:
        # An iterator is empty the second time, which would silently score with fewer batches.
        if isinstance(source, Iterator):
            raise PaiBenchError(
                f"the scoring batches are a {type(source).__name__}, which can be read only once",
                "pass a list of (x, y), or a DataLoader",
            )
        self._source = source
        self._device = device
        self._dtype = dtype
        self.tick = tick
        """Callback for every batch and every forward pass, as a sign of progress."""
        self._drawn: list[Batch] = []
        self._stream: Iterator[Batch] | None = None

    def _next(self) -> Batch:
        if self._stream is None:
            self._stream = iter(self._source)
        return checked(next(self._stream), self._device)

    def _cast(self, batch: Batch) -> Batch:
        self.tick()
        x, y = batch
        x = x.to(self._device)
        y = y.to(self._device)
        x = x.to(self._dtype) if x.is_floating_point() else x
        return x, y if y.is_floating_point() else y.long()

    def __call__(self) -> Iterator[Batch]:
        """Return the batches from the first one on."""
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

    def drawn(self) -> Iterator[Batch]:
        """Return the batches that have been read so far, or the first one."""
        return map(self._cast, self._drawn or itertools.islice(self(), 1))

    def fresh(self) -> Iterator[Batch]:
        """Yield batches that were not drawn before; the stream restarts at its end."""
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
        """Yield the batches of each round, without end: rounds share the batches, and reuse them if too few."""
        try:
            size = max(1, len(self._source) // rounds)  # type: ignore[arg-type]
        except TypeError:  # not all that have a method for it have a length
            size = 1
        stream = Batches(self._source, self._device, self._dtype).fresh()
        while True:
            yield Batches(list(itertools.islice(stream, size)), self._device, self._dtype, self.tick)


def _empty() -> PaiBenchError:
    return PaiBenchError("the scoring data contain no batch", "pass at least one batch: [(x, y)] or a DataLoader")


def real_inputs(method: str, problem: Problem) -> Iterator[Tensor]:
    """Return the inputs of the scoring batches, for a method that scores with others of their shape.

    Raises: PaiBenchError for inputs that are not real numbers.
    """
    for x, _ in problem.batches():
        if not x.is_floating_point():
            raise PaiBenchError(f"{method} needs inputs of real numbers, not {x.dtype}", "score with another method")
        yield x


@dataclass(frozen=True)
class Problem:
    """One round of scoring, on a private copy of the model; its values and modes are the method's to change."""

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
    """Function that re-initialises a model's weights in place, as the model itself does."""
    trace: Callable[[Tensor], Graph]
    """The operations of the model on inputs of that shape, recorded once; see pai_bench.scoring.paths.network."""
    criterion: Loss = cross_entropy
    """The loss that `loss` computes."""

    def batches(self) -> Iterator[Batch]:
        """Yield the scoring batches; every call starts at the same first batch."""
        return self.stream()

    def samples(self) -> Iterator[Batch]:
        """Yield the samples of the scoring batches, each as a batch of one."""
        for x, y in self.batches():
            # Targets of tokens may be flat, with several entries per sample.
            yield from zip(torch.split(x, 1), torch.split(y, len(y) // len(x)), strict=True)

    def fresh_batches(self) -> Iterator[Batch]:
        """Yield batches without end that no earlier round has drawn."""
        return self.stream.fresh()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the samples of a batch.

        The default is the cross entropy of logits [B, classes, …] and targets [B, …] (class indices) or probabilities
        [B, classes, …].

        Raises: PaiBenchError for outputs and targets of which the loss is constant or has no meaning.
        """
        return self.criterion(outputs, targets)

    def forward(self, inputs: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the model's logits (see `outputs.logits`), with `params` in place of its parameters of these names.

        They are differentiable in both.

        Raises: PaiBenchError for outputs without logits.
        """
        self.stream.tick()
        inputs = inputs.clone()  # a network may change its input in place, and this one is the caller's
        return logits(self.model(inputs) if params is None else call_with(self.model, params, inputs))

    def train_mode(self, bn: str) -> None:
        """Put the copy in the mode of a method's option `bn`: "train" (batch statistics) or "eval" (running ones)."""
        self.model.train(bn == "train")

    def first_batches(self, count: int) -> list[Batch]:
        """Return the first `count` scoring batches.

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
        """Return dL/dw of the prunable weights, L the mean loss over all samples of all scoring batches."""
        weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        total: list[Tensor] = []
        samples = 0
        for x, y in self.batches():
            with FirstDerivatives():
                # Weighted by the batch size: a shorter last batch must not count as much as a complete one.
                loss = self.loss(self.forward(x, weights), y) * len(x)
            parts = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else list(parts)
            samples += len(x)
        return {name: g / samples for name, g in zip(weights, total, strict=True)}

    def living(self) -> dict[str, int]:
        """Return the number of kept weights by parameter name: the most that a layer may keep in this round."""
        return {name: mask.numel() if mask.is_meta else int(mask.sum()) for name, mask in self.masks.items()}

    def parameters(self) -> dict[str, Tensor]:
        """Return all parameters (biases and norms too) as fresh leaves that require gradients."""
        return {name: p.detach().clone().requires_grad_() for name, p in self.model.named_parameters()}
