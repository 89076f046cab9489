"""Jobs on the development cluster execute no files that others can write, and no task is requeued forever."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.program import pai_bench, recipe
from tests.cluster.cluster import SLURM, Cluster, Sweep, wait_for

if not SLURM:
    pytest.skip("slurmctld is not installed: apt-get install slurm-wlm munge", allow_module_level=True)

pytestmark = pytest.mark.slow_cluster

CELL = ("--methods", "dense", "--seeds", "0")


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


def test_a_replaced_specification_or_plugin_is_refused_and_no_pickle_is_written(cluster: Cluster, folder: Path) -> None:
    """Results follow the group's umask 002; the folder of the sweep does not."""
    (folder / "mine.py").write_text("")
    (folder / "mine.py").chmod(0o644)
    sweep = Sweep(cluster, folder, *CELL, "--recipe", recipe(folder), "--plugin", "mine.py")
    before = os.umask(0o002)
    try:
        sweep.type("--wait")
        cluster.idle()  # a task lives on for a moment after its result, and a cell of a live task is not redone
        (result,) = (sweep.root / "runs").rglob("*.json")
        assert mode(result) == 0o664 and mode(result.parent) == 0o775, (
            "other members of the group can continue with these"
        )
        places = list((sweep.root / "state" / "sweeps").glob("*/**/*"))
        assert {mode(place) for place in places if place.is_dir()} == {0o755}
        assert {mode(place) for place in places if place.is_file()} <= {0o644, 0o600}
        assert not [place for place in sweep.root.rglob("*") if place.suffix == ".pkl"]
        for damage in ("specification", "plugin"):
            cluster.nodes("drain")  # no job begins before its files are replaced
            sweep.type("--redo")
            newest = max((sweep.root / "state" / "sweeps").iterdir())
            marker = folder / f"{damage}-ran"
            evil = f"open({str(marker)!r}, 'w')\n"
            (folder / "evil.py").write_text(evil)
            spec = newest / "c001.json"
            if damage == "specification":
                plain = json.loads(spec.read_text())
                spec.unlink()
                spec.write_text(json.dumps({**plain, "plugins": [str(folder / "evil.py")], "any_code": True}))
                spec.chmod(0o666)
            else:
                (folder / "mine.py").write_text(evil)
            cluster.nodes("resume")
            cluster.idle()
            assert not marker.exists()
            said = (next(newest.glob("c001/*_log.err"))).read_text()
            assert ("can be written by everybody" if damage == "specification" else "mine.py has changed") in said
            assert "Traceback" not in said
    finally:
        os.umask(before)


def test_a_task_warned_while_torch_loads_fails_after_three_stops(cluster: Cluster, folder: Path) -> None:
    """Use a stub of torch that takes ten minutes to load, and send each attempt the warning before that."""
    (folder / "slow").mkdir()
    begun = folder / "begun"
    (folder / "slow" / "torch.py").write_text(f"import time\nopen({str(begun)!r}, 'a').write('x')\ntime.sleep(600)\n")
    sweep = Sweep(cluster, folder, *CELL, "--recipe", recipe(folder))
    sweep.type("--slurm", f'setup=["export PYTHONPATH={folder / "slow"}"]')
    for count in (1, 2, 3):
        wait_for(lambda count=count: begun.exists() and begun.stat().st_size == count, f"attempt {count}")
        (job,) = cluster.running()
        cluster.ask("scancel", "--signal=USR2", job)
        wait_for(lambda count=count: sweep.output().count("by a signal before the work began") == count, "the stop")
        if count < 3:
            wait_for(lambda job=job: cluster.tasks()[job] == "PENDING", "the requeue")
            times = "once" if count == 1 else f"{count} times"
            assert f"job {job} was requeued {times}" in pai_bench(folder, "status", env=cluster.env).stdout
    cluster.idle()
    (note,) = (json.loads(path.read_text()) for path in (sweep.root / "state" / "failed").rglob("*.json"))
    assert "stopped 3 times before it had begun its work" in note["cause"] and "--slurm time=" in note["cause"]
    sweep.type("--wait")
    assert len(sweep.results()) == 1
