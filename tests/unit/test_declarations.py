"""Declarations of a method's class are spelt right, or the class is refused."""

from __future__ import annotations

from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pai_bench
from pai_bench.core.plugins import load_plugin
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import registry
from pai_bench.scoring.declarations import DECLARATIONS, HOOKS, check_spelling, check_values

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

from pai_bench import Problem, register


@register("misspelt-plugin")
@dataclass(frozen=True)
class Misspelt:
    revive: ClassVar[bool] = True

    def __call__(self, problem: Problem):
        return dict(problem.weights)
"""


def method(field: str = "", namespace: dict[str, Any] | None = None) -> type:
    """A method class with one integer field, or with these class attributes."""
    return make_dataclass("Method", [(field, int, 3)] if field else [], namespace=namespace, frozen=True)


@pytest.mark.slow
@pytest.mark.parametrize("right", DECLARATIONS)
def test_a_declaration_without_one_of_its_letters_is_refused_with_the_right_name(right: str) -> None:
    check_spelling("own", method(right))
    for wrong in (right[:-1], right[:2] + right[3:], right + "s", right.title()):
        with pytest.raises(ValueError, match=f"'own': '{wrong}' is not a declaration; write '{right}'"):
            check_spelling("own", method(wrong))


def test_class_variables_plain_attributes_and_inherited_ones_are_checked() -> None:
    class Annotated:
        revive: ClassVar[bool] = True

    class Plain:
        prune = False

    for base in (Annotated, Plain, type("Child", (Plain,), {})):
        with pytest.raises(ValueError, match=r"write '(revives|prunes)'"):
            check_spelling("own", base)


@pytest.mark.parametrize("right", HOOKS)
def test_a_misspelt_hook_is_refused(right: str) -> None:
    with pytest.raises(ValueError, match=f"write '{right}'"):
        check_spelling("own", method(namespace={right.replace("e", "", 1).rstrip("s"): lambda self: 1}))


@pytest.mark.parametrize("name", ["n_rounds", "refresh", "cost", "variant", "steps", "_revive", "fresh_batches"])
def test_a_hyper_parameter_with_a_name_of_its_own_is_accepted(name: str) -> None:
    check_spelling("own", method(name))


def test_a_helper_function_and_a_name_beside_the_declaration_are_accepted() -> None:
    check_spelling("own", method(namespace={"round": lambda self: 1}))
    check_spelling("own", method("rounds", {"round": 1}))


def test_built_in_methods_are_spelt_right_and_declare_valid_values() -> None:
    for name in registry.names():
        check_spelling(name, registry.method_class(name))
        check_values(name, registry.method_class(name))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"rounds": "3"}, "'rounds' must be of type int, not '3'"),
        ({"schedule": 3}, "'schedule' must be of type str, not 3"),
        ({"version": "2"}, "'version' must be of type int, not '2'"),
        ({"quotas": {"fc": 3}}, "'quotas' must be a function of the class"),
        ({"added": "count"}, "'added' must be a tuple of names, not 'count'"),
        ({"added": ("cuont",)}, "'added' has 'cuont', which is not a hyper-parameter; known: count"),
        ({"invariant_to": "scale"}, "'invariant_to' must be a tuple of names"),
        ({"invariant_to": ("scale",)}, "'invariant_to' has 'scale', which is not an invariance; known: loss-scale, "),
    ],
)
def test_declarations_with_wrong_values_are_refused(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_values("own", method("count", declared))


def test_declarations_may_be_properties() -> None:
    check_values("own", method("count", {"rounds": property(lambda self: self.count)}))


def test_a_plug_in_with_a_misspelt_declaration_is_refused_and_not_registered(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PLUGIN)
    with pytest.raises(PaiBenchError, match=r"plugin .*own\.py cannot be loaded: .*'revive' .* write 'revives'"):
        load_plugin(tmp_path / "own.py")
    assert "misspelt-plugin" not in registry.names()


def test_the_page_on_methods_lists_every_declaration() -> None:
    page = Path(pai_bench.__file__).parents[1] / "docs" / "methods.md"
    rows = [line.split("|")[1] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for name in DECLARATIONS:
        assert any(name in row.replace("(", ":").replace("`", ":").split(":") or f" {name}:" in row for row in rows)
