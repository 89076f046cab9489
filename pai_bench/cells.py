"""Which point of the grid: cells, grids, and how lists and ranges are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real

from pai_bench.errors import PaiBenchError, unknown

Value = bool | int | float | str
"""A hyper-parameter as it can be written in a method spec."""

DENSE = "dense"
"""The reference method that every grid holds once per data set, model and seed, at sparsity 0."""

GIVEN = "file:"
"""What the name of a method begins with whose masks are read from a file; as typed, a path follows."""

CONTROLS = ("shuffle", "reinit", "invert")
"""What is done to a method to see what its masks owe their success to (see docs/controls.md)."""

CONTROL = "control"
"""The key of a spec that names one, as in "snip:control=shuffle"; no method has a hyper-parameter of that name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT = re.compile(r"[A-Za-z0-9_.+-]+")
_GIVEN = re.compile(rf"({GIVEN}{_TEXT.pattern})(?::{CONTROL}=({_TEXT.pattern}))?")


def exact_sparsity(sparsity: float) -> Fraction:
    """The sparsity as the decimal that was typed: 0.9 is 9/10, not the nearest binary number.

    Raises: PaiBenchError for what is no real number, and outside [0, 1).
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
    """The one value of a sparsity that was computed or copied in several ways: 1 - 0.9 is 0.1, 1 - 1/3 is 2/3.

    That is the decimal of up to nine places or else the fraction with a denominator up to 100,000 from which it differs
    by no more than a rounding error; any other value is returned as it is. A table that states twelve places needs
    the tolerance 1e-12.
    """
    value = float(sparsity)
    decimal, fraction = round(value, 9), float(Fraction(value).limit_denominator(100_000))
    for simple, error in ((decimal, 1e-15), (fraction, tolerance)):
        if abs(simple - value) <= error and simple < 1 and (simple > 0 or value == 0):
            return simple
    return value


def kept_count(sparsity: float, size: int) -> int:
    """How many of `size` prunable weights a mask keeps: round(density x size)."""
    return round((1 - exact_sparsity(sparsity)) * size)


@dataclass(frozen=True)
class MethodSpec:
    """A method, the hyper-parameters that differ from its defaults, sorted by name, and a control."""

    name: str
    hyperparameters: tuple[tuple[str, Value], ...] = ()
    control: str | None = None
    """One of CONTROLS; None for the method as it is."""

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Read "prospr" or "prospr:steps=10,lr=0.5" or "prospr:control=shuffle" or, a name without hyper-parameters,
        "file:masks-1f3a5b7c".

        Raises: PaiBenchError when it has another form, names a key twice, or a control that is none.
        """
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
        """The method itself."""
        return replace(self, control=None)

    def __str__(self) -> str:
        """The canonical text: what `parse` reads, keys sorted."""
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
    """One point of the grid: its identity, names and numbers only."""

    method: str
    """A spec such as "prospr" or "prospr:lr=0.5,steps=10"."""
    dataset: str
    model: str
    sparsity: float
    seed: int

    @property
    def spec(self) -> MethodSpec:
        """The method's name and hyper-parameters."""
        return MethodSpec.parse(self.method)

    def __str__(self) -> str:
        return f"{self.method} · {self.dataset} · {self.model} · sparsity {self.sparsity:g} · seed {self.seed}"


def grid(
    methods: Iterable[str], pairs: Iterable[tuple[str, str]], sparsities: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """All cells of methods x (data set, model) pairs x sparsities x seeds, and the dense references."""
    wanted = [method for method in dict.fromkeys(methods) if method != DENSE]
    cells = []
    for dataset, model in dict.fromkeys(pairs):
        cells += [Cell(DENSE, dataset, model, 0.0, seed) for seed in seeds]
        cells += [Cell(method, dataset, model, s, seed) for method in wanted for s in sparsities for seed in seeds]
    return cells


def parse_items(option: str, text: str) -> list[str]:
    """The items of a comma list.

    Raises: PaiBenchError for an empty list or place.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        what = "is an empty list" if not text.strip(" ,") else "has an empty place"
        raise PaiBenchError(f"{option} {text!r} {what}", "separate items by single commas, or leave the option out")
    return items


def split_specs(text: str) -> list[str]:
    """The method specs of a list such as "snip,prospr:steps=10,lr=0.5": after a colon, key=value belongs to the spec.

    Raises: PaiBenchError for an empty list, or a key=value that belongs to no spec.
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
    """The names of a comma list, each once.

    Raises: PaiBenchError for an empty list.
    """
    return tuple(dict.fromkeys(parse_items(option, text)))


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a list such as "0-4,7", each once.

    Raises: PaiBenchError for what is no seed, and for a reversed range.
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
            raise PaiBenchError(f"--seeds {text!r}: the range {item} has {last - first + 1} seeds", "ask for fewer")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def parse_sparsities(text: str) -> tuple[float, ...]:
    """The fractions removed of a list such as "0.9,0.98", ascending.

    Raises: PaiBenchError for what is no number or not in [0, 1).
    """
    return _sparsities("--sparsities", text, lambda x: 0 <= x < 1, "in [0, 1)", lambda x: x)


def parse_densities(text: str) -> tuple[float, ...]:
    """Sparsities from a list of densities (fractions kept, in (0, 1])."""
    return _sparsities("--densities", text, lambda x: 0 < x <= 1, "in (0, 1]", lambda x: 1 - x)


def parse_compressions(text: str) -> tuple[float, ...]:
    """Sparsities from a list of compression ratios (1/density, 1 or more)."""
    return _sparsities("--compressions", text, lambda x: x >= 1, "1 or more", lambda x: 1 - 1 / x)


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
            # Only fractions are mistaken for per cent; a compression has no such reading.
            mistaken = (per_cent or 1 < value < 100) and valid(value / 100) and option != "--compressions"
            hint = f"did you mean {value / 100:g}? " if mistaken else ""
            raise PaiBenchError(f"{option} {text!r}: {item} is not {allowed}", f"{hint}values must be {allowed}")
        sparsity = canonical_sparsity(float(convert(Fraction(repr(value)))))
        exact_sparsity(sparsity)  # a density may be so small that nothing is left of it
        found.append(sparsity)
    return tuple(sorted(set(found)))
