"""Files that a job trusts, the permissions of a sweep's folder, and the count of a task's stops."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm import command, sbatch, specification, stops, task, trust
from pai_bench.sweep.slurm.ledger import Ledger
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.specification import Spec
from tests.unit.test_slurm import spec

SOMEBODY = 54321
"""A user id without a user."""


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


def give_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file belong to a user other than its reader."""
    if os.geteuid() == 0:
        os.chown(place, SOMEBODY, -1)
    else:
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)


@pytest.mark.parametrize(("bits", "who"), [(0o644, None), (0o600, None), (0o646, "everybody"), (0o666, "everybody")])
def test_a_world_writable_file_is_refused(tmp_path: Path, bits: int, who: str | None) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"text")
    place.chmod(bits)
    if who is None:
        assert trust.read(place) == b"text"
        return
    with pytest.raises(PaiBenchError, match=rf"file can be written by {who}.*\n.*chmod o-w"):
        trust.read(place)


def test_group_write_permission_is_accepted_only_for_a_private_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "file"
    place.touch()
    place.chmod(0o664)
    for private in (True, False):
        monkeypatch.setattr(trust, "_is_private", lambda gid, owner, answer=private: answer)
        assert (trust.fault(place, place.stat()) is None) == private


def test_a_private_group_has_the_name_of_its_user_and_no_other_member(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("ann", "x", 7, 70, "", "/", "/bin/sh")))
    for name, members, gid, private in [
        ("ann", [], 70, True),
        ("ann", ["ann"], 70, True),
        ("ann", ["bob"], 70, False),
        ("users", [], 70, False),
        ("ann", [], 71, False),
    ]:
        monkeypatch.setattr(grp, "getgrgid", lambda g, n=name, m=members: grp.struct_group((n, "x", g, m)))
        assert trust._is_private(gid, 7) == private, (name, members, gid)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file"
    place.touch(0o644)
    give_away(place, monkeypatch)
    with pytest.raises(PaiBenchError, match=r"file belongs to user .*only files of"):
        trust.check(place)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_only_the_owner_can_write_to_a_sweeps_folder_regardless_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        made = spec(tmp_path)
        place = made.write()
        Ledger(tmp_path, made.sweep).submitting(made, "here", {})
        trust.make_folder(made.folder)
    finally:
        os.umask(before)
    assert {mode(path) for path in (place.parent, made.folder)} == {0o755}
    assert {mode(path) for path in (place, place.with_name("ledger.jsonl"))} == {0o644}
    assert Spec.read_trusted(place) == made


@pytest.mark.parametrize("name", ["c001.json", "ledger.jsonl", "."])
@pytest.mark.parametrize("how", ["writable", "foreign"])
def test_a_job_refuses_files_that_others_own_or_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    made = spec(tmp_path)
    place = made.write()
    Ledger(tmp_path, made.sweep).submitting(made, "here", {})
    target = place.parent / name
    if how == "foreign":
        give_away(target, monkeypatch)
    else:
        target.chmod(mode(target) | 0o002)
    with pytest.raises(PaiBenchError, match="belongs to user" if how == "foreign" else "can be written by everybody"):
        Spec.read_trusted(place)
    with pytest.raises(PaiBenchError):
        task.Task(str(place))()
    said = capsys.readouterr().err
    assert said.startswith("pai-bench: ends: ") and said.count("\n") == 1


def test_a_specification_is_refused_under_another_file_name(tmp_path: Path) -> None:
    place = spec(tmp_path).write()
    other = place.with_name("c002.json")
    place.rename(other)
    with pytest.raises(PaiBenchError, match=r"c002\.json is the specification of .*c001"):
        Spec.read_trusted(other)


def test_a_plugin_that_has_changed_is_refused_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pai_bench.sweep.slurm.task_runner import Work, WorkFailed

    plugin, marker = tmp_path / "mine.py", tmp_path / "ran"
    plugin.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    plugin.chmod(0o644)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    for digest in ("0" * 64, hashlib.sha256(plugin.read_bytes()).hexdigest()):
        made = spec(tmp_path, plugins=(plugin,), code={"pai-bench": "0", "mine.py": digest})
        # The hash of pai-bench itself is compared after the plug-ins are loaded.
        with pytest.raises(WorkFailed, match=r"mine\.py has changed" if digest == "0" * 64 else "code of pai-bench"):
            Work(str(made.write()))._run()
        assert marker.exists() == (digest != "0" * 64)
    plugin.chmod(0o666)
    with pytest.raises(PaiBenchError, match="can be written by everybody"):
        Work(str(made.place))._run()
    (note,) = {results.read_failure(tmp_path, e.key) for e in made.tasks[0]}
    assert note is not None and note.kind == "code", "the next sweep retries it without --retry"


def test_a_job_uses_neither_a_pickle_nor_modules_of_the_working_directory(tmp_path: Path) -> None:
    made = spec(tmp_path)
    text = sbatch.script(made, sbatch.Request(Profile("x"), 60, 5))
    assert f"-P -u -m pai_bench.sweep.slurm.task {specification.path_of(tmp_path, made.sweep, 'c001')}\n" in text
    assert ".pkl" not in text and "umask 0" in text and "#SBATCH --array=0-1%2" in text


def pickled(spec: str) -> bytes:
    """Return the pickle of a task as version 0.1 wrote it: the class by its module path, and a state of two values."""
    return (
        b"cpai_bench.sweep.slurm.task\nTask\n)\x81}(X\x04\x00\x00\x00specX"
        + len(spec).to_bytes(4, "little")
        + spec.encode()
        + b"X\x05\x00\x00\x00_workNub."
    )


def test_a_pickled_task_of_version_0_1_is_loaded() -> None:
    loaded = pickle.loads(pickled("/a"))
    assert isinstance(loaded, task.Task) and loaded.spec == "/a" and loaded._work is None
    assert pickle.loads(pickle.dumps(loaded)).spec == "/a"


def test_a_job_queued_by_version_0_1_is_refused_and_its_cells_are_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pai_bench.sweep.slurm.task_runner import WorkFailed

    queued = Spec.read(Path(__file__).parent / "earlier" / "specification.json")
    settings = replace(queued.settings, root=tmp_path, plugins=())
    made = replace(queued, settings=settings, code={"pai-bench": queued.code["pai-bench"]})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(WorkFailed, match="the code of pai-bench has changed since the sweep was planned"):
        pickle.loads(pickled(str(made.write())))()
    # The next sweep submits cells with a note of this kind without --retry failed.
    assert made.tasks[0] and all(command._passing(tmp_path, entry) for entry in made.tasks[0])


def stop(place: Path, progress: list[object] | None, restarts: int = 0) -> int:
    return len(stops.stopped(place, progress, 1.0, restarts, True))


def test_consecutive_stops_without_progress_are_counted(tmp_path: Path) -> None:
    place = tmp_path / "7_stops.json"
    assert [stop(place, None, n) for n in range(3)] == [1, 2, 3], "stopped before the work began"
    assert stops.read(place).requeued == 2, "the third is not requeued"
    assert [stop(place, []), stop(place, [0, "e0001"]), stop(place, [0, "e0001"])] == [4, 1, 2]
    assert [stop(place, None), stop(place, [0, "e0002"])] == [3, 1], "a slow start is not progress, a later epoch is"
    for text in ("", "[]", "{}", "[" * 100_000, '{"requeued":1,"headway":3,"minutes":null}'):
        place.write_text(text)
        assert stops.read(place) == stops.Record() and stop(place, None) == 1


def test_status_counts_requeues(tmp_path: Path) -> None:
    made = spec(tmp_path)
    for job, restarts in (("5_0", 0), ("5_1", 3)):
        stops.started(stops.place_of(made, job), restarts)
    tasks = [(made.sweep, made.token, job) for job in ("5_0", "5_1", "5_2")]
    assert stops.requeues(tmp_path, tasks) == {"5_1": 3}


@pytest.mark.slow
def test_a_task_warned_while_torch_loads_is_requeued_twice_and_then_fails_with_a_cause(tmp_path: Path) -> None:
    """Run the real program in a subprocess, with a stub of torch that takes a minute to load."""
    slow, bin_ = tmp_path / "slow", tmp_path / "bin"
    slow.mkdir()
    bin_.mkdir()
    (slow / "torch.py").write_text(
        "import time, sys\nsys.stderr.write('loading\\n')\nsys.stderr.flush()\ntime.sleep(60)\n"
    )
    (bin_ / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path / 'asked'}\n")
    (bin_ / "scontrol").chmod(0o755)
    made = spec(tmp_path)
    place = made.write()
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    env = {**os.environ, **job, "PYTHONPATH": str(slow), "PATH": f"{bin_}:{os.environ['PATH']}"}
    codes = []
    for restart in range(3):
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "pai_bench.sweep.slurm.task", str(place)],
            env={**env, "SLURM_RESTART_COUNT": str(restart)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGUSR2)
        said = process.communicate(timeout=300)[1]
        codes.append(process.returncode)
        assert "stopped by a signal before the work began" in said and "Traceback" not in said
    assert codes == [task.ENDED_EARLY, task.ENDED_EARLY, 1]
    assert (tmp_path / "asked").read_text() == "requeue 7_1\n" * 2
    notes = [results.read_failure(tmp_path, e.key) for e in made.tasks[1]]
    assert all(note and note.kind == "environment" and "stopped 3 times" in note.cause for note in notes)
    assert results.read_failure(tmp_path, made.tasks[0][0].key) is None
