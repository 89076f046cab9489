"""Checks of runs before anything is started: data, models and methods; broken ones of plug-ins are left out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pai_bench import models
from pai_bench.cells import DENSE, MethodSpec, kept_count
from pai_bench.datasets import loading as datasets
from pai_bench.errors import PaiBenchError, unknown
from pai_bench.experiment.narrowing import narrows
from pai_bench.experiment.runner import Run
from pai_bench.experiment.searching import search_recipe
from pai_bench.pruning import controls, fixed_masks
from pai_bench.recipes import Data
from pai_bench.scoring import registry
from pai_bench.scoring.losses import n_outputs
from pai_bench.scoring.mask_updates import Length
from pai_bench.scoring.problem import prunable
from pai_bench.scoring.searching import searches
from pai_bench.sweep.execution import dataset_copy as copies
from pai_bench.sweep.planning import rehearsal
from pai_bench.sweep.planning.split_sizes import training_images
from pai_bench.sweep.planning.workload import trained_images
from pai_bench.training.mask_updates import Changing, update_steps


@dataclass(frozen=True)
class Checked:
    """The runs that can work, and why others of plug-ins cannot."""

    runs: tuple[Run, ...]
    refused: tuple[PaiBenchError, ...] = ()
    """One for each data set, model on a data set and method that is left out."""


def check(
    runs: Sequence[Run],
    data_root: Path | None,
    root: Path | None = None,
    *,
    forget: bool = False,
    absent: Collection[str] = (),
) -> Checked:
    """Check that data are there, that models can be built and pruned, and that plug-ins' methods return usable scores.

    With a results folder `root`, also that its results are of the same copies of the data (see `copies.check`).
    The data sets `absent` are left out of that. Data sets, models and methods of plug-ins that cannot be used are left
    out of the runs: they do not stop the others.

    Raises: PaiBenchError for anything built in that cannot be used, and when nothing but dense references is left of
        what was asked for; no job has been started then.
    """
    refused: list[PaiBenchError] = []
    bad: set[str] = set()
    single: set[tuple[str, Data]] = set()
    for name in dict.fromkeys(run.cell.dataset for run in runs):
        try:
            if name not in absent:
                origin = datasets.require(name, data_root)
                if root is not None:
                    copies.check(root, {name: origin}, forget=forget)
            for data in dict.fromkeys(run.recipe.data for run in runs if run.cell.dataset == name):
                if training_images(name, data, data_root, present=name not in absent) == 1:
                    single.add((name, data))
        except PaiBenchError as error:
            if datasets.is_builtin(name):
                raise
            refused.append(error)
            bad.add(name)
    left = [run for run in runs if run.cell.dataset not in bad]
    _check_recipes(left)
    _check_granularities(left)
    _check_mask_updates(left)
    unusable, errors = _unusable_models(left, single)
    refused += errors
    left = [run for run in left if (run.cell.dataset, run.cell.model) not in unusable]
    rigid, errors = _without_width(left)
    refused += errors
    left = [run for run in left if run not in rigid]
    broken = set()
    # The last entry of a key remains, so the order is reversed to rehearse the first run of each method.
    for spec, run in {run.cell.spec.uncontrolled: run for run in reversed(left)}.items():
        if not registry.is_builtin(spec.name):
            try:
                rehearsal.score(run)
            except PaiBenchError as error:
                refused.append(error)
                broken.add(spec)
    left = [run for run in left if run.cell.spec.uncontrolled not in broken]
    asked = {run.cell.method == DENSE for run in runs}
    if refused and (not left or (False in asked and all(run.cell.method == DENSE for run in left))):
        raise refused[0]
    return Checked(tuple(left), tuple(refused))


def _check_recipes(runs: Sequence[Run]) -> None:
    """Compare the recipes with the channels of the data sets and the known initialisation schemes."""
    for run in {(run.cell.dataset, run.recipe.name): run for run in runs}.values():
        info, given = datasets.info(run.cell.dataset), len(run.recipe.data.mean)
        channels = info.channels
        n_outputs(run.recipe.train.loss, info.classes, run.cell.dataset)
        if run.recipe.data.kind != info.kind:
            raise PaiBenchError(
                f"recipe {run.recipe.name} is for {run.recipe.data.kind}, and {run.cell.dataset} has {info.kind}",
                f'set data.kind = "{info.kind}" in the recipe, or choose a recipe for {info.kind}',
            )
        if given != channels:
            part = "feature" if info.kind == "vectors" else "channel"
            raise PaiBenchError(
                f"recipe {run.recipe.name} has {given} values of data.mean, for the {channels} {part}s of"
                f" {run.cell.dataset}",
                f"give one value per {part} for data.mean and data.std",
            )
    for scheme in {run.recipe.init.scheme for run in runs}:
        if scheme not in models.schemes():
            raise unknown("initialisation scheme", scheme, models.schemes())


def _check_mask_updates(runs: Sequence[Run]) -> None:
    """Refuse methods that change masks during training where no update falls into it, or that count effective weights.

    Raises: PaiBenchError for the first run that would fail.
    """
    for run in {(run.cell.dataset, run.cell.method, run.recipe): run for run in runs}.values():
        changing, scorer = run.changing(10**9), run.scorer()
        if searches(scorer):
            changing = Changing(scorer, run.cell.method, 1, 10**9)
        if changing is None:
            continue
        if run.recipe.scoring.effective:
            raise PaiBenchError(
                f"{run.cell.method} changes its masks during training, so that their effective weights cannot be set",
                "leave --effective out, or the method",
            )
        if searches(scorer) and run.recipe.scoring.data != "train":
            raise PaiBenchError(
                f"{run.cell.method} searches with the training batches, which --scoring-data does not change",
                "leave --scoring-data out, or the method",
            )
        if changing.rewinding(run.recipe.train.epochs) is not None:
            continue
        images = trained_images(run.recipe.values(), datasets.info(run.cell.dataset).train)
        train = search_recipe(run.recipe, scorer).train if searches(scorer) else run.recipe.train
        # The small difference keeps a rounding error in `images` from adding a batch.
        epoch = math.ceil(images / train.batch_size - 1e-9)
        update_steps(changing, Length(train.steps or epoch * train.epochs, epoch))


def _check_granularities(runs: Sequence[Run]) -> None:
    """Refuse a granularity for masks that do not come from scores, and its control for single weights.

    Raises: PaiBenchError for the first run that would fail.
    """
    for run in {(run.cell.method, run.recipe): run for run in runs if run.cell.method != DENSE}.values():
        spec, granularity = run.cell.spec, run.recipe.scoring.granularity
        controls.check(spec, granularity)
        given = fixed_masks.mask_file(spec.name) is not None
        trained = run.changing(10**9) is not None or searches(run.scorer())
        if granularity != "weight" and (given or trained):
            cause = (
                "searches its masks in a training" if searches(run.scorer()) else "changes its masks during training"
            )
            cause = "has masks from a file" if given else cause
            raise PaiBenchError(
                f"{run.cell.method} {cause}, so that --granularity {granularity} has no effect on it",
                "leave --granularity out, or the method",
            )


def _unusable_models(
    runs: Sequence[Run], single: Collection[tuple[str, Data]]
) -> tuple[set[tuple[str, str]], list[PaiBenchError]]:
    """Return the unusable models of plug-ins by (data set, model), and the errors; check mask files on the others.

    `single` are the splits (data set, recipe's data) that leave one training image.
    """
    refused, errors = set(), []
    for dataset, model in dict.fromkeys((run.cell.dataset, run.cell.model) for run in runs):
        own = [run for run in runs if (run.cell.dataset, run.cell.model) == (dataset, model)]
        try:
            losses = dict.fromkeys(run.recipe.train.loss for run in own)
            built = {loss: rehearsal.network(dataset, model, loss) for loss in losses}
            shapes = {key: _shapes(built[key[0]], *key[1]) for key in dict.fromkeys(map(_loss_and_patterns, own))}
            _check_single_images(own, next(iter(built.values())), single)
        except PaiBenchError as error:
            if models.is_builtin(model):
                raise
            refused.add((dataset, model))
            errors.append(error)
            continue
        for method, key in dict.fromkeys((run.cell.method, _loss_and_patterns(run)) for run in own):
            if (file := fixed_masks.mask_file(MethodSpec.parse(method).name)) is not None:
                file.check(shapes[key], model)
        for run in own:
            size = sum(math.prod(shape) for shape in shapes[_loss_and_patterns(run)].values())
            if not kept_count(run.cell.sparsity, size):
                raise PaiBenchError(
                    f"a sparsity of {run.cell.sparsity} keeps none of the {size} prunable weights of {model}",
                    "lower the sparsity",
                )
    return refused, errors


def _without_width(runs: Sequence[Run]) -> tuple[set[Run], list[PaiBenchError]]:
    """Return the runs that need a narrower network of a model without widths, and one error for each model."""
    rigid: dict[str, PaiBenchError] = {}
    narrower = [run for run in runs if narrows(run)]
    for model in dict.fromkeys(run.cell.model for run in narrower):
        try:
            models.require_width(model)
        except PaiBenchError as error:
            rigid[model] = error
    return {run for run in narrower if run.cell.model in rigid}, list(rigid.values())


def _check_single_images(runs: Sequence[Run], network: nn.Module, splits: Collection[tuple[str, Data]]) -> None:
    """Refuse batches of one image where batch norm cannot compute statistics of them, in training and in scoring.

    Raises: PaiBenchError for the first run that would fail.
    """
    single = [
        run
        for run in runs
        if 1 in (run.recipe.train.batch_size, run.recipe.scoring.batch_size)
        or (run.cell.dataset, run.recipe.data) in splits
    ]
    if not single or not rehearsal.fails_on_one_image(network, single[0].cell.dataset):
        return
    for run in single:
        if run.recipe.train.batch_size == 1:
            raise PaiBenchError(
                f"batch norm in {run.cell.model} cannot be trained on batches of one image (train.batch_size = 1)",
                "raise train.batch_size, or choose a network without batch norm over single values",
            )
        if (run.cell.dataset, run.recipe.data) in splits:
            raise PaiBenchError(
                f"batch norm in {run.cell.model} cannot be trained on the one image of {run.cell.dataset} that the"
                " split leaves",
                f"raise data.train_fraction ({run.recipe.data.train_fraction})",
            )
    for run in {run.cell.spec.uncontrolled: run for run in single}.values():
        try:
            rehearsal.score(run, samples=1)
        except PaiBenchError as error:
            raise PaiBenchError(
                f"{run.cell.method} cannot score {run.cell.model} with scoring.batch_size = 1: {error.cause}",
                "raise scoring.batch_size to 2 or more",
            ) from error


def _loss_and_patterns(run: Run) -> tuple[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the loss and the patterns `only` and `exclude` of a run's recipe."""
    return run.recipe.train.loss, (run.recipe.scoring.only, run.recipe.scoring.exclude)


def _shapes(network: nn.Module, only: tuple[str, ...], exclude: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    weights = prunable(network, only=only, exclude=exclude)
    return {name: tuple(weight.shape) for name, weight in weights.items()}
