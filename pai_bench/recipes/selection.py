"""Selection of recipes for data sets and models from the user's options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pai_bench.errors import PaiBenchError
from pai_bench.recipes.loading import NotMeant, defaults, load
from pai_bench.recipes.overrides import Settings, variants
from pai_bench.recipes.schema import Recipe


@dataclass(frozen=True)
class Choice:
    """A data set, a model, and the recipe resolved for them."""

    dataset: str
    model: str
    recipe: Recipe


@dataclass(frozen=True)
class Choices:
    """All choices of a sweep, with notes for the user."""

    choices: tuple[Choice, ...]
    notes: tuple[str, ...]


def choose(
    datasets: Sequence[str], models: Sequence[str] = (), recipes: Sequence[str] = (), settings: Settings = ()
) -> Choices:
    """Combine data sets, models and the recipes that support them; empty options stand for each data set's defaults.

    Raises: PaiBenchError for a recipe that supports none of the data sets, a data set without a recipe, two different
        recipes with one name, and an invalid recipe.
    """
    choices: list[Choice] = []
    refused: dict[str, list[NotMeant]] = {}
    for dataset in datasets:
        own = defaults(dataset) if not (models and recipes) else None
        models_here = models or ((own.model,) if own else ())
        names = recipes or ((own.recipe,) if own else ())
        meant = []
        for name in names:
            try:
                for model in models_here:
                    meant += [Choice(dataset, model, r) for r in variants(load(name, dataset, model), settings)]
            except NotMeant as error:
                refused.setdefault(name, []).append(error)
        if not meant and len(names) > 1:
            raise PaiBenchError(
                f"none of the recipes {', '.join(names)} is meant for data set {dataset}",
                f"add one that is, or leave {dataset} out",
            )
        choices += sorted(meant, key=lambda choice: models_here.index(choice.model))
    for errors in refused.values():
        if len(errors) == len(datasets) or len(recipes) == 1:
            raise errors[0]
    _check_names(choices)
    notes = [f"{error.cause}: not run there" for errors in refused.values() for error in errors]
    return Choices(tuple(choices), (*notes, *_notes(choices)))


def _check_names(choices: Sequence[Choice]) -> None:
    """Refuse different recipes with the same name, because their results could not be distinguished."""
    seen: dict[tuple[str, str, str], Recipe] = {}
    for choice in choices:
        key = choice.dataset, choice.model, choice.recipe.name
        if seen.setdefault(key, choice.recipe) != choice.recipe:
            raise PaiBenchError(f"two recipes are called {choice.recipe.name}", "rename one of the files")


def _notes(choices: Sequence[Choice]) -> Iterator[str]:
    for recipe in dict.fromkeys(choice.recipe for choice in choices):
        train = recipe.train
        key, milestones, length, unit = (
            ("milestone_steps", train.milestone_steps, train.steps, "steps")
            if train.steps
            else ("milestones", train.milestones, train.epochs, "epochs")
        )
        late = [milestone for milestone in milestones if milestone >= length]
        if late and train.schedule == "step":
            yield (
                f"recipe {recipe.name} on {recipe.dataset}: milestones {', '.join(map(str, late))} are after the end of"
                f" its {length} {unit} and have no effect; change them with --set train.{key}=…"
            )
