"""Isolation of scoring from the caller's global state: random states, precision, compilation, checkpointing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils import checkpoint

from pai_bench.core.precision import float32_products
from pai_bench.core.randomness import own_randomness, seed_draws


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Seed all global generators inside the context (dropout and shuffling loaders use them); restore them after it.

    Inside, arithmetic has the precision of the dtype for any setting of the caller: no autocast, no reduced-precision
    products on GPUs, no compiled modules (their second derivatives are wrong or missing), no activation
    checkpointing. Gradients are enabled.
    """
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
    devices = [torch.device("cuda", index) for index in range(count)]
    with ExitStack() as stack:
        stack.enter_context(own_randomness(*devices))
        stack.enter_context(float32_products("ieee"))
        stack.enter_context(kept_activations())
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda") if devices else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled, and it takes seconds to load
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        seed_draws(seed, *devices)
        yield


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Inside, recurrent layers are composed of operations that can be differentiated twice, and in eval mode; those of
    cuDNN cannot."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


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
