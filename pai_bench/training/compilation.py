"""Compilation of the forward and backward passes of training steps by torch.compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError

BACKEND: Mapping[str, Any] = {"backend": "inductor", "options": {"deterministic": True}}
"""Backend of torch.compile. Without choices by timing, which would differ between two compilations of a network."""

COMPILING_STEPS = 8
"""Number of steps of a training that may compile: the first one of each batch size, and a few more."""

_LIMITS = {"recompile_limit": 2**20, "accumulated_recompile_limit": 2**20}
"""Limits after which torch.compile would continue without compilation, and the results depend on earlier cells."""


class CompiledNetwork:
    """The compiled forward pass of a network; the backward pass is compiled with it.

    The network itself, the names of its parameters, its evaluation and its measurements are not affected. The compiled
    code is the same as after `model.compile()` in place, which is not used because it would also compile the evaluation
    and skip the hooks that measurements register on layers after the first step.

    Networks of the same structure in one process share the compiled code, so that only the first cell waits for it.
    Each shape of inputs is compiled separately: code for varying shapes would be used only if several shapes had
    occurred before, and the results of a cell would depend on the cells before it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._run = torch.compile(model, dynamic=False, **BACKEND)
        self._name = type(model).__name__
        self._compiling_steps = 0

    def __call__(self, x: Tensor) -> Any:
        """Return the outputs for inputs [B, …].

        Raises: PaiBenchError when the network cannot be compiled, or is compiled in more than `COMPILING_STEPS` calls.
        """
        import torch._dynamo as dynamo  # takes a second, and is needed by compiled steps only

        graphs = dynamo.utils.counters["stats"]
        before = graphs["unique_graphs"]
        try:
            with dynamo.config.patch(_LIMITS):
                outputs = self._run(x)
        except dynamo.exc.TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            if isinstance(cause, (torch.OutOfMemoryError, torch.AcceleratorError)):
                raise cause from error
            line = next(filter(None, map(str.strip, str(cause).splitlines())), "no message")
            raise PaiBenchError(
                f"torch.compile failed for the network {self._name}: {type(cause).__name__}: {line}",
                "install a C++ compiler (and Triton for a GPU), or set train.compile=false",
            ) from error
        if graphs["unique_graphs"] > before:
            self._compiling_steps += 1
            if self._compiling_steps > COMPILING_STEPS:
                raise PaiBenchError(
                    f"the network {self._name} was compiled again in {self._compiling_steps} training steps",
                    "keep Python values that change with every step out of its forward, or set train.compile=false",
                )
        return outputs
