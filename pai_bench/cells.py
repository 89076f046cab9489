"""Cells (points of the grid), grids of cells, and the syntax of lists and ranges on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real

from pai_bench.errors import PaiBenchError, unknown

Value = bool | int | float | str
"""Type of a hyper-parameter in a method spec."""

DENSE, SMALL_DENSE = "dense", "small-dense"
"""References without pruning: the network itself, which every grid contains once per data set, model and seed at
sparsity 0, and a narrower one of density times the size."""
GIVEN = "file:"
"""Prefix of the name of a method whose masks are read from a file; on the command line a path follows."""

CONTROL, QUOTA_OF, UNSTRUCTURED = "control", "quota-of", "unstructured"
"""Key of the control in a spec, which no hyper-parameter may have as its name, two controls (the first is a prefix)."""

CONTROLS = ("shuffle", "reinit", "invert", "sample", QUOTA_OF, UNSTRUCTURED)
"""Controls: modifications of a method that show which property of its masks matters (see docs/controls.md)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT = re.compile(r"[A-Za-z0-9_.+-]+")
_GIVEN = re.compile(rf"({GIVEN}{_TEXT.pattern})(?::{CONTROL}=({_TEXT.pattern}))?")


def exact_sparsity(sparsity: float) -> Fraction:
    """Return the sparsity as the decimal that was typed: 0.9 is 9/10, not the nearest binary fraction.

    Raises: PaiBenchError for a value that is not a real number or not in [0, 1).
    """
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool):
        raise PaiBenchError(
            f"sparsity {sparsity!r} is of type {type(sparsity).__name__}", "pass a number in [0, 1), for instance 0.9"
        )
    value = float(str(sparsity)) if type(sparsity).__module__ == "numpy" else float(sparsity)
    if not 0 <= value < 1:
        hint = f"did you mean {value / 100:g}? " if 1 < value < 100 else ""
        raise PaiBenchError(
            f"sparsity {sparsity} is not in [0, 1)", f"{hint}it is the fraction of weights removed, for instance 0.9"
        )
    return Fraction(repr(value))


def canonical_sparsity(sparsity: float, tolerance: float = 1e-15) -> float:
    """Return a canonical value for a sparsity, so that 1 - 0.9 equals 0.1 and 1 - 1/3 equals 2/3.

    The canonical value is the decimal with up to nine places, or else the fraction with a denominator up to 100,000,
    that differs from the input by at most a rounding error. Any other value is returned unchanged. Use the tolerance
    1e-12 for tables that print twelve places.
    """
    value = float(sparsity)
    decimal, fraction = round(value, 9), float(Fraction(value).limit_denominator(100_000))
    for simple, error in ((decimal, 1e-15), (fraction, tolerance)):
        if abs(simple - value) <= error and simple < 1 and (simple > 0 or value == 0):
            return simple
    return value


def kept_count(sparsity: float, size: int) -> int:
    """Return the number of weights that a mask keeps out of `size` prunable ones: round(density x size)."""
    return round((1 - exact_sparsity(sparsity)) * size)


@dataclass(frozen=True)
class MethodSpec:
    """A method, the hyper-parameters that differ from its defaults (sorted by name), and an optional control."""

    name: str
    hyperparameters: tuple[tuple[str, Value], ...] = ()
    control: str | None = None
    """One of CONTROLS; None for the unmodified method."""

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Parse a spec such as "prospr", "prospr:steps=10,lr=0.5", "prospr:control=shuffle" or "file:masks-1f3a5b7c".

        The last form, masks from a file, has no hyper-parameters. "quota-of:prospr" is "prospr:control=quota-of".

        Raises: PaiBenchError for a text in another form, a repeated key, or an unknown control.
        """
        if (rest := text.strip().removeprefix(f"{QUOTA_OF}:")) != text.strip():
            return cls.parse(f"{rest}{',' if ':' in rest.removeprefix(GIVEN) else ':'}{CONTROL}={QUOTA_OF}")
        if given := _GIVEN.fullmatch(text.strip()):
            return cls(given[1], control=_checked_control(given[2]))
        name, colon, rest = text.strip().partition(":")
        if not _NAME.fullmatch(name) or (colon and not rest):
            raise _bad_spec(text)
        values: dict[str, Value] = {}
        for item in rest.split(",") if rest else ():
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not key.isidentifier() or not _TEXT.fullmatch(value):
                raise _bad_spec(text)
            if key in values:
                raise PaiBenchError(f"method {text!r} gives {key} twice", "give it once")
            values[key] = _read_value(value)
        control = values.pop(CONTROL, None)
        return cls(name, tuple(sorted(values.items())), _checked_control(control))

    @property
    def uncontrolled(self) -> MethodSpec:
        """The same method without its control."""
        return replace(self, control=None)

    def __str__(self) -> str:
        """Return the canonical text with sorted keys; `parse` reads it back."""
        values = dict(self.hyperparameters) | ({} if self.control is None else {CONTROL: self.control})
        if not values:
            return self.name
        return f"{self.name}:{','.join(f'{key}={_write_value(value)}' for key, value in sorted(values.items()))}"


def _checked_control(control: Value | None) -> str | None:
    if control is None or control in CONTROLS:
        return None if control is None else str(control)
    raise unknown("control", str(control), CONTROLS)


def _bad_spec(text: str) -> PaiBenchError:
    return PaiBenchError(f"method {text!r} cannot be read", "write name or name:key=value,key=value")


def _read_value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text


def _write_value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid, identified by names and numbers only."""

    method: str
    """A spec such as "prospr" or "prospr:lr=0.5,steps=10"."""
    dataset: str
    model: str
    sparsity: float
    seed: int

    @property
    def spec(self) -> MethodSpec:
        """Parsed method spec: name, hyper-parameters and control."""
        return MethodSpec.parse(self.method)

    def __str__(self) -> str:
        return f"{self.method} · {self.dataset} · {self.model} · sparsity {self.sparsity:g} · seed {self.seed}"


def grid(
    methods: Iterable[str], pairs: Iterable[tuple[str, str]], sparsities: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """Return all cells of methods x (data set, model) pairs x sparsities x seeds, and the dense references."""
    pruning = [method for method in dict.fromkeys(methods) if method != DENSE]
    cells = []
    for dataset, model in dict.fromkeys(pairs):
        cells += [Cell(DENSE, dataset, model, 0.0, seed) for seed in seeds]
        cells += [Cell(method, dataset, model, s, seed) for method in pruning for s in sparsities for seed in seeds]
    return cells


def parse_items(option: str, text: str) -> list[str]:
    """Split a comma-separated list into its items.

    Raises: PaiBenchError for an empty list or an empty item.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        cause = "is an empty list" if not text.strip(" ,") else "has an empty item"
        raise PaiBenchError(f"{option} {text!r} {cause}", "separate items by single commas, or omit the option")
    return items


def split_specs(text: str) -> list[str]:
    """Split a list of method specs such as "snip,prospr:steps=10,lr=0.5".

    An item key=value belongs to the preceding spec if that spec has a colon.

    Raises: PaiBenchError for an empty list, or a key=value without such a spec.
    """
    specs: list[str] = []
    for item in parse_items("--methods", text):
        key, equals, _ = item.partition("=")
        if equals and ":" not in key:
            if not specs or ":" not in specs[-1]:
                owner = specs[-1] if specs else "name"
                raise PaiBenchError(f"--methods {text!r}: {item} belongs to no method", f"write {owner}:{item}")
            specs[-1] += f",{item}"
        else:
            specs.append(item)
    return list(dict.fromkeys(specs))


def parse_names(option: str, text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list without duplicates.

    Raises: PaiBenchError for an empty list.
    """
    return tuple(dict.fromkeys(parse_items(option, text)))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a list such as "0-4,7" without duplicates.

    Raises: PaiBenchError for an item that is not a seed, and for a reversed range.
    """
    seeds: list[int] = []
    for item in parse_items("--seeds", text):
        match = re.fullmatch(r"(\d{1,18})(?:\s*-\s*(\d{1,18}))?", item)
        if not match:
            raise PaiBenchError(
                f"--seeds {text!r}: {item!r} is not a seed", "write whole numbers from 0 on, as in 0-4,7"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise PaiBenchError(f"--seeds {text!r}: the range {item} is reversed", f"did you mean {last}-{first}?")
        if last - first >= 100_000:
            raise PaiBenchError(f"--seeds {text!r}: the range {item} has {last - first + 1} seeds", "use fewer seeds")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def parse_sparsities(text: str) -> tuple[float, ...]:
    """Return the sparsities (fractions removed) of a list such as "0.9,0.98" in ascending order.

    Raises: PaiBenchError for an item that is not a number in [0, 1).
    """
    return _sparsities("--sparsities", text, lambda x: 0 <= x < 1, "in [0, 1)", lambda x: x)


def parse_densities(text: str) -> tuple[float, ...]:
    """Return the sparsities for a list of densities (fractions kept, in (0, 1])."""
    return _sparsities("--densities", text, lambda x: 0 < x <= 1, "in (0, 1]", lambda x: 1 - x)


def parse_compressions(text: str) -> tuple[float, ...]:
    """Return the sparsities for a list of compression ratios (1/density, at least 1)."""
    return _sparsities("--compressions", text, lambda x: x >= 1, "1 or more", lambda x: 1 - 1 / x)


def parse_budgets(text: str) -> tuple[int, ...]:
    """Return the numbers of kept weights of a list such as "30,45" in descending order.

    Raises: PaiBenchError for an item that is not a whole number of 1 or more.
    """
    found = set()
    for item in parse_items("--budgets", text):
        if not re.fullmatch(r"\d{1,15}", item) or int(item) < 1:
            raise PaiBenchError(
                f"--budgets {text!r}: {item!r} is not a number of weights", "write whole numbers from 1 on, as in 30,45"
            )
        found.add(int(item))
    return tuple(sorted(found, reverse=True))


def budget_sparsity(budget: int, size: int) -> float:
    """Return the sparsity at which a mask keeps exactly `budget` of `size` prunable weights."""
    return canonical_sparsity(float(1 - Fraction(budget, size)))


def _sparsities(
    option: str, text: str, valid: Callable[[float], bool], allowed: str, convert: Callable[[Fraction], Fraction]
) -> tuple[float, ...]:
    found = []
    for item in parse_items(option, text):
        per_cent = item.endswith("%")
        try:
            value = float(item.removesuffix("%"))
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise PaiBenchError(
                f"{option} {text!r}: {item!r} is not a number", f"write numbers {allowed}, as in 0.9,0.98"
            )
        if per_cent or not valid(value) or math.isinf(value):
            # Suggest a fraction only where the user may have typed per cent; a compression ratio has no such reading.
            mistaken = (per_cent or 1 < value < 100) and valid(value / 100) and option != "--compressions"
            hint = f"did you mean {value / 100:g}? " if mistaken else ""
            raise PaiBenchError(f"{option} {text!r}: {item} is not {allowed}", f"{hint}values must be {allowed}")
        sparsity = canonical_sparsity(float(convert(Fraction(repr(value)))))
        exact_sparsity(sparsity)  # a tiny density may round to sparsity 1, which is not allowed
        found.append(sparsity)
    return tuple(sorted(set(found)))
