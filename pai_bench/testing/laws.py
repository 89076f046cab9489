"""Laws that every pruning method obeys, and how each of them is checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pai_bench.cells import kept_count
from pai_bench.core.facts import INVARIANCES
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import Batch
from pai_bench.testing.changes import Setting
from pai_bench.testing.comparison import difference
from pai_bench.testing.networks import CLASSES, SHAPE, batches

if TYPE_CHECKING:
    from pai_bench.testing.subject import Subject

SPARSITY = 0.6
"""Sparsity of most runs; `exact-count` uses others too."""


@dataclass(frozen=True)
class Law:
    """A law, and the function that checks it on one network (or, once for all networks, without one).

    The check returns the observed values that break the law; None where the law does not apply.
    """

    name: str
    explanation: str
    check: Callable[[Subject, str], list[str] | None]
    once: bool = False
    """True for a law that is checked without one of the networks."""


def scores(subject: Subject, network: str) -> list[str]:
    run = subject.run(network)
    if run.raised is not None and not run.refused:
        return [f"the method raised {_line(run.raised)}"]
    return run.faults.get("scores", [])


def exact_count(subject: Subject, network: str) -> list[str]:
    found = []
    # Other counts than those of the harness come from the method's own quotas.
    several = (0.0, 0.9, 0.98) if hasattr(subject.scorer, "quotas") else ()
    for sparsity in (SPARSITY, *several):
        run = subject.run(network, sparsity=sparsity)
        size = subject.size(network)
        kept = sum(int(mask.sum()) for mask in run.masks.values())
        expected = kept_count(sparsity, size) if getattr(subject.scorer, "prunes", True) else size
        if run.error is not None:
            if run.raised is None and not run.faults:
                found.append(f"sparsity {sparsity:g}: {_line(run.error)}")
        elif kept != expected:
            found.append(f"sparsity {sparsity:g}: {kept} of {size} weights are kept, not {expected}")
    return found


def untouched(subject: Subject, network: str) -> list[str]:
    return subject.run(network).faults.get("untouched", [])


def generators(subject: Subject, network: str) -> list[str]:
    return subject.run(network).faults.get("generators", [])


def repeatable(subject: Subject, network: str) -> list[str]:
    first, second = subject.run(network), subject.run(network, again=True)
    found = []
    for number, (one, other) in enumerate(zip(first.scores, second.scores, strict=False), start=1):
        differing = sum(int((one[name] != other[name]).sum()) for name in one)
        if differing:
            found.append(f"round {number}: {differing} scores differ between two runs with the same seed")
            break
    if first.masks.keys() != second.masks.keys():
        found.append("one of two equal runs ended with an error")
    elif differing := sum(int((first.masks[name] ^ second.masks[name]).sum()) for name in first.masks):
        found.append(f"{differing} of {subject.size(network)} mask entries differ between two runs with the same seed")
    return found


def device(subject: Subject, network: str) -> list[str] | None:
    if subject.device.type == "cpu" and torch.cuda.is_available():
        return difference(subject.run(network), subject.run(network, device=torch.device("cuda")))
    if subject.device.type != "cpu":
        return difference(subject.run(network, device=torch.device("cpu")), subject.run(network))
    run = subject.run(network, device=torch.device("meta"))
    if run.raised is not None:
        # A method that reads values cannot run on a device that has none.
        words = str(run.raised)
        mixed = "on the same device" in words or "two devices" in words or ("meta" in words and "cpu" in words.lower())
        return [f"a tensor of another device meets those of the network: {_line(run.raised)}"] if mixed else None
    found = run.scores[0] if run.scores else {}
    return [
        f"the scores of {name} are on the device {score.device}, its weight on {run.before[0][name].device}"
        for name, score in found.items()
        if score.device.type != "meta"
    ]


def sees(subject: Subject, network: str) -> list[str] | None:
    declared = subject.facts.sees
    if declared in ("", "labels"):
        return None
    return [
        f"{what} with {'other labels' if declared == 'inputs' else 'other scoring data of the same shape'}"
        for what in difference(subject.run(network), subject.run(network, data=declared))
    ]


def invariance(what: str) -> Callable[[Subject, str], list[str] | None]:
    """Return the check of a claimed invariance."""

    def check(subject: Subject, network: str) -> list[str] | None:
        if what not in subject.claims:
            return None
        other = subject.after(network, what)
        return None if other is None else difference(subject.run(network), other[0], other[1])

    return check


def cost(subject: Subject, _: str) -> list[str] | None:
    expected, measured = subject.declared_cost(), subject.measured_cost()
    if expected is None or measured is None:
        return None
    # With a tolerance, because the narrow first and last layer of the measured network count a little.
    if abs(measured - expected) <= 0.05 * max(expected, measured) + 0.01:
        return []
    return [f"scoring took {measured:.3g} forward passes; {subject.facts.passes!r} is {expected:.3g}"]


def refusal(subject: Subject, _: str) -> list[str]:
    found = []
    for what, model, data in hard_cases(subject.device):
        run = subject.observed(Setting(model, data))
        if run.raised is not None and not isinstance(run.error, PaiBenchError):
            found.append(f"{what}: raised {_line(run.raised)} instead of PaiBenchError")
    return found


class Tokens(nn.Module):
    """A classifier of sequences of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(9, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.table(x).mean(1))
        return logits


class Recurrent(nn.Module):
    """A recurrent classifier of the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.linear = nn.GRU(SHAPE[2], 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.rnn(x.squeeze(1))[0][:, -1])
        return logits


def hard_cases(device: torch.device) -> Iterator[tuple[str, nn.Module, list[Batch]]]:
    """Yield models and batches that many methods cannot score, with a name for each."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).to(device)
    data = batches(device)
    nan = copy.deepcopy(linear)
    with torch.no_grad():
        next(nan.parameters())[0, 0] = float("nan")
    yield "a model without prunable weights", nn.Sequential(nn.Flatten(), nn.LayerNorm(16)).to(device), data
    yield "no scoring batch", linear, []
    yield "labels beyond the classes", linear, [(x, y + CLASSES) for x, y in data]
    yield "a weight that is NaN", nan, data
    yield "tokens instead of real inputs", Tokens().to(device), [(x.flatten(1).abs().long(), y) for x, y in data]
    yield "a recurrent layer", Recurrent().to(device), data
    transposed = nn.Sequential(nn.ConvTranspose2d(1, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(75, CLASSES))
    yield "a transposed convolution and a sigmoid", transposed.to(device), data
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Threshold(1e9, 0.0), nn.Linear(5, CLASSES))
    yield "hidden units that are always zero", constant.to(device), data


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


LAWS = {
    law.name: law
    for law in (
        Law("scores", "one finite, real score per prunable weight, in its shape, by parameter name", scores),
        Law("exact-count", "the masks keep exactly round(density x N) weights at every sparsity", exact_count),
        Law(
            "untouched",
            "the caller's model and the problem's masks, dense weights and batches keep their values",
            untouched,
        ),
        Law(
            "generators",
            "random numbers come from problem.generator; the global ones of torch, NumPy and Python stay as they are",
            generators,
        ),
        Law("repeatable", "two runs with the same seed give the same scores and masks, bit for bit", repeatable),
        Law(
            "device",
            "the masks on a GPU are those on the CPU; without a GPU, all tensors are on the device of the network",
            device,
        ),
        Law("sees", "the masks do not depend on data that, according to its facts, the method does not see", sees),
        *(
            Law(f"invariant-to-{name}", f"the masks do not depend on this change: {what}", invariance(name))
            for name, what in INVARIANCES.items()
        ),
        Law("cost", "scoring takes the number of passes that its facts state", cost, once=True),
        Law("refusal", "a network that the method cannot score is refused with PaiBenchError", refusal, once=True),
    )
}
"""All laws by name, in the order in which they are checked."""
