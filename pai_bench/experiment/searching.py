"""Search of masks before training: a training of scores, with its checkpoints and its cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.cells import kept_count
from pai_bench.core.outputs import logits
from pai_bench.core.randomness import derive_seed
from pai_bench.datasets.loading import InMemoryDataset, StreamingDataset
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.cost import Cost
from pai_bench.experiment.passes import with_training
from pai_bench.experiment.run import Run
from pai_bench.experiment.score_cache import Scored
from pai_bench.pruning import controls
from pai_bench.pruning.pruner import Pruner
from pai_bench.recipes import Recipe
from pai_bench.scoring.searching import Searches, searches
from pai_bench.training import loop as training
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints
from pai_bench.training.cooperative import Share, Task
from pai_bench.training.mask_updates import Changing

STAGE = "search"
"""Entry of the checkpoints of a search; those of the training that follows have none."""


class SearchNetwork(nn.Module):
    """A network whose weights are fixed, and whose parameters are one score per prunable weight.

    The scores have the names of the weights, with "/" in place of ".". They have the weights' type.
    """

    def __init__(self, model: nn.Module, scores: Mapping[str, Tensor], method: Searches, kept: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(model)
        for module in self.network.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    del module._parameters[name]
                    # As buffers, fixed weights get no gradients, no weight decay and no momentum.
                    module.register_buffer(name, parameter.detach())
        self._names = list(scores)
        fixed = dict(self.network.named_buffers())
        for name, score in scores.items():
            self.register_parameter(key(name), nn.Parameter(score.detach().to(fixed[name]).clone()))
        self._method = method
        self._kept = kept

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the subnetwork that the scores choose."""
        scores = {name: self.get_parameter(key(name)) for name in self._names}
        if hasattr(self._method, "project"):
            with torch.no_grad():
                for score in scores.values():
                    self._method.project(score)
        chosen = self._method.subnetwork(scores, self._kept)
        fixed = dict(self.network.named_buffers())
        weights = {name: fixed[name] * factors for name, factors in chosen.items()}
        return logits(torch.func.functional_call(self.network, weights, (x,)))


def key(name: str) -> str:
    """Return the name of the scores of a weight in a `SearchNetwork`."""
    return name.replace(".", "/")


def search_recipe(recipe: Recipe, method: Searches) -> Recipe:
    """Return the recipe of a method's search: the data and batches of the training, and settings of its own."""
    settings = method.search()
    length: dict[str, Any] = {"epochs": settings.epochs, "steps": 0} if settings.epochs else {}
    epochs = settings.epochs or recipe.train.epochs
    train = replace(
        recipe.train,
        **length,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=False,
        weight_decay=settings.weight_decay,
        schedule="cosine",
        warmup_epochs=0.0,
        evaluate_every=max(1, epochs),
        compile=False,  # the choice of the subnetwork is not part of the network
    )
    return replace(recipe, train=train)


def starting_scores(run: Run, model: nn.Module) -> dict[str, Tensor]:
    """Return the scores with which the search of a run begins, by name of the weight."""
    scoring = run.recipe.scoring
    seed = derive_seed(run.cell.seed, "method")
    choice: dict[str, Any] = {"only": scoring.only, "exclude": scoring.exclude, "loss": run.recipe.train.loss}
    return Pruner(model, [], run.scorer(), name=run.cell.method, seed=seed, **choice).score(run.cell.sparsity)


def searching(
    run: Run,
    model: nn.Module,
    dataset: InMemoryDataset | StreamingDataset,
    callback: Callback,
    checkpoints: Checkpoints | None,
    identity: Mapping[str, Any],
    share: Share,
) -> Task[Scored]:
    """Search the masks of a run as a resumable task; `identity` is what its checkpoints must have in common with it.

    The masks are those after the cell's control. Raises: Interrupted when the checkpoints' request_stop was called;
    PaiBenchError when the search diverges.
    """
    scorer = run.scorer()
    assert searches(scorer)
    callback.phase("searching")
    scores = starting_scores(run, model)
    size = sum(score.numel() for score in scores.values())
    kept = kept_count(run.cell.sparsity, size)
    network = SearchNetwork(model, scores, scorer, kept)
    names = {key(name): name for name in scores}
    masks = {name: torch.ones_like(network.get_parameter(name), dtype=torch.bool) for name in names}
    stage = {**identity, "stage": STAGE}
    saved = checkpoints.load(**stage) if checkpoints is not None else None
    if saved is not None:
        masks = {name: mask.to(masks[name].device) for name, mask in saved["masks"].items()}
    recipe, seed = search_recipe(run.recipe, scorer), derive_seed(run.cell.seed, STAGE)
    changing = Changing(scorer, run.cell.method, kept, size)
    record = {**stage, "masks": masks}
    more = callback, checkpoints, saved, record, share, changing
    trained = yield from training.training(network, masks, dataset, recipe, seed, *more)
    passes = with_training(None, trained.steps, recipe.train.batch_size, len(dataset.train_y))
    cost = Cost(trained.seconds, None, passes)
    if trained.diverged:
        raise PaiBenchError(f"the search of {run.cell.method} has diverged", "lower its hyper-parameter lr")
    found = {names[name]: mask for name, mask in masks.items()}
    return Scored(controls.applied(run.cell.spec, found, run.cell.seed), cost)
