"""Options from files: every way to write them, what is nearer counts, paths belong to their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from pai_bench import recipes
from pai_bench.cells import split_specs
from pai_bench.cli import app
from pai_bench.cli.settings import nearest_sparsities, recipe_settings
from pai_bench.errors import PaiBenchError


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The context of a command with what was typed, and a profile and a file."""

    def parsed(*arguments: str, file: str = "", profile: str = "", command: str = "sweep") -> Any:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        place = tmp_path / "config" / "pai-bench" / "config.toml"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(profile)
        (tmp_path / "paper.toml").write_text(file)
        root: Any = typer.main.get_command(app)
        parent = root.make_context("pai-bench", [command])
        return root.commands[command].make_context(
            command, ["-c", str(tmp_path / "paper.toml"), *arguments], parent=parent
        )

    return parsed


def test_a_table_among_the_methods_is_the_product_of_its_lists(parse: Any) -> None:
    prospr = '{name = "prospr", steps = [1, 3], lr = [0.5, 1e-2], new_batches = false}'
    file = f'methods = ["snip:bn=eval", {prospr}, {{name = "erk"}}]'
    assert split_specs(parse(file=file).params["methods"]) == [
        "snip:bn=eval",
        *(f"prospr:steps={steps},lr={lr},new_batches=false" for steps in (1, 3) for lr in (0.5, 0.01)),
        "erk",
    ]


def test_every_way_to_write_a_value_is_the_same(parse: Any) -> None:
    dotted = "[set]\ntrain.epochs = 2\ntrain.nesterov = true\ntrain.milestones = [1, 2]"
    tables = "[set.train]\nepochs = 2\nnesterov = true\nmilestones = [1, 2]"
    texts = 'set = ["train.epochs=2", "train.nesterov=true", "train.milestones=1,2"]'
    assert len({recipe_settings(parse(file=file)) for file in (dotted, tables, texts)}) == 1
    assert parse(file="seeds = 3").params["seeds"] == parse(file="seeds = [3]").params["seeds"] == "3"
    assert parse(file='recipe = "quick"').params["recipes"] == parse(file='recipes = ["quick"]').params["recipes"]


def test_values_of_the_recipe_are_joined_key_by_key(parse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = '[set]\ntrain.epochs = 2\ntrain.lr = [0.1, 0.2]\ndata.split = "test"'
    profile = "[set]\ntrain.epochs = 9\ntrain.gamma = 0.5"
    typed = ["--set", "train.lr=0.3", "--split", "validation"]
    assert sorted(recipe_settings(parse(*typed, file=file, profile=profile))) == [
        *("data.split=validation", "train.epochs=2", "train.gamma=0.5", "train.lr=0.3"),
    ]
    monkeypatch.setenv("PAI_BENCH_SET", "train.lr=0.4 train.epochs=3")
    found = recipe_settings(parse(file=file))
    assert sorted(found) == ["data.split=test", "train.epochs=3", "train.lr=0.4"]
    assert recipe_settings(parse(file='split = "validation"'))[-1] == "data.split=validation"


def test_paths_are_relative_to_their_file(parse: Any, tmp_path: Path) -> None:
    file = """
    results = "out"
    plugin = ["a.py", "/b.py"]
    recipes = ["quick", "mine.toml"]
    methods = ["snip", "file:masks.npz"]
    """
    found = parse(file=file, profile='data_dir = "data"').params
    assert found["results"] == tmp_path / "out" and found["data_dir"] == tmp_path / "config" / "pai-bench" / "data"
    assert list(found["plugin"]) == [tmp_path / "a.py", Path("/b.py")]
    assert found["recipes"] == f"quick,{tmp_path}/mine.toml"
    assert found["methods"] == f"snip,file:{tmp_path}/masks.npz"


def test_the_nearest_way_to_give_sparsities_counts(parse: Any) -> None:
    context = parse("--densities", "0.3", file="sparsities = 0.2", profile="compressions = 2")
    names = ("sparsities", "densities", "compressions")
    values = nearest_sparsities(context, {name: context.params[name] for name in names})
    assert values == {"sparsities": None, "densities": "0.3", "compressions": None}


def test_config_show_names_the_source_of_every_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PAI_BENCH_MODELS", "conv8")
    profile, file = tmp_path / "pai-bench" / "config.toml", tmp_path / "paper.toml"
    profile.parent.mkdir()
    profile.write_text("densities = 0.1\n[set]\ntrain.gamma = 0.5\ntrain.lr = 0.3")
    file.write_text('datasets = "digits"\nsparsities = [0.5, 0.9]\n[set]\ntrain.lr = 0.05')
    typed = ["-c", str(file), "--methods", "snip", "--set", "train.epochs=20", "--set", "train.momentum=0.9"]
    app(["config", "show", *typed, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["profile"] == str(profile) and found["profile_read"]
    options = {key: (entry["value"], entry["source"]) for key, entry in found["options"].items()}
    assert options["methods"] == ("snip", "command line")
    assert options["models"] == ("conv8", "environment variable PAI_BENCH_MODELS")
    assert options["datasets"] == ("digits", str(file)) and options["sparsities"] == ("0.5,0.9", str(file))
    assert options["results"] == ("(results)", "default") and "densities" not in options
    (chosen,) = found["recipes"]
    assert chosen["recipe"] == "quick+train.epochs=20+train.gamma=0.5+train.lr=0.05"
    values = {key: (entry["value"], entry["source"]) for key, entry in chosen["values"].items()}
    own = recipes.load("quick", "digits", "conv8")
    assert values.keys() == {"seeds", *(f"{table}.{key}" for table, keys in own.values().items() for key in keys)}
    assert values["train.epochs"] == (20, "--set, command line")
    assert values["train.lr"] == (0.05, f"[set] of {file}")
    assert values["train.gamma"] == (0.5, f"[set] of {profile} (user's profile)")
    assert values["train.momentum"] == (0.9, dict(own.sources)["train.momentum"])
    assert values["seeds"] == ([0, 1, 2], "default of data set digits")
    app(["config", "show", *typed], standalone_mode=False)
    shown = capsys.readouterr()
    assert "train.nesterov" in shown.out and "as in SynFlow" in shown.out and "config.toml (read)" in shown.err


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("sedes = 1", ["paper.toml: unknown key 'sedes'", "did you mean seeds"]),
        ("[seeds]\na = 1", ["paper.toml: seeds is a table", "above all tables"]),
        ("methods = [{steps = [1]}]", ["paper.toml", "has no name", 'name = "prospr"']),
        ('recipe = "a"\nrecipes = "b"', ["paper.toml", "given twice"]),
    ],
)
def test_mistakes_in_a_file_name_it(parse: Any, file: str, words: list[str]) -> None:
    with pytest.raises(PaiBenchError) as caught:
        parse(file=file)
    assert all(word in str(caught.value) for word in words), str(caught.value)
