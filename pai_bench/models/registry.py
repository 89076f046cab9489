"""Registry of networks."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import nn

from pai_bench.core.registry import Registry
from pai_bench.errors import PaiBenchError

Builder = Callable[..., nn.Module]
"""(channels, size, classes) to a network for images [B, channels, size, size] with logits [B, classes].

A fourth parameter `width: float = 1.0` multiplies the widths of the hidden layers, if the builder has it.
"""

_builders: Registry[Builder] = Registry("model", "pai_bench.models")


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Register the decorated builder as the model `name`; also for plug-in files and installed packages.

    Raises: ValueError when the name is taken.
    """

    def decorate(builder: Builder) -> Builder:
        _builders.add(name, builder)
        return builder

    return decorate


def names() -> list[str]:
    """Return the names of all models in alphabetical order."""
    return _builders.names()


def has_width(name: str) -> bool:
    """Return True if the hidden layers of the network `name` can be built narrower."""
    return "width" in inspect.signature(_builders.get(name)).parameters


def require_width(name: str) -> None:
    """Check that the hidden layers of the network `name` can be built narrower.

    Raises: PaiBenchError when its builder has no parameter `width`.
    """
    if not has_width(name):
        raise PaiBenchError(
            f"model {name} has no width, so that no smaller one can be built",
            "give its builder a fourth parameter `width: float = 1.0` that multiplies the widths of its hidden layers",
        )


def build(name: str, channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """Build the network `name` for images [B, channels, size, size]; `initialise` draws its weights from a seed.

    `width` multiplies the widths of its hidden layers, each rounded to a whole number of at least 1.

    Raises: PaiBenchError for an unknown name, images that are too small for it, a network without widths, or a builder
        that returns no network.
    """
    builder = _builders.get(name)
    if width != 1:
        require_width(name)
    try:
        network = builder(channels, size, classes, **({} if width == 1 else {"width": width}))
    # `except Exception` elsewhere does not catch SystemExit, which would end the worker.
    except SystemExit as error:
        raise RuntimeError(f"its builder ended the program: SystemExit({error.code!r})") from error
    if not isinstance(network, nn.Module):
        raise PaiBenchError(
            f"the builder of model {name} returned {_described(network)}, not a torch.nn.Module",
            "return the network from the function that register_model decorates",
        )
    return network


def _described(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def describe(name: str) -> tuple[str, int | None]:
    """Return a description of a network, and its number of parameters for 3 x 32 x 32 images of 10 classes.

    The text is the first paragraph of its builder's docstring, else of its class's. Images have 64 or 224 pixels where
    32 are too few; the number is None where the network cannot be built without weights.
    """
    builder = _builders.get(name)
    text = builder.__doc__
    for size in (32, 64, 224):
        try:
            # On the meta device no weights are allocated or drawn, so that a list of large networks takes no time.
            with torch.device("meta"):
                network = builder(3, size, 10)
            text = text or type(network).__doc__
            count = sum(parameter.numel() for parameter in network.parameters())
            return _first_paragraph(text), count
        except Exception:  # of any kind, from a plug-in's builder: a list does not fail for one network
            continue
    return _first_paragraph(text), None


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def module(name: str) -> str:
    """Return the name of the Python module that registered the model `name`."""
    return str(_builders.get(name).__module__)


def is_builtin(name: str) -> bool:
    """Return True for a built-in model, False for one of a plug-in or an installed package."""
    return module(name).startswith("pai_bench.")
