"""Plug-ins: load a user's Python files, and hash the sources of code that is not part of pai-bench."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path

from pai_bench.errors import PaiBenchError

_plugins: dict[str, tuple[str, str]] = {}
"""File name of each loaded plug-in and SHA-256 of its content, by module name."""


def load_plugin(path: Path, content: bytes | None = None) -> None:
    """Run a user's Python file, whose decorators register methods, models, and data sets.

    `content` is the content that a caller has checked; it is executed instead of the present content of the file.

    Raises: PaiBenchError when the file is missing or raises.
    """
    path = path.resolve()
    # Two files of one name in two folders are two plug-ins.
    module_name = f"pai_bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return
    if not path.is_file():
        raise PaiBenchError(f"plugin {path} is not a file", "give the path of a Python file that registers methods")
    # With the loader given, because the file's name may lack .py.
    loader = SourceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # The module is registered before its code runs, because dataclasses look up their module by name.
    sys.modules[module_name] = module
    content = path.read_bytes() if content is None else content
    try:
        # Run the bytes that are hashed: the file may change between two reads.
        exec(compile(content, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise PaiBenchError(
            f"plugin {path} cannot be loaded: {type(error).__name__}: {error}",
            "correct the file; -v shows the traceback",
        ) from error
    _plugins[module_name] = (path.name, hashlib.sha256(content).hexdigest())


def plugins() -> dict[str, str]:
    """Return the SHA-256 (hex) of each loaded plug-in file by file name; files of one name are joined by commas."""
    found: dict[str, list[str]] = {}
    for name, digest in sorted(_plugins.values()):
        found.setdefault(name, []).append(digest)
    return {name: ",".join(digests) for name, digests in found.items()}


def source_hash(module: str) -> str | None:
    """Return the SHA-256 (hex) of the file of a module that is not part of pai-bench, because it has no version.

    Returns None for modules of pai-bench, whose results tests compare with their versions.
    """
    if module.startswith("pai_bench."):
        return None
    return _plugins[module][1] if module in _plugins else _module_hash(module)


@cache
def _module_hash(module: str) -> str | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
