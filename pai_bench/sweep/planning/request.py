"""Expansion of a user's request into runs, and checks of these runs before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pai_bench import models, recipes, results
from pai_bench.cells import (
    CONTROL,
    CONTROLS,
    DENSE,
    GIVEN,
    QUOTA_OF,
    SMALL_DENSE,
    UNSTRUCTURED,
    Cell,
    MethodSpec,
    budget_sparsity,
    grid,
)
from pai_bench.core.filters import Filter
from pai_bench.core.method_index import smaller_dense
from pai_bench.datasets import loading as datasets
from pai_bench.errors import PaiBenchError, unknown
from pai_bench.experiment.runner import Run
from pai_bench.pruning import fixed_masks
from pai_bench.recipes import Settings
from pai_bench.results import mask_files
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable
from pai_bench.scoring.searching import searches
from pai_bench.sweep.planning import rehearsal

ALL = "all"
"""Value of `--methods` that selects every method except costly ones, which have to be named."""


@dataclass(frozen=True)
class Request:
    """The grid requested by the user. An empty field selects the default: all methods except costly ones, and the
    model, recipe, sparsities and seeds of each data set."""

    methods: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ("digits",)
    models: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    settings: Settings = ()
    sparsities: tuple[float, ...] = ()
    budgets: tuple[int, ...] = ()
    """Numbers of kept weights, instead of sparsities."""
    seeds: tuple[int, ...] = ()
    filter: Filter | None = None


def expand(request: Request) -> list[Run]:
    """Return all runs of a request, including the dense references.

    Raises: PaiBenchError for unknown names and invalid combinations.
    """
    for name in request.datasets:
        if name not in datasets.names():
            raise unknown("data set", name, datasets.names())
    for name in request.models:
        if name not in models.names():
            raise unknown("model", name, models.names())
    texts = registry.affordable_names() if request.methods == (ALL,) else request.methods or registry.default_names()
    smaller = list(filter(None, map(smaller_dense, texts)))
    listed = [_canonical(text) for text in texts if smaller_dense(text) is None]
    methods = _with_controls(listed, request.controls)
    chosen = None if request.filter is None else request.filter.canonical(_canonical_or_same)
    runs: list[Run] = []
    planned: list[Cell] = []
    for choice in choices(request).choices:
        sparsities, seeds = request.sparsities or _sparsities_of(request.budgets, choice), request.seeds
        if not (seeds and (sparsities or request.budgets)):
            defaults = recipes.defaults(choice.dataset)
            sparsities, seeds = sparsities or defaults.sparsities, seeds or defaults.seeds
        pair = choice.dataset, choice.model
        cells = grid(methods, [pair], sparsities, seeds)
        cells += [Cell(method, *pair, s, seed) for method, s in smaller if s > 0 for seed in seeds]
        # "all" selects what the model supports; a method that is named is refused instead.
        if request.methods == (ALL,) and not models.has_width(choice.model):
            cells = [cell for cell in cells if cell.spec.name != SMALL_DENSE]
        cells = list(dict.fromkeys(map(_at_its_own_sparsity, cells)))
        planned += cells
        runs += [Run(cell, choice.recipe) for cell in cells if chosen is None or chosen.matches(cell)]
    if not runs:
        hints = "" if chosen is None else chosen.hints(planned)
        raise PaiBenchError(
            "the filter leaves no cell of the plan", f"{hints}widen --filter; --dry-run shows the plan without it"
        )
    _check_names(runs)
    return runs


@cache
def _n_prunable(dataset: str, model: str, loss: str, only: tuple[str, ...], exclude: tuple[str, ...]) -> int:
    network = rehearsal.network(dataset, model, loss)
    return sum(weight.numel() for weight in prunable(network, only=only, exclude=exclude).values())


def _size(choice: recipes.Choice) -> int:
    """Return the number of prunable weights of a choice's model."""
    train, scoring = choice.recipe.train, choice.recipe.scoring
    return _n_prunable(choice.dataset, choice.model, train.loss, scoring.only, scoring.exclude)


def _sparsities_of(budgets: Sequence[int], choice: recipes.Choice) -> tuple[float, ...]:
    """Return the sparsities that keep `budgets` weights of the model; budgets that prune nothing are left out."""
    return tuple(budget_sparsity(budget, _size(choice)) for budget in budgets if budget < _size(choice))


def budget_notes(request: Request) -> list[str]:
    """Return a line for each model that has no more prunable weights than some of the budgets."""
    lines = {}
    for choice in choices(request).choices if request.budgets else ():
        size = _size(choice)
        if large := [budget for budget in request.budgets if budget >= size]:
            lines[choice.dataset, choice.model] = (
                f"{choice.model} on {choice.dataset} has {size} prunable weights: budgets"
                f" {', '.join(map(str, sorted(large)))} prune nothing and are not run there"
            )
    return list(lines.values())


def _check_names(runs: Sequence[Run]) -> None:
    """Check that file systems accept the names of a cell's files; otherwise a trained cell could not be saved."""
    for run in runs:
        method, files = results.excess(run.cell, run.recipe.name)
        if method:
            raise PaiBenchError(
                f"method {run.cell.method} is {method} bytes too long for the name of a folder",
                "give its hyper-parameters shorter values, or make these values the defaults",
            )
        if files:
            raise PaiBenchError(
                f"recipe {run.recipe.name} is {files} bytes too long for the names of files",
                "give the recipe's file a shorter name",
            )


def _at_its_own_sparsity(cell: Cell) -> Cell:
    """Return the cell; if its masks are read from a file, with the sparsity of these masks."""
    file = fixed_masks.mask_file(cell.spec.name)
    return cell if file is None else replace(cell, sparsity=file.sparsity)


def choices(request: Request) -> recipes.Choices:
    """Return the data sets, models and recipes of a request."""
    return recipes.choose(
        tuple(dict.fromkeys(request.datasets)),
        tuple(dict.fromkeys(request.models)),
        tuple(dict.fromkeys(request.recipes)),
        request.settings,
    )


def _canonical(text: str) -> str:
    """Return the spec with hyper-parameters converted to the types of the method's fields, without default values."""
    spec = MethodSpec.parse(text)
    values = registry.hyperparameters(registry.get(spec.name, dict(spec.hyperparameters)))
    defaults = registry.hyperparameters(registry.get(spec.name))
    given = tuple((key, values[key]) for key, _ in spec.hyperparameters if values[key] != defaults[key])
    counted = spec.control == QUOTA_OF and spec.name != DENSE  # random masks have layer counts, too
    if spec.control is not None and not counted and not _allows(spec.name, spec.control):
        raise PaiBenchError(
            f"{spec.name} has no control {spec.control}", "only methods that score weights have controls"
        )
    return str(MethodSpec(spec.name, given, spec.control))


def _allows(name: str, control: str) -> bool:
    """Return True if a control applies to a method; for example, masks from a file have no scores to invert."""
    scored = fixed_masks.mask_file(name) is None and not searches(registry.method_class(name))
    return registry.has_controls(name) and (scored or control not in ("invert", "sample", UNSTRUCTURED))


def _canonical_or_same(text: str) -> str:
    """Return the canonical spec; for an invalid spec return the text unchanged, which then matches nothing."""
    try:
        return _canonical(text)
    except PaiBenchError:
        return text


def _with_controls(methods: Sequence[str], controls: Sequence[str]) -> list[str]:
    """Return the methods, each followed by its variants with the applicable controls."""
    for control in controls:
        if control not in CONTROLS:
            raise unknown("control", control, CONTROLS)
    specs = [MethodSpec.parse(method) for method in methods]
    varied = [
        spec if control is None else replace(spec, control=control)
        for spec in specs
        for control in (None, *controls)
        if control is None or (spec.control is None and _allows(spec.name, control))
    ]
    return [str(spec) for spec in dict.fromkeys(varied)]


def absent_data(runs: Sequence[Run], data_root: Path | None) -> dict[str, PaiBenchError]:
    """Return the unavailable data sets, with the error of each."""
    found = {}
    for name in dict.fromkeys(run.cell.dataset for run in runs):
        try:
            datasets.require(name, data_root)
        except PaiBenchError as error:
            found[name] = error
    return found


def short_batches(runs: Sequence[Run]) -> list[str]:
    """Return a line for each data set and recipe whose epochs end with a batch of one image.

    Recipes with a validation split or a fraction of the training set are not examined.
    """
    lines = {}
    for run in runs:
        n, train, data = datasets.info(run.cell.dataset).train, run.recipe.train, run.recipe.data
        if n % train.batch_size == 1 and data.split == "test" and data.train_fraction == 1:
            what = {"merge": "merged into the batch before it", "drop": "dropped"}[train.last_batch]
            lines[run.cell.dataset, run.recipe.name] = (
                f"{run.cell.dataset} · recipe {run.recipe.name}: {n} images in batches of {train.batch_size} leave one;"
                f" where batch norm cannot be trained on it, it is {what} (train.last_batch)"
            )
    return list(lines.values())


def with_masks(request: Request) -> Request:
    """Read the masks of methods file:PATH, and return the request with these methods renamed by the files' content.

    Raises: PaiBenchError for an unusable file.
    """
    methods = []
    for text in request.methods:
        if text.startswith(f"{QUOTA_OF}:{GIVEN}"):
            text = f"{text.removeprefix(f'{QUOTA_OF}:')}:{CONTROL}={QUOTA_OF}"
        if text.startswith(GIVEN):
            path, colon, control = text.removeprefix(GIVEN).partition(f":{CONTROL}=")
            file = mask_files.read(Path(path).expanduser())
            fixed_masks.register_masks(file)
            text = f"{file.method}{colon}{control}"
        methods.append(text)
    return replace(request, methods=tuple(methods))


def keep_masks(runs: Sequence[Run], root: Path) -> tuple[Path, ...]:
    """Copy the mask files of the runs to the results folder, so that changes to the originals do not affect jobs.

    Returns the copies, which workers load as plug-ins.
    """
    copies = []
    for name in dict.fromkeys(run.cell.spec.name for run in runs):
        if (file := fixed_masks.mask_file(name)) is not None:
            copies.append(results.fixed_masks_path(root, name.removeprefix(GIVEN)))
            if not mask_files.holds(copies[-1], file.digest):
                mask_files.save(copies[-1], file.masks)
    return tuple(copies)
