"""Registry of pruning methods; no other module imports `pai_bench.methods`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from pai_bench.cells import CONTROL
from pai_bench.core.facts import Facts
from pai_bench.core.plugins import source_hash
from pai_bench.core.registry import Registry
from pai_bench.errors import PaiBenchError, unknown
from pai_bench.scoring.declarations import check_spelling, check_values
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.scoring.problem import Scorer, round_densities
from pai_bench.scoring.searching import searches

Method = TypeVar("Method", bound=type)

_given: dict[str, type] = {}
"""Methods that `names` does not list: masks from files."""

_facts: dict[str, Facts] = {}
"""Facts that methods were registered with."""


def register(name: str, facts: Facts | None = None) -> Callable[[Method], Method]:
    """Register the decorated frozen dataclass as the method `name`.

    The class may carry `version: ClassVar[int]`, raised whenever its scores would change (1 when absent). Lists show
    the `facts` about the method: its paper, what it sees, its cost.

    Raises: ValueError when the name is taken by another class, the class is not a dataclass, a hyper-parameter has no
    default or is called "control", an attribute is nearly one of the declarations (`revive` for `revives`), or the
    value of a declaration or of the facts is wrong.
    """

    def decorate(cls: Method) -> Method:
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"method {name!r}: {cls!r} must be a (frozen) dataclass whose fields are hyper-parameters")
        bare = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        if bare:
            raise ValueError(
                f"method {name!r}: give the hyper-parameter {bare[0]!r} a default (a number, text or bool)"
            )
        if CONTROL in {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"method {name!r}: a hyper-parameter cannot be called {CONTROL!r}, which names a control")
        check_spelling(name, cls)
        check_values(name, cls)
        if facts is not None:
            try:
                facts.check_names([field.name for field in dataclasses.fields(cls)])
            except ValueError as error:
                raise ValueError(f"method {name!r}: {error}") from error
        if not cls.__module__.startswith("pai_bench."):
            _methods.discover()  # so that a plug-in that takes a built-in name is the one that is refused
        _methods.add(name, cls)
        if facts is not None:
            _facts[name] = facts
        return cls

    return decorate


def _import_methods() -> None:
    """Import every file of `methods/`."""
    try:
        package = importlib.import_module("pai_bench.methods")
    except ModuleNotFoundError as error:
        raise PaiBenchError("the package pai_bench.methods is not installed", "run: pip install -e .") from error
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"pai_bench.methods.{module.name}")


_methods: Registry[type] = Registry("method", "pai_bench.methods", _import_methods)


def register_unlisted(name: str, cls: type) -> None:
    """Make the dataclass `cls` known as the method `name`, without listing it; replaces an earlier one."""
    _given[name] = cls


def names() -> list[str]:
    """Return the names of all methods in alphabetical order."""
    return _methods.names()


def names_at_initialisation() -> list[str]:
    """Return the methods that prune the network that they are given, without a training, in alphabetical order."""
    return [name for name in names() if not _trains(method_class(name))]


def _trains(cls: type) -> bool:
    """Return True for methods whose masks or networks exist in a sweep only."""
    return changes_masks(cls) or searches(cls) or bool(getattr(cls, "narrows", False))


def default_names() -> list[str]:
    """Return the methods of a sweep that names none: all whose class declares neither `costly` nor `optional`."""
    return [name for name in affordable_names() if not getattr(method_class(name), "optional", False)]


def affordable_names() -> list[str]:
    """Return the methods whose class does not declare `costly`, in alphabetical order."""
    return [name for name in names() if not getattr(method_class(name), "costly", False)]


def has_controls(name: str) -> bool:
    """Return True if controls apply to a method.

    They do not apply to methods that prune nothing (`prunes = False`), select weights at random (`controls = False`)
    or change their masks during training.
    """
    cls = method_class(name)
    return bool(getattr(cls, "prunes", True) and getattr(cls, "controls", True) and not changes_masks(cls))


def sees(name: str) -> str:
    """Return the data that decide the masks of a method: "nothing", "inputs", "labels", "training", or "unknown".

    A method without facts sees "training" if it changes or searches its masks in one, else "labels", which is all that
    a scorer can see. Masks from files are "unknown".
    """
    cls = method_class(name)
    if changes_masks(cls) or searches(cls):
        return "training"
    if name in _given:
        return "unknown"
    seen = facts(name).sees or "labels"
    return "nothing" if seen == "shape" else seen


def facts(name: str) -> Facts:
    """Return the facts that the method `name` was registered with; empty ones if there are none."""
    method_class(name)
    return _facts.get(name, Facts())


def module(name: str) -> str:
    """Return the name of the Python module that registered the method `name`."""
    return method_class(name).__module__


def is_builtin(name: str) -> bool:
    """Return True for a built-in method, False for one of a plug-in or an installed package."""
    return is_builtin_class(method_class(name))


def is_builtin_class(cls: type) -> bool:
    """Return True for the class of a built-in method."""
    return cls.__module__.startswith("pai_bench.")


def method_class(name: str) -> type:
    """Return the class registered under `name`.

    Raises: PaiBenchError with the nearest names when there is none.
    """
    return _given[name] if name in _given else _methods.get(name)


def get(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Scorer:
    """Return the method `name` with its hyper-parameters, defaults where not given.

    Raises: PaiBenchError for an unknown name or hyper-parameter, or a value of the wrong type.
    """
    cls = method_class(name)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in (hyperparameters or {}).items():
        if key not in defaults:
            if not defaults:
                raise PaiBenchError(
                    f"method {name} has no hyper-parameter {key!r}", "omit it; the method has no hyper-parameters"
                )
            raise unknown(f"hyper-parameter of {name}", key, defaults)
        values[key] = _checked(name, key, value, defaults[key])
    try:
        scorer: Scorer = cls(**values)
    except PaiBenchError:
        raise
    # Constructors of plug-ins are foreign code; any error of theirs is reported as one of the hyper-parameters.
    except (Exception, SystemExit) as error:
        line = str(error).partition("\n")[0] or "no message"
        raise PaiBenchError(
            f"method {name} cannot be constructed: {type(error).__name__}: {line}",
            "give other hyper-parameters, or correct the method's class (-v shows where it fails)",
        ) from error
    # Here as well as in scoring, so that a sweep is refused before it begins.
    round_densities(1.0, int(getattr(scorer, "rounds", 1)), str(getattr(scorer, "schedule", "exponential")))
    return scorer


def _checked(method: str, key: str, value: Any, default: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    kind = type(default)
    if default is None and isinstance(value, (bool, int, float, str)):
        return value  # of which type is the method's to say
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # The exact type, because bool is a subclass of int.
    if type(value) is not kind:
        raise PaiBenchError(
            f"{method}:{key} takes {kind.__name__}, not {value!r}", f"write for instance {method}:{key}={default}"
        )
    return value


def version(scorer: Scorer) -> int:
    """Return the version that a method's class carries; results of another version are stale."""
    return int(getattr(scorer, "version", 1))


def hyperparameters(scorer: Scorer) -> dict[str, Any]:
    """Return a method's hyper-parameters by name, defaults included."""
    return dataclasses.asdict(scorer)  # type: ignore[call-overload,no-any-return]


def identity(scorer: Scorer) -> dict[str, Any]:
    """The hyper-parameters that the fingerprint of a result includes.

    A hyper-parameter that the class names in `added: ClassVar[tuple[str, ...]]` is left out while it has its default,
    so that results from before it existed stay valid. Its default must never change.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(type(scorer))}  # type: ignore[arg-type]
    added = getattr(scorer, "added", ())
    return {key: v for key, v in hyperparameters(scorer).items() if key not in added or v != defaults[key]}


def model_source(scorer: Scorer, module: str) -> str | None:
    """Return the content of the plug-in file that defines a model, with the method's `plugin_version`; None for ours.

    A method carries `plugin_version: ClassVar[int]` (1 when absent) where its masks change on models of plug-ins while
    those of all built-in models stay as they are.
    """
    source = source_hash(module)
    revision = int(getattr(scorer, "plugin_version", 1))
    return source if source is None or revision == 1 else f"{source} {revision}"
