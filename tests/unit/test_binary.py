"""One logit and two classes: training and evaluation by hand, and errors of losses other than cross entropy."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pai_bench
from pai_bench import recipes
from pai_bench.recipes import schema
from pai_bench.scoring import losses
from pai_bench.training.step import Step


def test_recipes_accept_the_known_losses() -> None:
    assert set(schema.LOSSES) == set(losses._LOSSES)


def test_a_step_with_one_logit_equals_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), torch.randn(6, 3, 2, 2), torch.arange(6) % 2
    settings = replace(recipes.load("quick", "digits", "conv8").train, loss="binary-cross-entropy", weight_decay=0.0)
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    loss = F.binary_cross_entropy_with_logits((x.flatten(1) @ weight.T + bias)[:, 0], y.float())
    loss.backward()  # type: ignore[no-untyped-call]
    step = Step(
        model, {"1.weight": torch.ones(1, 12, dtype=torch.bool)}, replace(settings, momentum=0.0, nesterov=False)
    )
    step(x, y, 0.5)
    assert weight.grad is not None
    torch.testing.assert_close(model[1].weight, weight - 0.5 * weight.grad)
    torch.testing.assert_close(step.total, 6 * loss.detach())


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_the_sign_of_one_logit_is_the_class(shape: tuple[int, ...]) -> None:
    logits = torch.tensor([-1.0, 2.0, -0.5, 0.1]).reshape(shape)
    assert losses.predictions("binary-cross-entropy", logits).tolist() == [0, 1, 0, 1]
    assert losses.predictions("cross-entropy", torch.eye(3)).tolist() == [0, 1, 2]


def test_the_loss_decides_how_many_outputs_a_model_is_built_with() -> None:
    assert losses.n_outputs("cross-entropy", 2, "stripes") == 2
    assert losses.n_outputs("binary-cross-entropy", 2, "stripes") == 1
    with pytest.raises(pai_bench.PaiBenchError, match="digits has 10"):
        losses.n_outputs("binary-cross-entropy", 10, "digits")


class _Reversed(nn.Module):
    """A model whose scoring fails although inputs and targets are right for the given loss."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.fc(x)
        if outputs.requires_grad:
            raise RuntimeError("no gradients on Mondays")
        return outputs


REGRESSION = [(torch.randn(4, 6), torch.rand(4))]


def mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(outputs[:, 0], targets)


def difference(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().mean()


def test_targets_are_checked_against_the_given_loss() -> None:
    """Float targets [B] do not fit cross entropy but fit this loss, so the message must name the model."""
    with pytest.raises(pai_bench.PaiBenchError, match="no gradients on Mondays"):
        pai_bench.prune(_Reversed(), REGRESSION, "snip", loss=mse)
    with pytest.raises(pai_bench.PaiBenchError, match="not class indices"):
        pai_bench.prune(_Reversed(), REGRESSION, "snip")


def test_a_loss_that_rejects_the_targets_is_named() -> None:
    words = "the loss cannot be computed for outputs [4, 3] and targets [4, 2] of float32"
    with pytest.raises(pai_bench.PaiBenchError, match=re.escape(words)):
        pai_bench.prune(nn.Linear(6, 3), [(torch.randn(4, 6), torch.rand(4, 2))], "snip", loss=difference)
