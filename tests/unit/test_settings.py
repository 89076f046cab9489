"""Tests of run settings: complete round trips through a worker's command line and a SLURM specification."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

import pai_bench
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.execution.settings import NAMES, RunSettings, parse_pack
from pai_bench.sweep.local import worker_process
from pai_bench.sweep.slurm.specification import Spec
from tests.unit.test_slurm import spec

EVERY_FIELD = RunSettings(
    root=Path("/results of é"),
    data_dir=Path("data"),
    plugins=(Path("a.py"), Path("b c.npz")),
    redo=True,
    checkpoint_every=0.1,
    keep_checkpoints=True,
    disk_patience=1e-3,
    pack=3,
)
"""Settings without any default value."""


def test_the_settings_of_these_tests_differ_from_every_default() -> None:
    assert not asdict(EVERY_FIELD).items() & asdict(RunSettings(Path("results"))).items()
    assert {field.name for field in fields(RunSettings)} == NAMES


@pytest.mark.parametrize("settings", [EVERY_FIELD, RunSettings(Path("results"))], ids=["all given", "defaults"])
def test_a_worker_reads_all_settings_from_its_command_line(settings: RunSettings) -> None:
    arguments = worker_process.command("cuda:1", settings)
    assert arguments[-4:-1] == ["--device", "cuda", "--settings"]
    assert RunSettings.from_json(arguments[-1]) == settings


@pytest.mark.parametrize("settings", [EVERY_FIELD, RunSettings(Path("results"))], ids=["all given", "defaults"])
def test_a_job_reads_all_settings_from_its_specification(tmp_path: Path, settings: RunSettings) -> None:
    made = replace(spec(tmp_path), settings=replace(settings, root=tmp_path))
    assert Spec.read(made.write()) == made
    assert json.loads(made.place.read_bytes()).keys() >= NAMES


def test_settings_of_an_earlier_version_have_the_defaults_of_later_options() -> None:
    plain = EVERY_FIELD.as_dict()
    del plain["pack"]
    assert RunSettings.from_dict(plain) == replace(EVERY_FIELD, pack=None)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="patience_of_disk"):
        RunSettings.from_dict({"root": "results", "patience_of_disk": 1})


@pytest.mark.parametrize("name", ["checkpoint_every", "disk_patience"])
def test_an_option_is_named_in_three_files(name: str) -> None:
    package = Path(pai_bench.__file__).parent
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if name in path.read_text()}
    assert found == {"cli/sweep.py", "sweep/execution/settings.py", "sweep/execution/attempt.py"}


def test_a_pack_is_a_positive_number_or_auto() -> None:
    assert (parse_pack("auto"), parse_pack("3")) == (None, 3)
    for text in ("many", "0", "-1", "1.5", ""):
        with pytest.raises(PaiBenchError, match="--pack") as caught:
            parse_pack(text)
        assert caught.value.remedy == 'use "auto" or an integer >= 1'


def test_a_specification_of_version_0_1_is_read_and_written_unchanged(tmp_path: Path) -> None:
    earlier = Path(__file__).parent / "earlier" / "specification.json"
    made = Spec.read(earlier)
    assert made.settings == RunSettings(
        root=Path("/shared/results"),
        data_dir=Path("/shared/data"),
        plugins=(Path("/home/user/mine.py"),),
        redo=True,
        checkpoint_every=30.0,
        keep_checkpoints=True,
        disk_patience=20.0,
        pack=4,
    )
    assert [[str(entry.cell.method) for entry in task] for task in made.tasks] == [["snip"] * 2, ["prospr:steps=2"] * 2]
    again = replace(made, settings=replace(made.settings, root=tmp_path)).write()
    plain = json.loads(earlier.read_bytes())
    later = {name: default for name, default in RunSettings(tmp_path).as_dict().items() if name not in plain}
    assert {**json.loads(again.read_bytes()), "root": "/shared/results"} == {**plain, **later}
