"""Declarations that the class of a method may carry, and the checks of their spelling and values."""

from __future__ import annotations

import difflib
from dataclasses import fields
from inspect import isroutine
from typing import Any

from pai_bench.core.facts import INVARIANCES

HOOKS = (
    *("batches_needed", "kept_after", "project", "quotas", "rewinding", "search", "subnetwork"),
    *("update_masks", "update_steps"),
)
"""Declarations that are methods of the class."""

DECLARATIONS = (
    *("added", "controls", "costly", "fresh", "invariant_to", "may_tie", "narrows", "optional"),
    *("ordinal", "per_sparsity", "plugin_version", "prunes", "replaces_step", "revives", "rounds", "schedule"),
    *("starts_dense", "version"),
    *HOOKS,
)
"""Attributes of a method's class that change what the harness does (docs/methods.md describes each of them)."""

SIMILARITY = 0.85
"""Ratio of `difflib.SequenceMatcher` from which a name counts as a misspelt declaration.

All built-in hyper-parameters have ratios below 0.75. One wrong letter in the shortest declaration (`fresh`) gives 0.8,
as `cost` and `costly` do; a missing or an additional letter gives more than 0.85 in all of them.
"""


def check_spelling(method: str, cls: type) -> None:
    """Refuse a class with an attribute whose name is nearly a declaration, which the harness would ignore.

    Fields and class variables are compared with all declarations, functions with `HOOKS` only. Three kinds of names
    are deliberate and therefore accepted: private names, names with the declaration as one of their words (`n_rounds`),
    and names beside the correctly spelt declaration itself.

    Raises: ValueError with the name of the declaration.
    """
    present = _attributes(cls)
    for name, is_function in present.items():
        known = HOOKS if is_function else DECLARATIONS
        if name in DECLARATIONS or name.startswith("_"):
            continue
        for right in difflib.get_close_matches(name.lower(), known, n=1, cutoff=SIMILARITY):
            if right not in present and right not in name.split("_"):
                raise ValueError(f"method {method!r}: {name!r} is not a declaration; write {right!r}, or rename it")


def check_values(method: str, cls: type) -> None:
    """Refuse declarations whose values have a wrong type or name what does not exist. Properties are not evaluated.

    Raises: ValueError with the name of the declaration.
    """
    names = {field.name for field in fields(cls)}
    for name in HOOKS:
        if not callable(getattr(cls, name, _hook)):
            raise ValueError(f"method {method!r}: {name!r} must be a function of the class")
    for name, kind in _KINDS.items():
        value = getattr(cls, name, None)
        if value is not None and not isinstance(value, (kind, property)):
            raise ValueError(f"method {method!r}: {name!r} must be of type {kind.__name__}, not {value!r}")
    tuples = {"added": (names, "a hyper-parameter"), "invariant_to": (set(INVARIANCES), "an invariance")}
    for name, (known, what) in tuples.items():
        given: Any = getattr(cls, name, ())
        if isinstance(given, property):
            continue
        if not isinstance(given, tuple):
            raise ValueError(f"method {method!r}: {name!r} must be a tuple of names, not {given!r}")
        for each in given:
            if each not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise ValueError(f"method {method!r}: {name!r} has {each!r}, which is not {what}; known: {listed}")


_KINDS = {"rounds": int, "schedule": str, "version": int, "plugin_version": int}


def _hook() -> None:
    """Stand in for a hook that a class does not have."""


def _attributes(cls: type) -> dict[str, bool]:
    """Return names that a class and its bases define, with True for functions."""
    found: dict[str, bool] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= dict.fromkeys(vars(base).get("__annotations__", {}), False)
        found |= {name: isroutine(value) for name, value in vars(base).items()}
    return found
