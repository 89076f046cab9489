"""Two users of one group on a results folder: umask 002, setgid folder, and for root, two real user ids."""

from __future__ import annotations

import _strptime  # by datetime, later: the users cannot read an interpreter in the home of root
import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.planning.plan import make_plan
from pai_bench.sweep.slurm import trust
from pai_bench.training.checkpoints import Checkpoints
from tests.unit.test_execution import RUN, vars_of
from tests.unit.test_results import MASKS, result
from tests.unit.test_slurm import spec

assert _strptime
REAL = os.geteuid() == 0
ANN, BOB, GROUP = (61001, 61002, 61003) if REAL else (os.geteuid(), os.geteuid(), os.getegid())


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of the group with the setgid bit, that no folder above it closes."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, -1, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(folder)


def as_user(user: int, work: Callable[[], object]) -> None:
    """Call `work` in a process of this user, a member of the group, with a umask of 002."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.umask(0o002)
            if REAL:
                os.setgroups([GROUP])
                os.setgid(user)  # a private group
                os.setuid(user)
            work()
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert not said, said


@pytest.mark.slow
def test_two_users_continue_with_each_others_files(shared: Path) -> None:
    root, name = shared / "results", RUN.key().name
    other = replace(RUN, cell=replace(RUN.cell, seed=1))
    folder = RUN.key().checkpoints_folder(root)

    def ann() -> None:
        make_plan([RUN, other], root).write(root)
        results.write(root, result(**vars_of(RUN)), MASKS)
        results.write_failure(root, other.key(), cause="boom", traceback="")
        Checkpoints(folder, "ann").save({"epoch": 0, "step": 1})
        claim = claims.take(root, RUN.key(), replace(Owner.current(), ticks=1))  # dead at once
        assert claim is not None
        claim._write()

    def bob() -> None:
        plan = make_plan([RUN, other], root, retry_failed=True)
        assert [planned.state for planned in plan.runs] == ["done", "failed"] and len(plan.todo) == 1
        make_plan([other], root).write(root)
        assert len(results.plans(root)) == 2
        results.write(root, result(**vars_of(RUN), accuracy=0.5), MASKS, redo=True)
        results.clear_failure(root, other.key())
        results.write(root, result(**{**vars_of(RUN), "seed": 1}), MASKS)
        claim = claims.take(root, RUN.key(), Owner.current())
        assert claim is not None, "the claim of a dead process can be taken over"
        mine = Checkpoints(folder, "bob")
        assert mine.load() is not None
        mine.save({"epoch": 0, "step": 2})
        mine.clear()
        assert not folder.exists()

    as_user(ANN, ann)
    as_user(BOB, bob)
    as_user(ANN, lambda: results.write(root, result(**vars_of(RUN)), MASKS, redo=True))
    assert results.names(root / "runs", ".json") >= {name}
    everything = list(root.rglob("*"))
    assert {place.stat().st_gid for place in everything} == {GROUP}
    assert all(stat.S_IMODE(place.stat().st_mode) & 0o020 for place in everything)


@pytest.mark.slow
def test_a_job_refuses_the_specification_of_another_user(shared: Path) -> None:
    root = shared / "results"
    place = root / "state" / "sweeps" / spec(root).sweep / "c001.json"
    as_user(ANN, lambda: spec(root).write())

    def bob() -> None:
        if not REAL:
            assert trust.read(place)
            return
        with pytest.raises(PaiBenchError, match=r"c001\.json belongs to user .*: a SLURM job trusts only files"):
            trust.read(place)
        with pytest.raises(PermissionError):
            place.write_bytes(b"{}")
        with pytest.raises(PermissionError):
            place.unlink()

    as_user(BOB, bob)
    as_user(ANN, lambda: trust.read(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o644 and not place.parent.stat().st_mode & 0o022
