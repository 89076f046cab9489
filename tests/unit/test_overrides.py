"""Tests of recipe values set by the user: checks, names, and combination into grids."""

from __future__ import annotations

import re

import pytest

from pai_bench import recipes
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Recipe, choose, parse_settings, variants


def frankle(*settings: str) -> list[Recipe]:
    return list(variants(recipes.load("frankle", "cifar10", "resnet20"), parse_settings(settings)))


def test_overrides_appear_in_values_sources_and_name() -> None:
    (own,) = frankle()
    (changed,) = frankle("train.lr=.05", "train.epochs=20", "train.milestones=10, 15", "train.warmup_epochs=1.0")
    assert changed.name == "frankle+train.epochs=20+train.lr=0.05+train.milestones=10,15+train.warmup_epochs=1"
    assert (changed.train.epochs, changed.train.lr, changed.train.milestones) == (20, 0.05, (10, 15))
    sources = dict(changed.sources)
    assert sources["train.epochs"] == "--set" and sources["train.momentum"] == dict(own.sources)["train.momentum"]
    assert Recipe.from_dict(changed.as_dict()) == changed
    assert (changed.data, changed.scoring, changed.init) == (own.data, own.scoring, own.init)


def test_equal_values_have_one_name_however_they_are_typed() -> None:
    assert frankle("train.lr=0.1", "train.nesterov=FALSE", "train.milestones=80,120") == frankle()
    assert frankle("train.lr=5e-2", "train.epochs=20") == frankle("train.epochs=20", "train.lr=0.0500")
    (many,) = frankle(*(f"data.{key}=0.12345678901234,0.2345678901234,0.345678901234" for key in ("mean", "std")))
    (others,) = frankle(*(f"data.{key}=0.12345678901234,0.2345678901234,0.345678901235" for key in ("mean", "std")))
    assert many.name != others.name and many.name.startswith("frankle+2-values-")
    names = [recipe.name for recipe in (*frankle("init.scheme=a/b c", "train.milestones="), many)]
    assert all(re.fullmatch(r"[\w.+=,-]{1,120}", name) for name in names), names


def test_a_list_for_one_value_is_a_grid() -> None:
    found = frankle("train.lr=0.1,0.05", "train.epochs=20,40")
    assert [(recipe.train.epochs, recipe.train.lr) for recipe in found] == [
        (20, 0.1),
        (20, 0.05),
        (40, 0.1),
        (40, 0.05),
    ]
    assert len({recipe.name for recipe in found}) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.epoch=20"], ["unknown key 'train.epoch'", "did you mean train.epochs", "train.weight_decay"]),
        (["train.epochs"], ["'train.epochs' cannot be read", "train.epochs=20"]),
        (["train.lr=0.1", "train.lr=0.2"], ["train.lr twice", "train.lr=0.1,0.2"]),
        (["train.lr=fast"], ["train.lr = 'fast' is not a number"]),
        (["train.epochs=1.5"], ["train.epochs = 1.5 is not a whole number"]),
        (["train.epochs="], ["train.epochs has no value", "a whole number"]),
        (["train.nesterov=1"], ["train.nesterov = '1' is not true or false"]),
        (["train.milestones=8,9.5"], ["is not a list of whole numbers"]),
        (["data.mean=nan", "data.std=1"], ["data.mean = (nan,) is not allowed", "one number a channel"]),
        (["train.milestones=-3"], ["train.milestones = (-3,) is not allowed", "0 or more, ascending"]),
        (["train.lr=-1"], ["--set: train.lr = -1.0 is not allowed", "above 0"]),
        (["scoring.dtype=float16"], ["scoring.dtype = 'float16' is not allowed", "float64 or float32"]),
    ],
)
def test_mistakes_in_overrides_are_named(settings: list[str], words: list[str]) -> None:
    with pytest.raises(PaiBenchError) as caught:
        frankle(*settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_recipes_run_where_they_are_meant_for() -> None:
    found = choose(["digits", "cifar10"], [], ["quick", "frankle"])
    assert [(c.dataset, c.model, c.recipe.name) for c in found.choices] == [
        ("digits", "conv8", "quick"),
        ("cifar10", "resnet20", "frankle"),
    ]
    assert "recipe frankle is not meant for data set digits: not run there" in found.notes
    models = choose(["digits"], ["conv28", "conv8"], ["quick"], parse_settings(["train.epochs=3,4"])).choices
    assert [c.model for c in models] == ["conv28", "conv28", "conv8", "conv8"]


def test_a_recipe_for_nothing_and_a_data_set_without_one_are_errors() -> None:
    with pytest.raises(PaiBenchError, match="frankle is not meant for data set digits"):
        choose(["digits"], [], ["quick", "frankle"])
    with pytest.raises(PaiBenchError, match="frankle is not meant for data set digits"):
        choose(["cifar10", "digits"], [], ["frankle"])
    with pytest.raises(PaiBenchError, match="none of the recipes frankle, synflow is meant for data set digits"):
        choose(["cifar10", "digits"], [], ["frankle", "synflow"])


def test_milestones_after_the_last_epoch_are_reported() -> None:
    (note,) = choose(["cifar10"], [], ["frankle"], parse_settings(["train.epochs=100"])).notes
    assert "milestones 120 are after the end of its 100 epochs" in note


def test_milestone_steps_after_the_last_step_are_reported() -> None:
    assert not choose(["mnist"], ["lenet-300-100"], ["snip"], parse_settings(["train.steps=230000"])).notes
    notes = choose(["mnist"], ["lenet-300-100"], ["snip"], parse_settings(["train.steps=60000"])).notes
    assert "milestones 75000, 100000" in notes[0] and "60000 steps" in notes[0] and "milestone_steps" in notes[0]


def test_a_training_has_one_length() -> None:
    with pytest.raises(PaiBenchError, match=r"train\.epochs = 5 is not allowed") as error:
        choose(["mnist"], ["lenet-300-100"], ["snip"], parse_settings(["train.epochs=5"]))
    assert "train.steps = 250000 gives the length" in error.value.remedy
    with pytest.raises(PaiBenchError, match=r"train\.epochs = 0 is not allowed"):
        choose(["mnist"], ["lenet-300-100"], ["snip"], parse_settings(["train.steps=0"]))
    (choice,) = choose(
        ["mnist"], ["lenet-300-100"], ["snip"], parse_settings(["train.steps=0", "train.epochs=5"])
    ).choices
    assert choice.recipe.train.epochs == 5
