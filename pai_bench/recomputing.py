"""Activation checkpointing of a model, switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint


class _Kept:
    """In the place of torch's autograd function that recomputes."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
        del preserve_rng_state
        return function(*inputs)


def _kept(*_: Any, **__: Any) -> Iterator[None]:
    """In the place of torch's hooks that recompute, which go around the call."""
    yield


@contextmanager
def kept_activations() -> Iterator[None]:
    """Inside, torch.utils.checkpoint keeps activations instead of computing them again on the way back.

    It would compute them with the parameters that the model has then, which need not be those that are scored, and
    without the functions that stand in for torch's. Models hold torch's function under names of their own, hence what
    it calls is replaced; both ways of it (`use_reentrant`) are.
    """
    # Newer versions of torch have a second generator, which `checkpoint` calls.
    generators = [name for name in vars(checkpoint) if name.startswith("_checkpoint_without_reentrant_generator")]
    others: dict[str, Any] = {"CheckpointFunction": _Kept, **dict.fromkeys(generators, _kept)}
    before = {name: getattr(checkpoint, name) for name in others}
    for name, other in others.items():
        setattr(checkpoint, name, other)
    try:
        yield
    finally:
        for name, old in before.items():
            setattr(checkpoint, name, old)
