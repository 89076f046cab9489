"""Tests of the choice of place for a sweep, and of options without effect there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pai_bench.errors import PaiBenchError
from pai_bench.sweep import placement
from pai_bench.sweep.placement import Sources, choose
from pai_bench.sweep.slurm.command import Options

NONE = Options()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no command of SLURM's, and a user without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(placement, "installed", lambda: False)
    monkeypatch.setattr(placement, "reachable", lambda: False)
    return tmp_path


def slurm_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "installed", lambda: True)
    monkeypatch.setattr(placement, "reachable", lambda: True)


TYPED = [
    ("--profile", Options(profile="cpu")),
    ("--slurm", Options(settings=("partition=x",))),
    ("--cells-per-job", Options(cells_per_job=2)),
    ("--canary", Options(canary=True)),
    ("--wait", Options(wait=True)),
    ("--any-code", Options(any_code=True)),
]


@pytest.mark.parametrize(("option", "options"), TYPED, ids=[option for option, _ in TYPED])
def test_a_slurm_option_implies_slurm_or_is_refused(
    monkeypatch: pytest.MonkeyPatch, option: str, options: Options
) -> None:
    given = Sources(typed=(option,), where="variable PAI_BENCH_WHERE")
    with pytest.raises(PaiBenchError, match=rf"{option} can only be used on SLURM.* not found on PATH\n.*login node"):
        choose("auto", options, given)
    for where in ("local", "debug"):
        with pytest.raises(PaiBenchError, match=rf"{option} .*--where is {where} \(variable PAI_BENCH_WHERE\)"):
            choose(where, options, given)
    slurm_is_here(monkeypatch)
    monkeypatch.setattr(placement, "reachable", lambda: pytest.fail("not asked: the option says where"))
    assert choose("auto", options, given).name == "slurm"


def test_several_typed_options_are_named_together() -> None:
    with pytest.raises(PaiBenchError, match="--canary and --wait can only be used on SLURM"):
        choose("local", NONE, Sources(typed=("--canary", "--wait")))


@pytest.mark.parametrize("where", placement.PLACES)
def test_a_typed_profile_is_checked_wherever_the_sweep_runs(where: str) -> None:
    with pytest.raises(PaiBenchError, match="profile 'nosuch'"):
        choose(where, Options(profile="nosuch"), Sources(typed=("--profile",)))
    with pytest.raises(PaiBenchError, match="'nonsense'"):
        choose(where, Options(settings=("nonsense=1",)), Sources(typed=("--slurm",)))


def test_a_default_of_the_user_does_not_stop_a_run_on_a_laptop() -> None:
    elsewhere = Sources(elsewhere={"profile": "/home/ann/config.toml (user's profile)"})
    chosen = choose("auto", Options(profile="of-the-cluster"), elsewhere)
    assert chosen.name == "local"
    (note,) = chosen.notes
    assert "--profile (/home/ann/config.toml (user's profile))" in note and "unused" in note
    assert choose("local", Options(profile="of-the-cluster"), elsewhere) == placement.Place("local"), "as was asked for"
    assert choose("auto", NONE, Sources()) == placement.Place("local")


def test_a_default_of_the_user_counts_on_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_is_here(monkeypatch)
    assert choose("auto", Options(profile="mine"), Sources(elsewhere={"profile": "a file"})) == placement.Place("slurm")


def test_options_for_this_machine_only_are_reported_on_slurm() -> None:
    chosen = choose("slurm", NONE, Sources(typed_here=("--workers",)))
    assert chosen == placement.Place("slurm", ("--workers has no effect on SLURM's tasks",))
    assert choose("local", NONE, Sources(typed_here=("--workers",))).notes == ()


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(PaiBenchError, match="'slrum'"):
        choose("slrum", NONE, Sources())


@pytest.mark.slow
def test_the_command_line_tells_typed_options_from_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` is in a file, the profile in the environment, --canary typed."""
    from typer.main import get_command

    from pai_bench.cli.program import app
    from pai_bench.cli.sweep import _given

    file = tmp_path / "sweep.toml"
    file.write_text("wait = true\nany_code = false\n")
    monkeypatch.setenv("PAI_BENCH_PROFILE", "cpu")
    monkeypatch.setenv("PAI_BENCH_WHERE", "auto")
    root = get_command(app)
    context = root.commands["sweep"].make_context(  # type: ignore[attr-defined]
        "sweep", ["--canary", "--workers", "2", "-c", str(file)], parent=root.make_context("pai-bench", ["sweep"])
    )
    given = _given(context)
    assert given.typed == ("--canary",) and given.typed_here == ("--workers",)
    assert given.elsewhere == {"profile": "environment variable PAI_BENCH_PROFILE", "wait": str(file)}
    assert given.where == "environment variable PAI_BENCH_WHERE"
    assert os.environ["PAI_BENCH_WHERE"] == "auto"
