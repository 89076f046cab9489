"""Empty values of options are refused or ignored: a path would become the working folder, and a list its default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pai_bench.cli.program import app
from pai_bench.errors import PaiBenchError


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


PARAMETERS = [
    (command, parameter)
    for _, command in commands(get_command(app))
    for parameter in command.params
    if parameter.param_type_name == "argument" or not parameter.is_flag
]


@pytest.mark.parametrize("empty", ["", " "], ids=["empty", "blank"])
def test_no_option_and_no_argument_takes_an_empty_value(empty: str) -> None:
    assert len(PARAMETERS) > 100
    for command, parameter in PARAMETERS:
        is_option = parameter.param_type_name == "option"
        with pytest.raises(PaiBenchError) as refused:
            command.make_context(command.name, [parameter.opts[0], empty] if is_option else ["--", empty])
        named = parameter.opts[0] if is_option else f"argument {parameter.name}"
        assert refused.value.cause == f"{named} is empty"
        assert ("leave the option out" in refused.value.remedy) == is_option


@pytest.mark.parametrize("key", ["results", "filter", "methods", "recipe", "plugin"])
def test_no_key_of_a_config_file_takes_an_empty_value(tmp_path: Path, key: str) -> None:
    (tmp_path / "sweep.toml").write_text(f'{key} = ""\n')
    ended = CliRunner().invoke(app, ["sweep", "--config", str(tmp_path / "sweep.toml")])
    assert isinstance(ended.exception, PaiBenchError), ended.output
    assert ended.exception.cause == f"{tmp_path / 'sweep.toml'}: {key} is empty"


def test_an_empty_environment_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _, parameter in PARAMETERS:
        if variable := getattr(parameter, "envvar", None):
            monkeypatch.setenv(variable, "")
    asked = ["--methods", "random", "--datasets", "digits", "--seeds", "0", "--sparsities", "0.9", "--dry-run"]
    ended = CliRunner().invoke(app, ["sweep", *asked])
    assert ended.exit_code == 0, ended.output
    assert "2 to run" in ended.output
    ended = CliRunner().invoke(app, ["status"])
    assert isinstance(ended.exception, PaiBenchError)
    assert ended.exception.cause == f"there is no plan and no result in {tmp_path / 'results'}"
