"""`pai-bench doctor`: every check has a state (ok, warning or failed) and a remedy."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest

from pai_bench.doctor import folders
from pai_bench.doctor.checks import Check, tried
from tests.cli.program import pai_bench
from tests.cli.test_status import CELLS, plan


def by_name(checks: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in checks}


def test_doctor_passes_on_a_valid_setup_and_reports_faults(tmp_path: Path) -> None:
    plan(tmp_path / "results", cells=CELLS)
    well = pai_bench(tmp_path, "doctor", "--data-dir", "data")
    assert well.returncode == 0, well.stdout
    assert "ok       data digits    built-in" in well.stdout and "0 failed" in well.stderr
    (tmp_path / "config" / "pai-bench").mkdir(parents=True)
    (tmp_path / "config" / "pai-bench" / "config.toml").write_text("sedes = 3\n")
    lines = [{**vars(CELLS[0]), "dataset": "mnist", "recipe": "quick", "fingerprint": "f"}]
    (tmp_path / "results" / "plans" / "2.json").write_text(json.dumps({"created": "2", "cells": lines}))
    ill = pai_bench(tmp_path, "doctor", "--json", "--data-dir", "data")
    assert ill.returncode == 1
    checks = by_name(json.loads(ill.stdout)["checks"])
    assert checks["settings"]["state"] == "failed" and "sedes" in checks["settings"]["found"]
    assert checks["data mnist"]["state"] == "failed" and "pai-bench data fetch mnist" in checks["data mnist"]["remedy"]
    assert {check["state"] for name, check in checks.items() if name not in ("settings", "data mnist")} == {"ok"}


def test_a_check_that_raises_has_failed() -> None:
    def attempt() -> Check:
        raise OSError("no luck\nat all")

    assert tried("it", "do that", attempt) == Check("it", "failed", "OSError: no luck", "do that")


def test_missing_hard_links_low_space_and_a_wrong_clock_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states() -> dict[str, str]:
        return {check.name: check.state for check in folders.checks(tmp_path / "later" / "results")}

    assert set(states().values()) == {"ok"} and list(tmp_path.iterdir()) == []

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    usage = namedtuple("usage", "free")
    for free, state in ((2 * 2**30, "warning"), (2**20, "failed")):
        monkeypatch.setattr(folders.shutil, "disk_usage", lambda _, free=free: usage(free))
        assert states()["disk space"] == state and states()["hard links"] == "warning"
    now = folders.time.time()
    monkeypatch.setattr(folders.time, "time", lambda: now + 3600)
    assert states()["clock"] == "warning"
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    (check,) = folders.checks(tmp_path / "results")
    assert check.state == "failed" and "is not a folder" in check.found and "--results" in str(check.remedy)
