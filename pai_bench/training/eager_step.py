"""Training step whose kernels the host launches one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pai_bench.core.precision import float32_products, forward, in_channels_last, products
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.recipes import Train
from pai_bench.scoring.losses import by_name
from pai_bench.training.compilation import CompiledNetwork

Change = Callable[[Callable[[], None]], None]
"""A change of the masks in a step, after the backward pass. Its argument is the update of the weights, which it calls
or not."""


def no_seed() -> None:
    """Leave the random generators alone."""


class SGD(torch.optim.SGD):
    """PyTorch's SGD without the decorators that import torch._dynamo, which takes two seconds of each process."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)


class Step:
    """Forward pass, backward pass, masking and SGD update of one batch; accumulates the loss without synchronising."""

    mechanism = "eager"

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], settings: Train, changing: bool = False) -> None:
        """Take the model and set its pruned weights to zero; `changing`: the masks will change."""
        self.device = next(model.parameters()).device
        self.total = torch.zeros((), device=self.device)
        """Sum of the losses over images; the caller reads it and resets it to zero."""
        self.masked = MaskedGradients(model, masks, changing)
        self.optimizer = SGD(
            model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            # The fused update takes few kernels, and its rate may be a tensor, which captured steps need.
            fused=True,
        )
        if settings.momentum:
            # PyTorch's fused SGD fails when a parameter gets its first gradient later than others. A zero momentum
            # buffer avoids this and gives the same first update, because momentum x 0 + g = g.
            for weight in model.parameters():
                self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self._model = model
        self._network = CompiledNetwork(model) if settings.compile else model
        self._bfloat16 = settings.precision == "bfloat16"
        self._channels_last = in_channels_last(settings.precision, settings.channels_last, self.device)
        self._products = products(settings.precision)
        self._loss = by_name(settings.loss)

    def __call__(
        self, x: Tensor, y: Tensor, lr: float, seed: Callable[[], None] = no_seed, change: Change | None = None
    ) -> None:
        """Run the step for a batch with the learning rate `lr`; `seed` seeds the random draws of the forward pass."""
        # A captured step reads its rate from the device, in float32; on a GPU an eager one uses the same number.
        rate = float(np.float32(lr)) if self.device.type == "cuda" else lr
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed()
        with float32_products(self._products):
            self._launch(x, y, change)

    def replay_seconds(self, key: Hashable) -> float | None:
        """Return the duration of a captured launch if it is known: never for a step that is not captured."""
        return None

    def _launch(self, x: Tensor, y: Tensor, change: Change | None = None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(x, y)
        if change is None:
            self._descend()
        else:
            change(self._descend)
        # Summed on the device; reading each loss would synchronise host and device in every step.
        self.total += loss.detach() * len(y)

    def _descend(self) -> None:
        """Update the weights by the gradients that the backward pass has left."""
        self.masked()
        self.optimizer.step()

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the gradients of all parameters; return the loss."""
        loss = self._forward(x, y)
        loss.backward()
        return loss

    def _forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._loss(forward(self._network, x, self._bfloat16, self._channels_last), y)
