"""Tests of recipes: every value has a source, errors name file and key, and fingerprints have not changed."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from pai_bench import models, recipes
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.recipes import Recipe

QUICK = resources.files("pai_bench.recipes").joinpath("quick.toml").read_text(encoding="utf-8")


def pairs() -> list[tuple[str, str]]:
    found = []
    for name in recipes.names():
        content = tomllib.loads(
            resources.files("pai_bench.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        )
        found += [(name, dataset) for dataset in content["datasets"]]
    return found


@pytest.mark.parametrize(("name", "dataset"), pairs())
def test_every_recipe_is_complete_and_every_value_has_a_source(name: str, dataset: str) -> None:
    recipe = recipes.load(name, dataset, "resnet20")
    values = {f"{table}.{key}" for table, keys in recipe.values().items() for key in keys}
    assert {key for key, source in recipe.sources if source.strip()} == values
    assert recipe.summary
    assert recipe.init.scheme in models.schemes()
    assert len(recipe.data.mean) == loading.info(dataset).channels
    assert (recipe.data.crop == "random-resized") <= (recipe.data.padding == 0)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [name for name in loading.names() if loading.is_builtin(name)])
def test_every_data_set_has_defaults_that_work(dataset: str) -> None:
    defaults = recipes.defaults(dataset)
    recipes.load(defaults.recipe, dataset, defaults.model)
    info = loading.info(dataset)
    models.build(defaults.model, info.channels, info.size, info.classes)
    assert defaults.sparsities and all(0 < s < 1 for s in defaults.sparsities)
    assert len(defaults.seeds) >= 3


def test_recipes_of_papers_have_the_published_values() -> None:
    prospr = recipes.load("prospr", "cifar10", "resnet20").train
    assert (prospr.epochs, prospr.batch_size, prospr.weight_decay, prospr.milestones) == (200, 256, 5e-4, (100, 150))
    frankle = recipes.load("frankle", "cifar10", "resnet20").train
    assert (frankle.epochs, frankle.batch_size, frankle.weight_decay, frankle.milestones) == (160, 128, 1e-4, (80, 120))
    synflow = recipes.load("synflow", "cifar100", "resnet20").train
    assert (synflow.milestones, synflow.nesterov) == ((60, 120), True)
    for dataset, model, values in (
        ("cifar10", "vgg16-bn", (160, 0.1, (60, 120), 0.1, 1e-4)),
        ("cifar100", "vgg11-bn", (160, 0.1, (60, 120), 0.1, 1e-4)),
        ("cifar10", "resnet18", (160, 0.01, (60, 120), 0.2, 5e-4)),
        ("cifar100", "resnet18", (160, 0.01, (60, 120), 0.2, 5e-4)),
        ("tiny-imagenet", "resnet18", (100, 0.01, (30, 60, 80), 0.01, 1e-4)),
        ("tiny-imagenet", "vgg16-bn-tinyimagenet", (100, 0.01, (30, 60, 80), 0.01, 1e-4)),
    ):
        train = recipes.load("synflow", dataset, model).train
        assert (train.epochs, train.lr, train.milestones, train.gamma, train.weight_decay) == values
    sources = dict(recipes.load("synflow", "tiny-imagenet", "resnet18").sources)
    assert "Experiments_Figure_6.ipynb" in sources["train.gamma"] and "0.01" in sources["train.gamma"]
    assert recipes.load("synflow", "cifar10", "resnet18").init.scheme == "kaiming-normal-fan-out"
    assert recipes.load("ntk-sap", "cifar100", "resnet20").train.weight_decay == 5e-4
    assert recipes.load("ntk-sap", "cifar10", "resnet20").train.weight_decay == 1e-4
    assert recipes.load("grasp", "cifar10", "resnet20").data.std == (0.2023, 0.1994, 0.2010)
    decays = [
        recipes.load("grasp", "cifar10", model).train.weight_decay for model in ("resnet32-wide", "vgg19-bn-nobias")
    ]
    assert decays == [1e-4, 5e-4]
    scoring = [recipes.load("grasp", "cifar100", model).scoring for model in ("resnet32-wide", "vgg19-bn-nobias")]
    assert [(s.batch_size, s.batches) for s in scoring] == [(500, 2), (1000, 1)]
    assert recipes.load("grasp", "tiny-imagenet", "resnet32-wide").train.milestones == (150, 225)
    force = recipes.load("force", "cifar10", "resnet50")
    assert (force.train.epochs, force.train.milestones, force.data.train_fraction) == (350, (149, 249), 0.9)
    assert recipes.load("force", "tiny-imagenet", "resnet50").data.train_fraction == 1
    tiny = recipes.load("ntk-sap", "tiny-imagenet", "resnet18")
    assert (tiny.train.lr, tiny.train.batch_size) == (0.2, 256)
    assert (tiny.data.crop, tiny.data.scale) == ("random-resized", (0.1, 1.0))
    large = recipes.load("frankle", "imagenet", "resnet50-imagenet").train
    assert (large.batch_size, large.lr, large.warmup_epochs, large.milestones) == (1024, 0.4, 5, (30, 60, 80))


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_name_models_that_exist(name: str) -> None:
    text = resources.files("pai_bench.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    tables = [content, *content["datasets"].values()]
    assert {model for table in tables for names in table.get("models", {}) for model in names.split(",")} <= {
        *models.names()
    }


def load(tmp_path: Path, text: str, dataset: str = "digits", model: str = "conv8") -> Recipe:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return recipes.load(str(path), dataset, model)


def test_the_name_of_a_recipe_shows_the_validation_split(tmp_path: Path) -> None:
    line = '[data]\nsplit = { value = "validation", source = "ours" }\n'
    assert load(tmp_path, QUICK.replace("[data]\n", line, 1)).name == "mine+data.split=validation"


def test_a_users_file_is_a_recipe_by_its_own_name(tmp_path: Path) -> None:
    recipe = load(tmp_path, QUICK)
    assert recipe.name == "mine"
    assert recipe.values() == recipes.load("quick", "digits", "conv8").values()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("momentum =", "momentun =", ["mine.toml", "train.momentun", "train.momentum"]),
        ("[train]", "[trian]", ["mine.toml", "'trian'", "train"]),
        ("[datasets.digits.train]", "[datasets.digits.trian]", ["mine.toml", "datasets.digits.trian"]),
        ("lr = { value = 0.1, source", "lr = { value = 'fast', source", ["mine.toml", "train.lr", "a number"]),
        ("lr = { value = 0.1, source", "lr = { value = -0.1, source", ["train.lr", "above 0"]),
        ("nesterov = { value = true", "nesterov = { value = 1", ["train.nesterov", "true or false"]),
        ("epochs = { value = 12", "epochs = { value = 0", ["train.epochs", "1 or more"]),
        ("epochs = { value = 12", "epochs = { value = 1.5", ["train.epochs", "whole number"]),
        ('"cosine"', '"cosin"', ["train.schedule", "step or cosine"]),
        ('dtype = { value = "float64"', 'dtype = { value = "float16"', ["scoring.dtype", "float64 or float32"]),
        ("mean = { value = [0.3054]", "mean = { value = [0.3054, 1.0]", ["data.std", "as many as mean"]),
        ("momentum = { value = 0.9, source = ", "momentum = { value = 0.9, sauce = ", ["train.momentum", "source"]),
        (
            'momentum = { value = 0.9, source = "as all CIFAR protocols" }',
            "momentum = 0.9",
            ["train.momentum", "source"],
        ),
        ('momentum = { value = 0.9, source = "as all CIFAR protocols" }', "", ["train.momentum is missing", "[train]"]),
        ("[init]", "[init", ["mine.toml", "not valid TOML"]),
        # Sections that do not apply to the cell are checked as well.
        ("[datasets.mnist.data]", "[datasets.mnist.date]", ["datasets.mnist.date", "datasets.mnist.data"]),
        ("[datasets.mnist.data]", "[models.conv28.date]", ["models.conv28.date", "models.conv28.data"]),
        (
            "[datasets.mnist.data]\nmean",
            "[datasets.mnist.models.lenet.data]\nmeen",
            ["datasets.mnist.models.lenet.data.meen"],
        ),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in QUICK
    with pytest.raises(PaiBenchError) as caught:
        load(tmp_path, QUICK.replace(old, new))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_specific_sections_override_general_ones(tmp_path: Path) -> None:
    def lr(value: float) -> str:
        return f'lr = {{ value = {value}, source = "test" }}\n'

    text = f"""{QUICK}
[models."a, b".train]
{lr(0.2)}
[datasets.mnist.train]
{lr(0.3)}
[datasets.mnist.models.a.train]
{lr(0.4)}"""
    learned = {(d, m): load(tmp_path, text, d, m).train.lr for d in ("digits", "mnist") for m in ("a", "b", "c")}
    assert [learned["digits", m] for m in "abc"] == [0.2, 0.2, 0.1]
    assert [learned["mnist", m] for m in "abc"] == [0.4, 0.2, 0.3]


def test_a_recipe_is_for_the_data_sets_it_names() -> None:
    with pytest.raises(PaiBenchError, match="not meant for data set digits") as caught:
        recipes.load("frankle", "digits", "conv8")
    assert "cifar10" in caught.value.remedy
    with pytest.raises(PaiBenchError, match="unknown recipe 'frank'") as caught:
        recipes.load("frank", "cifar10", "resnet20")
    assert "did you mean frankle?" in caught.value.remedy
    with pytest.raises(PaiBenchError, match="cannot be read"):
        recipes.load("nowhere.toml", "cifar10", "resnet20")


def fingerprint(recipe: Recipe | None = None, **changes: object) -> str:
    arguments = {
        "method_name": "prospr",
        "method_version": 1,
        "hyperparameters": {"steps": 3, "lr": 0.5},
        "dataset": "digits",
        "model": "conv8",
        "recipe": recipe or plain(),
        "trainer_version": 1,
    }
    return recipes.result_fingerprint(**(arguments | changes))  # type: ignore[arg-type]


def plain() -> Recipe:
    return Recipe(
        name="plain",
        dataset="digits",
        init=recipes.Init("torch"),
        train=recipes.Train(2, 64, 0.1, 0.9, False, 1e-4, "step", (1,), 0.1, 0.0, 1),
        data=recipes.Data(0, False, (0.5,), (0.5,)),
        scoring=recipes.Scoring(100, 1, "float64"),
    )


def test_the_fingerprint_has_not_changed() -> None:
    # Another value here makes every result that anybody has stale: change it only on purpose.
    assert fingerprint() == "e69f8027cd332a70b6472d7e34c61f83fac3b3de587ed5d65d9c8c7772dd1f3f"


def test_the_fingerprint_covers_exactly_the_values_that_affect_results() -> None:
    one = fingerprint()
    assert fingerprint(hyperparameters={"lr": 0.5, "steps": 3}) == one
    assert fingerprint(dataclasses.replace(plain(), name="other", summary="other")) == one
    changed = [
        fingerprint(method_name="snip"),
        fingerprint(method_version=2),
        fingerprint(hyperparameters={"steps": 4, "lr": 0.5}),
        fingerprint(dataset="mnist"),
        fingerprint(model="conv28"),
        fingerprint(trainer_version=2),
        fingerprint(dataclasses.replace(plain(), init=recipes.Init("prospr"))),
        fingerprint(dataclasses.replace(plain(), scoring=recipes.Scoring(100, 1, "float32"))),
    ]
    assert len({one, *changed}) == 1 + len(changed)
