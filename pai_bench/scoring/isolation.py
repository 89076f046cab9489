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
from pai_bench.scoring.product_convolutions import fastest_convolutions


@contextmanager
def undisturbed(seed: int, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Seed all global generators inside the context (dropout and shuffling loaders use them); restore them after it.

    Inside, arithmetic has the precision of the dtype for any setting of the caller: no autocast, no reduced-precision
    products on GPUs, no compiled modules (their second derivatives are wrong or missing), no activation
    checkpointing. Gradients are enabled. `device` and `dtype` of the model choose the mechanism of its convolutions.
    """
    # Without an initialised CUDA there is no state to restore, and reading it would initialise CUDA.
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    devices = [torch.device("cuda", index) for index in range(count)]
    with ExitStack() as stack:
        stack.enter_context(own_randomness(*devices))
        stack.enter_context(float32_products("ieee"))
        stack.enter_context(kept_activations())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(fastest_convolutions(device, dtype))
        # autocast("cuda") warns on machines without a GPU.
        for kind in ("cpu", "cuda") if devices else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled, and it takes seconds to load
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        seed_draws(seed, *devices)
        yield


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Disable cuDNN inside the context.

    Recurrent layers then consist of operations that can be differentiated twice and in eval mode; cuDNN's cannot.
    """
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


class _Kept:
    """Replacement of torch's autograd function that recomputes activations."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
        del preserve_rng_state
        return function(*inputs)


def _kept(*_: Any, **__: Any) -> Iterator[None]:
    """Replace torch's hooks that recompute activations around a call."""
    yield


@contextmanager
def kept_activations() -> Iterator[None]:
    """Let torch.utils.checkpoint keep activations inside the context instead of recomputing them in the backward pass.

    A recomputation would use the parameters that the model has at that time, which may differ from the scored ones, and
    would bypass the functions that replace torch's. Models may refer to torch's function by names of their own;
    therefore the functions that it calls are replaced, for both values of `use_reentrant`.
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
        # Also after an error, because the functions are global and the caller may use them.
        for name, old in before.items():
            setattr(checkpoint, name, old)
