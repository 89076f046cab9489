"""All built-in methods obey the laws of `pai_bench.testing`, and methods that break a law are caught by it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from pai_bench import Facts, Problem, list_methods, register, testing
from pai_bench.core.facts import INVARIANCES
from pai_bench.errors import PaiBenchError
from pai_bench.testing import LAWS, NETWORKS, check_method, method_cases
from pai_bench.testing.comparison import difference
from pai_bench.testing.subject import IMPLIED, Subject

BRIEF = {
    "dpai": "dpai:steps=3",
    "ntk-sap": "ntk-sap:repeats=1",
    **{name: f"{name}:probes=1" for name in ("hutchinson", "hutchinson-pruning", "hts")},
}
"""Costly methods with fewer steps."""

HOLD_UNCLAIMED = {
    ("hts", "loss-sign"),  # not with ranking=signed
}
"""Invariances that a method has with its default hyper-parameters only."""


@pytest.mark.slow
@pytest.mark.parametrize("method", list_methods())
def test_every_method_obeys_every_law_on_every_network(method: str) -> None:
    report = check_method(BRIEF.get(method, method), rounds=2)
    assert not report.refused and not report.broken
    assert {(v.law, v.network) for v in report.verdicts if v.law not in ("cost", "refusal")} == {
        (law, network) for law in LAWS if not LAWS[law].once for network in NETWORKS
    }
    kept = {verdict.law for verdict in report.verdicts if verdict.verdict == "kept"}
    claims = {f"invariant-to-{name}" for name in Subject(method, torch.device("cpu"), 1).claims}
    always = {"scores", "exact-count", "untouched", "generators", "repeatable", "device", "refusal", "cost"}
    assert kept >= always | claims


@pytest.mark.slow
@pytest.mark.parametrize("method", list_methods())
def test_claims_are_complete(method: str) -> None:
    """An invariance that a method does not claim is broken on some network."""
    subject = Subject(BRIEF.get(method, method), torch.device("cpu"), 2)
    claimed = {*subject.claims, *IMPLIED.get(subject.facts.sees, ())}
    claimed |= {"loss-scale", "loss-sign"} if subject.facts.sees == "inputs" else set()
    for change in sorted(set(INVARIANCES) - claimed):
        after = ((network, subject.after(network, change)) for network in NETWORKS)
        broken = any(found and difference(subject.run(network), *found) for network, found in after)
        assert broken != ((method, change) in HOLD_UNCLAIMED), (method, change)


def scored(problem: Problem) -> dict[str, Tensor]:
    return {name: w.abs() for name, w in problem.weights.items()}


def one_more(self: object, problem: Problem) -> dict[str, int]:
    return {name: problem.kept + 1 if n == 0 else 0 for n, name in enumerate(problem.weights)}


def zero_dense(problem: Problem) -> dict[str, Tensor]:
    next(iter(problem.dense_weights.values())).zero_()
    return scored(problem)


def other_parameters(problem: Problem) -> dict[str, Tensor]:
    for module in problem.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(module.weight.clone())
    return scored(problem)


def shifted_batches(problem: Problem) -> dict[str, Tensor]:
    x, _ = next(problem.batches())
    found = scored(problem)
    x.add_(1)
    return found


def from_torch(problem: Problem) -> dict[str, Tensor]:
    return {name: torch.rand_like(w) for name, w in problem.weights.items()}


def from_numpy(problem: Problem) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.random.rand(*w.shape)).to(w) for name, w in problem.weights.items()}


def from_python(problem: Problem) -> dict[str, Tensor]:
    return {name: w.abs() * random.random() for name, w in problem.weights.items()}


def not_a_number(problem: Problem) -> dict[str, Tensor]:
    return {name: torch.full_like(w, float("nan")) for name, w in problem.weights.items()}


def flat(problem: Problem) -> dict[str, Tensor]:
    return {name: w.abs().flatten() for name, w in problem.weights.items()}


def without_last(problem: Problem) -> dict[str, Tensor]:
    return dict(list(scored(problem).items())[:-1])


def unseeded(problem: Problem) -> dict[str, Tensor]:
    draws = np.random.default_rng()
    return {name: torch.from_numpy(draws.random(tuple(w.shape))).to(w) for name, w in problem.weights.items()}


def on_the_cpu(problem: Problem) -> dict[str, Tensor]:
    return {name: torch.rand(w.shape, generator=problem.generator) for name, w in problem.weights.items()}


def four_dimensions(problem: Problem) -> dict[str, Tensor]:
    return {name: w.abs() / w.shape[3] if w.ndim == 4 else w.abs() for name, w in problem.weights.items()}


def only_known_layers(problem: Problem) -> dict[str, Tensor]:
    kinds = {type(module).__name__ for module in problem.model.modules()}
    return scored(problem) if "GRU" not in kinds else {}["GRU"]


def of_labels(problem: Problem) -> dict[str, Tensor]:
    total = sum(int((y * torch.arange(1, len(y) + 1, device=y.device)).sum()) for _, y in problem.batches())
    return {name: (w * total).sin() for name, w in problem.weights.items()}


def with_gradient(problem: Problem) -> dict[str, Tensor]:
    return {name: g.abs() for name, g in problem.gradient().items()}


@dataclass(frozen=True)
class Broken:
    """A method that breaks one law."""

    law: str
    score: Callable[[Problem], dict[str, Tensor]]
    words: str
    declared: dict[str, Any] | None = None
    facts: Facts | None = None


BROKEN = {
    "wrong count": Broken("exact-count", scored, r"0.6: ValueError: the layer quotas sum to", {"quotas": one_more}),
    "writes to the dense weights": Broken("untouched", zero_dense, r"dense_weights\['1.weight'\] has other values"),
    "replaces parameters": Broken("untouched", other_parameters, "has replaced parameters or buffers of its model"),
    "writes to the batches": Broken("untouched", shifted_batches, "the scoring batches have other values"),
    "draws from torch": Broken("generators", from_torch, r"global generator of torch \(CPU\) has another state"),
    "draws from NumPy": Broken("generators", from_numpy, r"global generator of NumPy \(numpy.random\)"),
    "draws from Python": Broken("generators", from_python, r"global generator of Python \(random\)"),
    "NaN": Broken("scores", not_a_number, r"160 of 160 scores of 1.weight are NaN or infinite"),
    "wrong shape": Broken("scores", flat, r"the scores of 1.weight have the shape \[160\], its weight \[10, 16\]"),
    "no scores for a layer": Broken("scores", without_last, r"there are no scores for 5.weight"),
    "not repeatable": Broken("repeatable", unseeded, r"scores differ between two runs with the same seed"),
    "another device": Broken("device", on_the_cpu, "the scores of 1.weight are on the device cpu, its weight on meta"),
    "false claim": Broken(
        "invariant-to-rescaling", scored, "mask entries differ, .* beyond ties", {"invariant_to": ("rescaling",)}
    ),
    "wrong refusal": Broken("refusal", only_known_layers, r"a recurrent layer: raised KeyError: .* instead"),
    "sees more than declared": Broken("sees", of_labels, "with other labels", facts=Facts(sees="inputs")),
    "costs more than declared": Broken(
        "cost", with_gradient, r"scoring took 2.99 forward passes; 'batches' is 1", facts=Facts(passes="batches")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_method_is_caught_by_the_law_that_names_it(name: str) -> None:
    broken = BROKEN[name]
    body = {"__call__": lambda self, problem: broken.score(problem), **(broken.declared or {})}
    method = f"broken-{name.replace(' ', '-')}"
    register(method, broken.facts)(dataclass(frozen=True)(type("Method", (), body)))
    with pytest.raises(AssertionError, match=broken.words) as caught:
        check_method(method, networks=("mlp",))
    text = str(caught.value)
    assert text.startswith(f"{method} breaks 1 law of pruning methods (cpu)")
    assert f"{broken.law}" in text.splitlines()[1] and f"    law: {LAWS[broken.law].explanation}" in text
    assert {v.law for v in method_verdicts(method) if v.verdict == "broken"} == {broken.law}


def method_verdicts(method: str) -> list[testing.Verdict]:
    return [case.verdict for case in method_cases(method, networks=("mlp",))]


@pytest.mark.slow
def test_a_method_that_raises_and_one_that_refuses_everything_are_reported() -> None:
    @register("raising")
    @dataclass(frozen=True)
    class Raising:
        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            raise TypeError("no such thing")

    @register("refusing")
    @dataclass(frozen=True)
    class Refusing:
        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            raise PaiBenchError("refusing scores nothing", "use another method")

    with pytest.raises(AssertionError, match="the method raised TypeError: no such thing"):
        check_method("raising", networks=("mlp",), laws=("scores",))
    assert {v.verdict for v in method_verdicts("raising") if v.law == "repeatable"} == {"not reached"}
    with pytest.raises(AssertionError, match="the method refuses every network: refusing scores nothing"):
        check_method("refusing")


@pytest.mark.slow
def test_a_refused_network_is_shown_and_no_failure() -> None:
    @register("images-only")
    @dataclass(frozen=True)
    class ImagesOnly:
        invariant_to: ClassVar[tuple[str, ...]] = ("weight-signs",)

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            if not any(w.ndim == 4 for w in problem.weights.values()):
                raise PaiBenchError("images-only needs convolutions", "score another network")
            return scored(problem)

    report = check_method("images-only")
    assert report.refused.keys() == {"mlp", "transformer"}
    assert "scores                       kept residual vgg depthwise; refused mlp transformer" in str(report)
    assert "invariant-to-rescaling       does not apply" in str(report)


@pytest.mark.slow
def test_all_broken_laws_are_in_one_error() -> None:
    @register("twice-broken")
    @dataclass(frozen=True)
    class Twice:
        invariant_to: ClassVar[tuple[str, ...]] = ("weights",)

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            torch.rand(1)
            return scored(problem)

    with pytest.raises(AssertionError) as caught:
        check_method("twice-broken", networks=("mlp", "vgg"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "twice-broken breaks 2 laws of pruning methods (cpu)"
    assert [line for line in lines if line.endswith("broken")] == [
        *(f"generators on the network {name}: broken" for name in ("mlp", "vgg")),
        *(f"invariant-to-weights on the network {name}: broken" for name in ("mlp", "vgg")),
    ]


CASES = method_cases("snip", networks=("mlp",), laws=("scores", "repeatable", "refusal"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cases_are_parameters_of_a_test(case: testing.Case) -> None:
    assert str(case) in ("snip-scores-mlp", "snip-repeatable-mlp", "snip-refusal")
    case.check()


def test_a_case_of_a_broken_law_raises() -> None:
    body = {"__call__": lambda self, problem: not_a_number(problem)}
    register("broken-case")(dataclass(frozen=True)(type("Method", (), body)))
    (case,) = method_cases("broken-case", networks=("mlp",), laws=("scores",))
    with pytest.raises(AssertionError, match=r"broken-case breaks a law .*\nscores on the network mlp: broken\n"):
        case.check()


def test_unknown_names_are_refused() -> None:
    for arguments, words in (
        ({"method": "snipp"}, "unknown method 'snipp'"),
        ({"method": "snip:a=1"}, "unknown hyper-parameter of snip 'a'"),
        ({"method": "quota-of:snip"}, "controls change masks, to which no law applies"),
        ({"method": "snip", "laws": ("score",)}, "unknown law 'score'"),
        ({"method": "snip", "networks": ("mpl",)}, "unknown network 'mpl'"),
        ({"method": "snip", "device": "meta"}, "laws cannot be checked on the device meta"),
    ):
        with pytest.raises(PaiBenchError, match=words):
            check_method(**arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_hyper_parameters_are_part_of_the_method_and_rounds_are_short() -> None:
    subject = Subject("synflow:count=released", torch.device("cpu"), 3)
    assert (subject.scorer.rounds, subject.scorer.count) == (3, "released")
    assert Subject("synflow:rounds=5", torch.device("cpu"), 3).scorer.rounds == 5
    assert Subject("hts:ranking=signed", torch.device("cpu"), 3).claims == ("sample-order", "loss-scale")
    assert Subject("smart-ratio:hybrid=true", torch.device("cpu"), 3).claims == ("weight-signs", "permutation")
    check_method("smart-ratio:hybrid=true", networks=("mlp", "vgg"))


WITHOUT = {("mlp", "norm-rescaling"), ("residual", "rescaling"), ("depthwise", "rescaling")}
"""Networks without units of a kind: no norms, or norms behind all weights."""


@pytest.mark.slow
def test_changes_leave_the_outputs_as_they_are() -> None:
    """Otherwise a claim would be tested on another function."""
    from pai_bench.testing.changes import Setting, changed
    from pai_bench.testing.networks import batches

    cpu = torch.device("cpu")
    for name, network in NETWORKS.items():
        for change in ("permutation", "rescaling", "norm-rescaling"):
            before, after = (network.build(cpu).double() for _ in range(2))
            if changed(change, network, Setting(after, [])) is None:
                assert (name, change) in WITHOUT
                continue
            assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
            for mode in (True, False):
                x = batches(cpu)[0][0].double()
                torch.testing.assert_close(after.train(mode)(x), before.train(mode)(x), rtol=1e-9, atol=1e-12)


PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "own-pruning"
version = "1.0"

[project.entry-points."pai_bench.methods"]
own-saliency = "own_pruning"

[tool.setuptools]
py-modules = ["own_pruning"]
"""
MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from pai_bench import Facts, Problem, register


@register("own-saliency", Facts("Own et al. 2026", "gradient", "labels", "3 * batches", "formula"))
@dataclass(frozen=True)
class OwnSaliency:
    \"""The square of w dL/dw.\"""

    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "rescaling", "loss-scale", "loss-sign")

    def __call__(self, problem: Problem):
        gradients = problem.gradient()
        return {name: (w * gradients[name]) ** 2 for name, w in problem.weights.items()}
"""
SCRIPT = """
import sys
from pai_bench.cli.program import app
from pai_bench.testing import check_method
app(["list", "methods"], standalone_mode=False)
app(["list", "methods", "--long"], standalone_mode=False)
print(check_method("own-saliency"))
"""


@pytest.mark.slow
def test_the_method_of_another_distribution_is_listed_and_checked(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "own_pruning.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = f"import sys; sys.path.insert(0, {str(target)!r})\n{SCRIPT}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines.index("own-saliency") == lines.index("ntk-sap") + 1
    row = "own-saliency Own et al. 2026 gradient labels 1 3 formula"
    assert any(" ".join(line.split()) == row for line in lines)
    assert "own-saliency on cpu" in lines and "broken" not in said.stdout
    assert any("invariant-to-rescaling" in line and "kept mlp" in line for line in lines)


@pytest.mark.slow
def test_the_method_of_the_documentation_obeys_the_laws(tmp_path: Path) -> None:
    from pai_bench.core.plugins import load_plugin

    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    _, method, check, cases = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "own.py").write_text(method)
    load_plugin(tmp_path / "own.py")
    namespace: dict[str, Any] = {}
    exec(check, namespace)
    exec(cases, namespace)
    assert len(namespace["test_law"].pytestmark[0].args[1]) == 5 * (len(LAWS) - 2) + 2
    assert Subject("my-saliency", torch.device("cpu"), 3).facts.year == 2026


def test_the_page_on_methods_lists_every_law_and_invariance() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    laws = {name: law.explanation for name, law in LAWS.items() if not name.startswith("invariant")}
    for name, explanation in {**laws, **INVARIANCES}.items():
        assert f"| `{name}` | {explanation} |" in page


@pytest.mark.slow
def test_the_example_plug_in_obeys_the_laws() -> None:
    from pai_bench.core.plugins import load_plugin

    load_plugin(Path(__file__).parents[2] / "examples" / "lamp.py")
    assert check_method("lamp").method == "lamp"


def test_every_field_of_a_verdict_is_text() -> None:
    (case,) = method_cases("random", networks=("mlp",), laws=("scores",))
    assert {field.name for field in fields(case.verdict)} == {"law", "network", "verdict", "observed"}
    assert str(case.verdict) == f"scores on the network mlp: kept\n    law: {LAWS['scores'].explanation}"
