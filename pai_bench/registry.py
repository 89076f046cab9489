"""Names to methods: the only module that knows where methods live."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from pai_bench import mask_files
from pai_bench.catalogue import Catalogue
from pai_bench.cells import CONTROL
from pai_bench.errors import PaiBenchError, unknown
from pai_bench.mask_files import MaskFile
from pai_bench.scoring import Problem, Scorer, round_densities

Method = TypeVar("Method", bound=type)

_given: dict[str, type] = {}
_mask_files: dict[str, MaskFile] = {}
_plugins: dict[str, tuple[str, str]] = {}
"""By the name of its module: the name of a plug-in's file, and the SHA-256 of what was loaded from it."""


def register(name: str) -> Callable[[Method], Method]:
    """Class decorator that makes a frozen dataclass known as the method `name`.

    The class may carry `version: ClassVar[int]`, raised whenever its scores would change (1 when absent).

    Raises: ValueError when the name is taken by another class.
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


def load_plugin(path: Path, content: bytes | None = None) -> None:
    """Run a user's Python file, whose decorators register methods and models; of a file of masks, make a method.

    `content` is what the file held when a caller checked it: that runs then, whatever the file holds now.

    Raises: PaiBenchError when the file is missing or raises.
    """
    if path.suffix in mask_files.SUFFIXES:
        register_masks(mask_files.read(path))
        return
    path = path.resolve()
    # Two files of one name in two folders are two plug-ins.
    module_name = f"pai_bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return
    if not path.is_file():
        raise PaiBenchError(f"plugin {path} is not a file", "give the path of a Python file that registers methods")
    _methods.discover()
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    content = path.read_bytes() if content is None else content
    try:
        # What is hashed is what runs, also when the file changes in this moment.
        exec(compile(content, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise PaiBenchError(
            f"plugin {path} cannot be loaded: {type(error).__name__}: {error}", "mend the file; -v shows where it fails"
        ) from error
    _plugins[module_name] = (path.name, hashlib.sha256(content).hexdigest())


def plugins() -> dict[str, str]:
    """SHA-256 (hex) of each plug-in file that was loaded, by the file's name; of several of one name with commas."""
    found: dict[str, list[str]] = {}
    for name, digest in sorted(_plugins.values()):
        found.setdefault(name, []).append(digest)
    return {name: ",".join(digests) for name, digests in found.items()}


def source_hash(module: str) -> str | None:
    """SHA-256 (hex) of the file of a module that is not ours: what it makes is not known by a version alone.

    None for modules of ours, which a test holds to their versions.
    """
    if module.startswith("pai_bench."):
        return None
    return _plugins[module][1] if module in _plugins else _module_hash(module)


@cache
def _module_hash(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def register_masks(file: MaskFile) -> None:
    """Make the masks of a file known as the method `file.method`; other methods are not touched, nor `names`."""

    @dataclasses.dataclass(frozen=True)
    class Given:
        """Masks as they are: what is kept scores 1, what is not 0."""

        masks: str = file.digest

        may_tie: ClassVar[bool] = True

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            shapes = {name: tuple(weight.shape) for name, weight in problem.weights.items()}
            masks = file.fitted(shapes, type(problem.model).__name__)
            return {name: torch.from_numpy(masks[name]).to(weight) for name, weight in problem.weights.items()}

    _given[file.method] = Given
    _mask_files[file.method] = file


def mask_file(name: str) -> MaskFile | None:
    """The file behind a method of masks, None for every other method."""
    return _mask_files.get(name)


def names() -> list[str]:
    """All known methods in alphabetical order."""
    return _methods.names()


def default_names() -> list[str]:
    """The methods of a sweep that names none: all but those whose class says `costly: ClassVar[bool] = True`."""
    return [name for name in names() if not getattr(method_class(name), "costly", False)]


def has_controls(name: str) -> bool:
    """Whether a method decides which weights stay; one that does not, or by chance (`controls = False`), has nothing
    that a control could take away."""
    cls = method_class(name)
    return bool(getattr(cls, "prunes", True) and getattr(cls, "controls", True))


def module(name: str) -> str:
    """The name of the Python module that registered the method `name`."""
    return method_class(name).__module__


def is_builtin(name: str) -> bool:
    """Whether a method is one of ours, not a plug-in's or another package's."""
    return is_builtin_class(method_class(name))


def is_builtin_class(cls: type) -> bool:
    """Whether the class of a method is one of ours."""
    return cls.__module__.startswith("pai_bench.")


def method_class(name: str) -> type:
    """The class registered under `name`.

    Raises: PaiBenchError with the nearest names when there is none.
    """
    return _given[name] if name in _given else _methods.get(name)


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


def model_source(scorer: Scorer, module: str) -> str | None:
    """The content of the plug-in file that defines a model, with the method's `plugin_version`; None for ours.

    A method carries `plugin_version: ClassVar[int]` (1 when absent) where its masks change on models of plug-ins while
    those of all built-in models stay as they are.
    """
    source = source_hash(module)
    revision = int(getattr(scorer, "plugin_version", 1))
    return source if source is None or revision == 1 else f"{source} {revision}"
