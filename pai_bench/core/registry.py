"""Registries of named objects that plug-ins can extend: methods, models and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from pai_bench.errors import PaiBenchError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

Thing = TypeVar("Thing")


def installed(group: str) -> EntryPoints:
    """Return the entry points of a group that installed packages announce."""
    from importlib.metadata import entry_points  # its import takes as long as the rest of this package's core

    return entry_points(group=group)


class Registry(Generic[Thing]):
    """Registry of objects of one kind by name: built-in ones, and objects of plug-in files and installed packages.

    `kind` is the word for one of them in messages; `group` is the group of entry points in which a package announces
    a module (or an object of it) whose import registers its objects; `ours` imports the built-in ones.
    """

    def __init__(self, kind: str, group: str, ours: Callable[[], None] | None = None) -> None:
        self._kind = kind
        self._group = group
        self._ours = ours
        self._things: dict[str, Thing] = {}
        self._complete = False
        self._discovering = False

    def add(self, name: str, thing: Thing) -> None:
        """Register `thing` under `name`.

        Raises: ValueError when the name is taken.
        """
        if name in self._things:
            raise ValueError(f"{self._kind} {name!r} is registered twice: by {self._things[name]!r} and by {thing!r}")
        self._things[name] = thing

    def discover(self) -> None:
        """Load all built-in objects and all objects of installed packages, once.

        Raises: PaiBenchError when a package's cannot be loaded.
        """
        # A module that is being loaded may ask for names itself, which must not start the discovery again.
        if self._complete or self._discovering:
            return
        self._discovering = True
        try:
            self._load()
        finally:
            self._discovering = False
        self._complete = True

    def _load(self) -> None:
        if self._ours is not None:
            self._ours()
        for entry in installed(self._group):
            try:
                entry.load()
            except Exception as error:
                package = entry.dist.name if entry.dist else entry.value
                raise PaiBenchError(
                    f"{self._kind} {entry.name} of the installed package {package} cannot be loaded: "
                    f"{type(error).__name__}: {error}",
                    "correct or uninstall that package",
                ) from error

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order."""
        self.discover()
        return sorted(self._things)

    def get(self, name: str) -> Thing:
        """Return the object registered under `name`.

        Raises: PaiBenchError with the nearest names when there is none.
        """
        self.discover()
        if name not in self._things:
            raise unknown(self._kind, name, self._things)
        return self._things[name]
