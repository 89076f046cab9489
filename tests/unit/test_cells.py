"""Tests of cells, grids, and the syntax of lists and ranges."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pai_bench import cells
from pai_bench.cells import Cell, MethodSpec
from pai_bench.core.filters import Filter
from pai_bench.errors import PaiBenchError


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.9, 0.98, 0.999, 1 / 3])
@pytest.mark.parametrize("size", [1, 10, 268_336, 14_715_584])
def test_a_mask_keeps_the_rounded_share_of_the_typed_decimal(sparsity: float, size: int) -> None:
    kept = cells.kept_count(sparsity, size)
    assert abs(kept - (1 - Fraction(repr(sparsity))) * size) <= Fraction(1, 2)
    assert 0 <= kept <= size


def test_binary_rounding_of_a_sparsity_does_not_change_the_count() -> None:
    # 1 - 0.9 is 0.09999999999999998, of which 15 weights make 1.4999999999999996.
    assert cells.kept_count(0.9, 15) == 2
    assert cells.exact_sparsity(0.9) == Fraction(9, 10)


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, 90, float("nan"), float("inf")])
def test_a_sparsity_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(PaiBenchError, match=r"in \[0, 1\)"):
        cells.exact_sparsity(bad)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("snip", "snip"),
        (" snip ", "snip"),
        ("prospr:steps=10,lr=0.5", "prospr:lr=0.5,steps=10"),
        ("prospr:lr=5e-1,new_batches=True", "prospr:lr=0.5,new_batches=true"),
        ("snip:bn=eval", "snip:bn=eval"),
        ("snip:control=shuffle", "snip:control=shuffle"),
        ("prospr:steps=10,control=invert,lr=0.5", "prospr:control=invert,lr=0.5,steps=10"),
        ("file:masks-1f3a5b7c", "file:masks-1f3a5b7c"),
        ("file:masks-1f3a5b7c:control=reinit", "file:masks-1f3a5b7c:control=reinit"),
    ],
)
def test_a_spec_has_one_canonical_text(text: str, canonical: str) -> None:
    spec = MethodSpec.parse(text)
    assert str(spec) == canonical
    assert MethodSpec.parse(canonical) == spec


def test_a_control_is_not_a_hyper_parameter() -> None:
    spec = MethodSpec.parse("prospr:steps=10,control=invert")
    assert spec.control == "invert" and spec.hyperparameters == (("steps", 10),)
    assert str(spec.uncontrolled) == "prospr:steps=10"
    for text in ("snip:control=flip", "file:masks-1f3a5b7c:control=true"):
        with pytest.raises(PaiBenchError, match="unknown control"):
            MethodSpec.parse(text)


def test_values_of_a_spec_have_their_types() -> None:
    spec = MethodSpec.parse("m:a=1,b=1.0,c=true,d=eval,e=-2,f=nan")
    assert dict(spec.hyperparameters) == {"a": 1, "b": 1.0, "c": True, "d": "eval", "e": -2, "f": "nan"}
    assert [type(value) for _, value in spec.hyperparameters] == [int, float, bool, str, int, str]


@pytest.mark.parametrize("text", ["", ":", "snip:", "snip:bn", "snip:=1", "snip:bn=", "sn ip", "a/b", "m:k=../x", ".."])
def test_a_spec_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(PaiBenchError, match="cannot be read"):
        MethodSpec.parse(text)


def test_a_spec_names_a_key_once() -> None:
    with pytest.raises(PaiBenchError, match="twice"):
        MethodSpec.parse("m:a=1,a=2")


def test_a_comma_before_a_key_belongs_to_the_spec() -> None:
    assert cells.split_specs("snip,prospr:steps=10,lr=0.5,random") == ["snip", "prospr:steps=10,lr=0.5", "random"]
    assert cells.split_specs("a:x=1,b:y=2") == ["a:x=1", "b:y=2"]
    with pytest.raises(PaiBenchError) as caught:
        cells.split_specs("snip,lr=0.5")
    assert caught.value.remedy == "write snip:lr=0.5"


@pytest.mark.parametrize("text", ["", " ", ",", "a,,b", "a,"])
def test_empty_lists_and_items_are_refused(text: str) -> None:
    for parse in (cells.split_specs, cells.parse_seeds, cells.parse_sparsities, Filter.parse):
        with pytest.raises(PaiBenchError, match="empty"):
            parse(text)
    with pytest.raises(PaiBenchError, match="empty"):
        cells.parse_names("--datasets", text)


def test_seeds_are_lists_and_ranges() -> None:
    assert cells.parse_seeds("0-4,7, 2") == (0, 1, 2, 3, 4, 7)
    assert cells.parse_seeds("3") == (3,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4-0", "did you mean 0-4"),
        ("a", "whole numbers"),
        ("-1", "whole numbers"),
        ("1.5", "whole"),
        ("0-9999999", "fewer"),
    ],
)
def test_invalid_seeds_are_refused(text: str, words: str) -> None:
    with pytest.raises(PaiBenchError) as caught:
        cells.parse_seeds(text)
    assert words in caught.value.remedy


def test_sparsities_densities_and_compressions_are_equivalent() -> None:
    assert cells.parse_sparsities("0.98,0.9,0.9,0") == (0.0, 0.9, 0.98)
    assert cells.parse_densities("0.1,0.02,1") == (0.0, 0.9, 0.98)
    assert cells.parse_compressions("10,50,1") == (0.0, 0.9, 0.98)
    assert cells.parse_compressions("3") == (2 / 3,)


def test_a_budget_keeps_exactly_its_number_of_weights() -> None:
    assert cells.parse_budgets("30,45, 30") == (45, 30)
    for size in (27, 560, 268_336, 14_715_584):
        for budget in (1, 15, 26, size - 1):
            assert cells.kept_count(cells.budget_sparsity(budget, size), size) == budget


@pytest.mark.parametrize(
    ("parse", "text", "hint"),
    [
        (cells.parse_sparsities, "90", "did you mean 0.9?"),
        (cells.parse_sparsities, "0.9,98%", "did you mean 0.98?"),
        (cells.parse_sparsities, "1", "[0, 1)"),
        (cells.parse_sparsities, "-0.5", "[0, 1)"),
        (cells.parse_sparsities, "1e400", "[0, 1)"),
        (cells.parse_densities, "0", "(0, 1]"),
        (cells.parse_densities, "10", "did you mean 0.1?"),
        (cells.parse_densities, "1e-300", "fraction of weights"),
        (cells.parse_budgets, "0", "as in 30,45"),
        (cells.parse_budgets, "30.5", "as in 30,45"),
        (cells.parse_compressions, "0.5", "1 or more"),
        (cells.parse_compressions, "inf", "1 or more"),
        (cells.parse_sparsities, "nan", "0.9,0.98"),
        (cells.parse_sparsities, "much", "0.9,0.98"),
    ],
)
def test_invalid_sparsities_are_refused_with_a_hint(parse: object, text: str, hint: str) -> None:
    assert callable(parse)
    with pytest.raises(PaiBenchError) as caught:
        parse(text)
    assert hint in caught.value.remedy


def test_a_grid_has_the_dense_reference_once() -> None:
    grid = cells.grid(["dense", "snip", "snip"], [("digits", "conv8"), ("digits", "conv8")], (0.9, 0.98), (0, 1))
    assert len(grid) == len(set(grid)) == 2 + 4
    assert [cell.sparsity for cell in grid if cell.method == "dense"] == [0.0, 0.0]
    assert len(cells.grid(["dense"], [("digits", "conv8")], (0.9,), (0,))) == 1


CELL = Cell("prospr:lr=0.1,steps=2", "digits", "conv8", 0.95, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("method=prospr", True),
        ("method=prospr:steps=2,lr=0.1", True),
        ("method=prospr:steps=2", False),
        ("method!=snip", True),
        ("method=snip,method=prospr", True),
        ("method=prospr:steps=2,lr=0.1,sparsity>=0.95", True),
        ("method=prospr,sparsity>0.95", False),
        ("sparsity>=0.9,sparsity<0.98,seed=3", True),
        ("seed=1,seed=3", True),
        ("seed!=3", False),
        ("dataset=digits,model=conv8", True),
        ("dataset!=digits", False),
    ],
)
def test_a_filter_selects_cells(text: str, expected: bool) -> None:
    assert Filter.parse(text).matches(CELL) is expected


@pytest.mark.parametrize("text", ["metod=snip", "seed", "seed>two", "method>snip", "=3"])
def test_an_invalid_filter_is_refused(text: str) -> None:
    with pytest.raises(PaiBenchError):
        Filter.parse(text)


@pytest.mark.parametrize(
    ("computed", "value"),
    [
        (1 - 0.9, 0.1),
        (1 - 1 / 3, float(Fraction(2, 3))),
        (1 - 1 / 7, float(Fraction(6, 7))),
        (1 - 0.9876543, 0.0123457),
        (0.9, 0.9),
        (0.0, 0.0),
        (1 - 1e-10, 1 - 1e-10),
        (1 - 1e-13, 1 - 1e-13),
        (10**-0.25, 10**-0.25),
    ],
)
def test_computed_sparsities_have_one_canonical_value(computed: float, value: float) -> None:
    assert cells.canonical_sparsity(computed) == value
    once = cells.canonical_sparsity(computed, 1e-12)
    assert cells.canonical_sparsity(once, 1e-12) == once
    assert cells.parse_sparsities(repr(computed)) == (value,)
