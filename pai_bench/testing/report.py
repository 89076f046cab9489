"""Report on the laws that a method keeps or breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.testing.laws import LAWS
from pai_bench.testing.networks import NETWORKS
from pai_bench.testing.subject import Subject

KEPT, BROKEN, REFUSED, UNREACHED, NONE = "kept", "broken", "refused", "not reached", "does not apply"
"""Verdicts: the last three are a network that the method refuses, a run that ended before, and no such claim."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one law and one network."""

    law: str
    network: str
    """Empty for a law that is checked once."""
    verdict: str
    observed: tuple[str, ...] = ()
    """Observed values that break the law, or the message of a refusal."""

    def __str__(self) -> str:
        where = f" on the network {self.network}" if self.network else ""
        values = "".join(f"\n    observed: {value}" for value in self.observed)
        return f"{self.law}{where}: {self.verdict}\n    law: {LAWS[self.law].explanation}{values}"


@dataclass(frozen=True)
class Report:
    """The verdicts on all laws and networks; `print` shows them as a table."""

    method: str
    device: str
    verdicts: tuple[Verdict, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The laws that the method breaks."""
        return tuple(verdict for verdict in self.verdicts if verdict.verdict == BROKEN)

    @property
    def refused(self) -> dict[str, str]:
        """The networks that the method refuses to score, with its message."""
        return {v.network: v.observed[0] for v in self.verdicts if v.verdict == REFUSED and v.law == "scores"}

    def failures(self) -> str:
        """Return all broken laws, each with its explanation and the observed values; "" if there are none."""
        if not self.broken:
            return ""
        laws = len({verdict.law for verdict in self.broken})
        title = f"{self.method} breaks {laws} law{'s' if laws > 1 else ''} of pruning methods ({self.device})"
        return "\n".join([title, *map(str, self.broken)])

    def __str__(self) -> str:
        """Return a table with one line per law and the networks that keep it, and all broken laws below."""
        lines = [f"{self.method} on {self.device}"]
        for law in LAWS:
            found = [verdict for verdict in self.verdicts if verdict.law == law]
            groups = {
                kind: [v.network for v in found if v.verdict == kind] for kind in (KEPT, BROKEN, REFUSED, UNREACHED)
            }
            texts = [f"{kind} {' '.join(filter(None, names))}".strip() for kind, names in groups.items() if names]
            if any(v.verdict == NONE for v in found) and not (groups[KEPT] or groups[BROKEN]):
                texts.insert(0, NONE)
            if found:
                lines.append(f"  {law:<28} {'; '.join(texts)}")
        return "\n".join([*lines, *filter(None, [self.failures()])])


@dataclass(frozen=True)
class Case:
    """One law on one network, as a parameter of a test: `case.check()` raises AssertionError if it is broken."""

    method: str
    law: str
    network: str
    subject: Subject

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict; runs of the method are shared by all cases of one call of `method_cases`."""
        law = LAWS[self.law]
        if law.once:
            return self._judged(law.check(self.subject, ""))
        base = self.subject.run(self.network)
        if base.refused:
            return Verdict(self.law, self.network, REFUSED, (str(base.raised),))
        runs_to_the_end = base.masks or self.law in ("scores", "exact-count", "untouched", "generators")
        if not runs_to_the_end:
            return Verdict(self.law, self.network, UNREACHED)
        return self._judged(law.check(self.subject, self.network))

    def _judged(self, observed: list[str] | None) -> Verdict:
        kind = NONE if observed is None else BROKEN if observed else KEPT
        return Verdict(self.law, self.network, kind, tuple(observed or ()))

    def check(self) -> None:
        """Check the law.

        Raises: AssertionError with its explanation and the observed values.
        """
        if self.verdict.verdict == BROKEN:
            raise AssertionError(f"{self.method} breaks a law of pruning methods\n{self.verdict}")

    def __str__(self) -> str:
        """Return the name of the test."""
        return f"{self.method}-{self.law}-{self.network}".rstrip("-")


def method_cases(
    method: str,
    *,
    networks: Sequence[str] = tuple(NETWORKS),
    laws: Sequence[str] = tuple(LAWS),
    device: str = "cpu",
    rounds: int = 3,
) -> list[Case]:
    """Return the laws of a method, each on each network.

    Use them as parameters of a test::

        @pytest.mark.parametrize("case", method_cases("my-method"), ids=str)
        def test_law(case):
            case.check()

    `method` may have hyper-parameters, as in "my-method:steps=3". Methods with rounds are checked with at most
    `rounds` of them, unless `method` gives their number.

    Raises: PaiBenchError for an unknown method, network, law or device.
    """
    for what, names, known in (("network", networks, NETWORKS), ("law", laws, LAWS)):
        for name in names:
            if name not in known:
                raise unknown(what, name, known)
    place = torch.device(device)
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and not torch.cuda.is_available()):
        raise PaiBenchError(f"laws cannot be checked on the device {device}", "give cpu, or cuda where there is a GPU")
    subject = Subject(method, place, rounds)
    return [Case(method, law, network, subject) for law in laws for network in ([""] if LAWS[law].once else networks)]


def check_method(
    method: str,
    *,
    networks: Sequence[str] = tuple(NETWORKS),
    laws: Sequence[str] = tuple(LAWS),
    device: str = "cpu",
    rounds: int = 3,
) -> Report:
    """Check that a method obeys the laws of pruning methods on small networks; takes what `method_cases` takes.

    The networks are a multilayer perceptron, a residual network, one like VGG, one with depthwise convolutions, and a
    transformer. A method may refuse some of them with PaiBenchError, but not all.

    Raises: AssertionError with all broken laws, their explanations and the observed values; PaiBenchError for an
        unknown method, network, law or device.
    """
    cases = method_cases(method, networks=networks, laws=laws, device=device, rounds=rounds)
    verdicts = [case.verdict for case in cases]
    report = Report(method, device, tuple(verdicts))
    if networks and len(report.refused) == len(networks):
        message = f"the method refuses every network: {next(iter(report.refused.values()))}"
        report = Report(method, device, (*verdicts, Verdict("scores", "", BROKEN, (message,))))
    if report.broken:
        raise AssertionError(report.failures())
    return report
