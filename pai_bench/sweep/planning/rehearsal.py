"""Trial run of plug-ins before a sweep begins: build and call a model once, score once with a method."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pai_bench import models
from pai_bench.core.outputs import logits
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring.losses import n_outputs
from pai_bench.scoring.problem import prunable


def network(dataset: str, model: str, loss: str = "cross-entropy") -> nn.Module:
    """Build the network `model` for `dataset` and a loss; call a plug-in's model on two random images as a check.

    Raises: PaiBenchError when the model cannot be built, and when a plug-in's model has nothing to prune or cannot be
        trained on these images.
    """
    info = loading.info(dataset)
    outputs = n_outputs(loss, info.classes, dataset)
    try:
        built = models.build(model, info.channels, info.size, outputs)
    except PaiBenchError:
        raise
    except Exception as error:
        remedy = (
            "choose another model"
            if models.is_builtin(model)
            else f"correct its builder, which is called with ({info.channels}, {info.size}, {outputs}) =="
            " (channels, size, classes); -v shows the traceback"
        )
        raise PaiBenchError(f"model {model} cannot be built for {dataset}: {_line(error)}", remedy) from error
    if not models.is_builtin(model):
        prunable(built)
        _call(built, dataset, model, outputs)
    return built


def fails_on_one_image(built: nn.Module, dataset: str) -> bool:
    """Return True if batch norm in train mode refuses a batch of one image, because it needs two values a channel."""
    info = loading.info(dataset)
    try:
        with torch.no_grad():
            # A pass in train mode changes the running statistics of batch norm.
            copy.deepcopy(built).train()(torch.zeros(1, *info.shape))
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    return False


def score(run: Run, samples: int | None = None) -> None:
    """Score a network of the run with its method, on `samples` random samples a batch; by default on two a class.

    Raises: PaiBenchError when the method raises or returns scores that cannot be used.
    """
    info = loading.info(run.cell.dataset)
    loss = run.recipe.train.loss
    network = models.build(run.cell.model, info.channels, info.size, n_outputs(loss, info.classes, run.cell.dataset))
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(2 * info.classes if samples is None else samples) % info.classes
    try:
        scorer = run.scorer()
        needed = getattr(scorer, "batches_needed", None)
        batches = [
            (torch.rand(len(targets), *info.shape, generator=generator), targets)
            for _ in range(needed() if needed else 1)
        ]
        only, exclude = run.recipe.scoring.only, run.recipe.scoring.exclude
        pruner = Pruner(network, batches, scorer, name=run.cell.method, only=only, exclude=exclude, loss=loss)
        pruner.score(run.cell.sparsity)
    except PaiBenchError:
        raise
    # A plug-in that calls sys.exit must not end the command without a message.
    except (Exception, SystemExit) as error:
        raise PaiBenchError(
            f"method {run.cell.method} raised {_line(error)}",
            f"correct it; it was tried on {run.cell.model} with random inputs before any job was started"
            " (-v shows where)",
        ) from error


def _call(built: nn.Module, dataset: str, model: str, outputs: int) -> None:
    """Check that the network returns logits [B, outputs] in train mode, or [B] for one output."""
    info = loading.info(dataset)
    images = torch.rand(2, *info.shape, generator=torch.Generator().manual_seed(0))
    try:
        found = logits(built.train()(images))
    except PaiBenchError as error:
        raise PaiBenchError(f"model {model} cannot be trained on {dataset}: {error.cause}", error.remedy) from error
    except (Exception, SystemExit) as error:
        raise PaiBenchError(
            f"model {model} cannot be trained on {dataset}: {_line(error)}",
            f"its forward must take float32 {info.kind} [B, {', '.join(map(str, info.shape))}] in train mode;"
            " -v shows the traceback",
        ) from error
    if found.shape != (2, outputs) and not (outputs == 1 and found.shape == (2,)):
        raise PaiBenchError(
            f"model {model} returns logits {list(found.shape)} for 2 {info.kind} of {dataset}",
            f"return [2, {outputs}]: one logit for each of the classes that its builder is given",
        )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no message'}"
