"""Names to methods: the only module that knows where methods live."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pai_bench.catalogue import Catalogue
from pai_bench.errors import PaiBenchError, unknown
from pai_bench.scoring import Scorer

Method = TypeVar("Method", bound=type)


def register(name: str) -> Callable[[Method], Method]:
    """Class decorator that makes a frozen dataclass known as the method `name`.

    The class may carry `version: ClassVar[int]`, raised whenever its scores would change (1 when absent).

    Raises: ValueError when the name is taken by another class.
    """

    def decorate(cls: Method) -> Method:
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"method {name!r}: {cls!r} must be a (frozen) dataclass whose fields are hyper-parameters")
        _methods.add(name, cls)
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


_methods: Catalogue[type] = Catalogue("method", "pai_bench.methods", _import_methods)


def load_plugin(path: Path) -> None:
    """Run a user's Python file, whose decorators register methods and models.

    Raises: PaiBenchError when the file is missing or raises.
    """
    path = path.resolve()
    module_name = f"pai_bench_plugin_{path.stem}"
    if module_name in sys.modules and sys.modules[module_name].__file__ == str(path):
        return
    if not path.is_file():
        raise PaiBenchError(f"plugin {path} is not a file", "give the path of a Python file that registers methods")
    _methods.discover()
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise PaiBenchError(
            f"plugin {path} cannot be loaded: {type(error).__name__}: {error}", "mend the file; -v shows where it fails"
        ) from error


def names() -> list[str]:
    """All known methods in alphabetical order."""
    return _methods.names()


def is_builtin(name: str) -> bool:
    """Whether a method is one of ours, not a plug-in's or another package's."""
    return method_class(name).__module__.startswith("pai_bench.")


def method_class(name: str) -> type:
    """The class registered under `name`.

    Raises: PaiBenchError with the nearest names when there is none.
    """
    return _methods.get(name)


def get(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Scorer:
    """The method `name` with its hyper-parameters, defaults where not given.

    Raises: PaiBenchError for an unknown name or hyper-parameter, or a value of the wrong type.
    """
    cls = method_class(name)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in (hyperparameters or {}).items():
        if key not in defaults:
            if not defaults:
                raise PaiBenchError(f"method {name} has no hyper-parameter {key!r}", "it has none at all; leave it out")
            raise unknown(f"hyper-parameter of {name}", key, defaults)
        values[key] = _checked(name, key, value, defaults[key])
    scorer: Scorer = cls(**values)
    return scorer


def _checked(method: str, key: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise PaiBenchError(
            f"{method}:{key} takes {kind.__name__}, not {value!r}", f"write for instance {method}:{key}={default}"
        )
    return value


def version(scorer: Scorer) -> int:
    """The version that a method's class carries; results of another version are stale."""
    return int(getattr(scorer, "version", 1))


def hyperparameters(scorer: Scorer) -> dict[str, Any]:
    """A method's hyper-parameters by name, defaults included."""
    return dataclasses.asdict(scorer)  # type: ignore[call-overload,no-any-return]
