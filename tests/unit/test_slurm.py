"""SLURM without a cluster: profiles, batch scripts, sizes, the ledger, and unusual responses of the controller."""

from __future__ import annotations

import errno
import io
import os
import pwd
from collections import Counter
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.results import ResultKey
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.settings import NAMES, RunSettings
from pai_bench.sweep.monitoring import command as watching
from pai_bench.sweep.slurm import answers, in_flight, ledger, profiles, sbatch, sizing
from pai_bench.sweep.slurm import command as slurm_command
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, clean_environment
from pai_bench.sweep.slurm.ledger import Ledger, open_chunks, sweep_chunks, user
from pai_bench.sweep.slurm.lock import submitting
from pai_bench.sweep.slurm.specification import Entry, Spec


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a user without settings on a host with SLURM commands; returns the folder of both."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "bin").mkdir()
    for name in ("srun", "sbatch", "squeue", "scontrol"):
        command(tmp_path, name, "exit 1")
    monkeypatch.setattr(in_flight, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(sbatch, "LOOKS", (0.0, 0.0))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def command(home: Path, name: str, text: str) -> None:
    place = home / "bin" / name
    place.write_text(f"#!/bin/bash\n{text}\n")
    place.chmod(0o755)


def controller(home: Path, rows: str = "", config: str = "ClusterName = here\\nMaxArraySize = 11") -> Controller:
    command(home, "squeue", f"printf '{rows}'")
    command(home, "scontrol", f"printf '{config}\\n'")
    return Controller()


def spec(root: Path, n_tasks: int = 2, **changes: object) -> Spec:
    tasks = tuple(
        tuple(
            Entry(Cell("snip", "digits", "conv8", 0.9, 2 * task + i), {"name": "quick"}, "0123456789") for i in (0, 1)
        )
        for task in range(n_tasks)
    )
    made = Spec(
        sweep="20260101T000000-abcdef",
        token="c001",
        settings=RunSettings(root, plugins=(Path("/a/method.py"),)),
        code={"pai-bench": "0"},
        any_code=False,
        requeue=True,
        gpus=1,
        patience=60.0,
        ended_jobs={"7": "FAILED"},
        tasks=tasks,
    )
    run = {name: changes.pop(name) for name in NAMES & changes.keys()}
    return replace(made, settings=replace(made.settings, **run), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_is_valid_and_has_a_summary(name: str) -> None:
    assert profiles.load(name).summary


def test_the_generic_profile_documents_every_key() -> None:
    text = (Path(profiles.__file__).parents[3] / "slurm" / "generic.toml").read_text()
    assert all(f"{key} =" in text for key in asdict(profiles.Profile("x")) if key not in ("name", "options"))


def test_user_profiles_override_built_in_ones_and_single_values_override_both(home: Path) -> None:
    folder = home / "config" / "pai-bench" / "slurm"
    folder.mkdir(parents=True)
    (folder / "cpu.toml").write_text('partition = "mine"\ntime = "1-00:00:00"\n[options]\nnice = 5')
    (folder / "lab.toml").write_text("gpus = 2")
    assert "lab" in profiles.names()
    profile = profiles.load("cpu", ("time=90min", "options.exclusive=true", "qos=low", "gpus=3"))
    assert (profile.partition, profile.time, profile.qos, profile.gpus) == ("mine", 90, "low", 3)
    assert profile.options == (("nice", "5"), ("exclusive", True))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('partitions = "x"', ["p.toml", "'partitions'", "partition"]),
        ("gpus = true", ["gpus", "whole number"]),
        ("cpus_per_task = 0", ["cpus_per_task", "1 or more"]),
        ('gpu_request = "gpu"', ["gpu_request", "gres"]),
        ('mem = "lots"', ["mem", "16G"]),
        ('time = "soon"', ["time", "4h"]),
        ('setup = "module load"', ["setup", "list"]),
        ("[options]\narray = 3", ["options.array", "pai-bench"]),
        ("[options]\nmem = 3", ["options.mem", "above [options]"]),
        ("partition", ["p.toml", "not valid TOML"]),
    ],
)
def test_profile_errors_name_the_file_and_the_key(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "p.toml").write_text(line)
    with pytest.raises(PaiBenchError) as caught:
        profiles.load(str(tmp_path / "p.toml"))
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(PaiBenchError, match="generic"):
        profiles.load("genric")
    with pytest.raises(PaiBenchError, match="key=value"):
        profiles.load("cpu", ("partition",))


def test_toml_files_of_windows_editors_are_read(tmp_path: Path) -> None:
    """Their first character may be a byte order mark, which TOML does not allow."""
    (tmp_path / "p.toml").write_text('partition = "short"\n', encoding="utf-8-sig")
    assert profiles.load(str(tmp_path / "p.toml")).partition == "short"
    packaged = resources.files("pai_bench.recipes").joinpath("quick.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(packaged, encoding="utf-8-sig")
    mine = recipes.load(str(tmp_path / "mine.toml"), "digits", "conv8")
    assert mine.train == recipes.load("quick", "digits", "conv8").train


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *((90, 90), ("90", 90), ("90min", 90), ("1.5h", 90), ("1d", 1440)),
        *(("1-00:00:00", 1440), ("01:30:00", 90), ("10:30", 11), ("0-02:00", 120)),
    ],
)
def test_durations_are_converted_to_minutes(text: str | int, minutes: int) -> None:
    assert profiles.minutes(text) == minutes


@pytest.mark.parametrize(
    ("request_", "line"),
    [("gres", "--gres=gpu:a100:2"), ("gpus_per_node", "--gpus-per-node=a100:2"), ("gpus", "--gpus=a100:2")],
)
def test_the_batch_script_contains_the_options_of_the_profile(tmp_path: Path, request_: str, line: str) -> None:
    profile = profiles.Profile(
        "x", gpus=2, gpu_type="a100", gpu_request=request_, setup=("module load x",), options=(("nice", "100"),)
    )
    made = sbatch.script(spec(tmp_path), sbatch.Request(profile, 60, 5, after="12"))
    wanted = [line, "--array=0-1%2", "--nice=100", "--requeue", "--signal=USR2@120", "--time=60", "module load x"]
    wanted += ["--ntasks-per-node=1", "--ntasks=1 "]
    wanted += ["--dependency=afterok:12", "--kill-on-invalid-dep=yes"]
    wanted += ["--comment=pai-bench:20260101T000000-abcdef:c001", "export SRUN_CPUS_PER_TASK"]
    assert all(word in made for word in wanted)
    assert "wckey" not in made and "--mem" not in made
    bare = replace(profile, use_srun=False, requeue=False, container="apptainer exec x.sif")
    made = sbatch.script(spec(tmp_path, n_tasks=1), sbatch.Request(bare, 60, 5))
    assert "--array" not in made and "srun --" not in made and "--no-requeue" in made
    assert "\nexec apptainer exec x.sif " in made and "--signal=B:USR2@120" in made


def test_task_sizes_and_time_limits() -> None:
    assert sizing.cells_per_task([60.0] * 1000, 10) == 45
    assert sizing.cells_per_task([60.0] * 20, 10) == 2, "at least as many tasks as may run at once"
    assert sizing.cells_per_task([9000.0] * 20, 2) == 1
    assert sizing.limit_minutes([[1.0]], None) == sizing.LEAST_MINUTES
    assert sizing.limit_minutes([[3600.0, 3600.0], [60.0]], None) == 242
    assert sizing.limit_minutes([[1.0]], 7) == 7
    short = profiles.Profile("x", signal_seconds=120)
    assert sbatch.signal_seconds(short, 1) == 20 and sbatch.signal_seconds(short, 60) == 120


def test_a_specification_survives_a_round_trip(tmp_path: Path) -> None:
    made = spec(tmp_path)
    assert Spec.read(made.write()) == made


@pytest.mark.parametrize(
    ("words", "too_large", "passing"),
    [
        ("Batch job submission failed: Invalid job array specification", True, False),
        ("AssocMaxSubmitJobLimit", True, True),
        ("Batch job submission failed: Resource temporarily unavailable", False, True),
        ("Unable to contact slurm controller (connect failure)", False, True),
        ("invalid partition specified: x", False, False),
    ],
)
def test_refusals_of_sbatch_are_classified(words: str, too_large: bool, passing: bool) -> None:
    refusal = answers.Refused(words)
    assert (refusal.too_large, refusal.passing) == (too_large, passing)


TAG = "pai-bench:20260101T000000-abcdef:c001"


def begun(root: Path, noted: bool = True, cluster: str = "here", **owner: object) -> None:
    """Record a chunk of two tasks as submitted, or as about to be submitted."""
    made = spec(root)
    made.write()
    ledger = Ledger(root, made.sweep)
    ledger.submitting(made, cluster, {**asdict(Owner.current()), **owner})
    if noted:
        ledger.submitted("c001", "5")


def test_cells_of_live_tasks_are_in_flight_and_cells_of_ended_tasks_are_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(home)
    rows = f"5_0|RUNNING|None|n1|{TAG}|{TAG}\\n5_1|FAILED|None|n1|{TAG}|x\\n6|RUNNING|None|n1|other|(null)\\n"
    asked = controller(home, rows)
    found = in_flight.survey(home, asked, heal=True)
    assert [(task.job, task.state) for task in found.tasks] == [("5_0", "RUNNING")]
    assert found.names() == {f"digits/conv8/snip/s0.9-seed{seed}-quick-01234567" for seed in (0, 1)}
    assert found.jobs == {"5_0": "RUNNING", "5_1": "FAILED"}
    assert asked.calls == {"squeue": 1, "scontrol": 1}
    # The sweep is closed only after the grace period, during which squeue may not show its tasks.
    assert len(in_flight.survey(home, controller(home), heal=True).names()) == 4 and open_chunks(home)
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    assert not in_flight.survey(home, controller(home), heal=True).names() and not open_chunks(home)


@pytest.mark.slow
def test_cells_are_unknown_when_the_controller_does_not_respond(home: Path) -> None:
    begun(home)
    command(home, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    command(home, "scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    found = in_flight.survey(home, Controller(), heal=True)
    assert len(found.unknown) == 4 and found.silent == "Unable to contact slurm controller" and open_chunks(home)
    command(home, "scontrol", "sleep 9")
    with pytest.raises(ControllerUnavailable, match=r"within 0 s"):
        Controller(seconds=0.2).limits()


def test_accounting_has_the_end_states_of_purged_jobs(home: Path) -> None:
    command(home, "sacct", "printf '5_0|NODE_FAIL\\n5_1|CANCELLED by 0\\n'")
    assert Controller().forgotten({"5_0", "5_1", "6"}) == {"5_0": "NODE_FAIL", "5_1": "CANCELLED"}
    command(home, "sacct", "printf 'JobID|State\\n5_[0-1%%1]|CANCELLED by 0\\n5_1 | FAILED |\\n5_1.batch|COMPLETED\\n'")
    assert Controller().forgotten({"5_0", "5_1", "6"}) == {"5_0": "CANCELLED", "5_1": "FAILED"}
    command(home, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert Controller().forgotten({"5_0"}) == {}


def test_accounting_never_makes_a_job_count_as_alive(home: Path) -> None:
    command(home, "sacct", "printf '5_0|RUNNING\\n5_1|PENDING\\n5_2|CANCELLED by 0\\n5_3| \\n'")
    assert Controller().forgotten({"5_0", "5_1", "5_2", "5_3"}) == {"5_2": "CANCELLED"}


def test_cells_of_another_cluster_are_unknown(home: Path) -> None:
    begun(home, cluster="elsewhere")
    found = in_flight.survey(home, controller(home), heal=True)
    assert len(found.unknown) == 4 and found.elsewhere and open_chunks(home)


@pytest.mark.parametrize("listed", [True, False])
def test_the_job_of_a_submitter_killed_before_recording_it_is_adopted(home: Path, listed: bool) -> None:
    begun(home, noted=False, pid=2**22 + 1)
    rows = f"9_0|PENDING|None||{TAG}|x\\n9_1|PENDING|None||{TAG}|x\\n" if listed else ""
    found = in_flight.survey(home, controller(home, rows), heal=True)
    assert len(found.names()) == (4 if listed else 0)
    assert [chunk.job for chunk in sweep_chunks(home, "20260101T000000-abcdef")] == ["9" if listed else None]


def test_cells_of_an_active_submitter_are_unknown(home: Path) -> None:
    begun(home, noted=False)
    assert len(in_flight.survey(home, controller(home), heal=True).unknown) == 4


def test_an_incomplete_ledger_line_does_not_hide_the_next(home: Path) -> None:
    begun(home, noted=False)
    with (home / "state" / "sweeps" / "20260101T000000-abcdef" / "ledger.jsonl").open("a") as file:
        file.write('{"event":"submi')
    Ledger(home, "20260101T000000-abcdef").submitted("c001", "5")
    assert [chunk.job for chunk in open_chunks(home)] == ["5"]


def stumbling(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """Make the first `times` openings of files with this name fail with ESTALE, as on NFS."""
    monkeypatch.setattr(ledger, "PAUSES", (0.0,) * 4)
    opened, count = Path.open, Counter[str]()

    def stumble(place: Path, *arguments: Any, **options: Any) -> Any:
        if place.name == name and count[name] < times:
            count[name] += 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(place))
        return opened(place, *arguments, **options)

    monkeypatch.setattr(Path, "open", stumble)


ROWS = f"5_0|PENDING|None||{TAG}|x\\n5_1|PENDING|None||{TAG}|x\\n"


@pytest.mark.parametrize("name", ["ledger.jsonl", "c001.json"])
def test_an_unreadable_file_is_an_error_and_not_an_empty_ledger(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    begun(home)
    asked = controller(home, ROWS)
    (home / "queue").write_text(ROWS.replace("\\n", "\n"))
    with monkeypatch.context() as patch:
        stumbling(patch, name, 3)
        assert len(in_flight.survey(home, asked, heal=True).names()) == 4, "a transient error is retried"
    with monkeypatch.context() as patch:
        stumbling(patch, name, 99)
        with pytest.raises(PaiBenchError, match=rf"{name} cannot be read: Stale file handle\n.*try again"):
            in_flight.survey(home, asked, heal=True)
        with pytest.raises(PaiBenchError, match=name):
            watching.run(home, None, as_json=True)
        with pytest.raises(PaiBenchError, match=name):
            sweep(home, "random")
    assert len(open_chunks(home)) == 1 and n_queued(home) == 2, "nothing is closed and nothing is submitted"


def test_an_unreadable_folder_is_an_error_and_not_an_empty_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PAUSES", (0.0,))
    begun(home)
    folder = home / "state" / "sweeps" / "20260101T000000-abcdef"
    folder.rename(home / "elsewhere")
    folder.symlink_to(folder)  # a loop of symbolic links: unreadable even for root
    with pytest.raises(PaiBenchError, match=r"ledger\.jsonl cannot be read"):
        open_chunks(home)


def test_missing_and_damaged_specifications_have_no_cells(home: Path) -> None:
    assert open_chunks(home / "nowhere") == []
    begun(home)
    (home / "state" / "sweeps" / "submitting").touch()
    (chunk,) = open_chunks(home)
    place = home / "state" / "sweeps" / chunk.sweep / "c001.json"
    for text in ("{", "{}", "[]"):
        place.write_text(text)
        assert chunk.tasks() == ()
    place.unlink()
    assert chunk.tasks() == ()


def test_the_lock_admits_one_submitter_and_replaces_a_dead_one(tmp_path: Path) -> None:
    said: list[str] = []
    owner = Owner.current()
    with (
        submitting(tmp_path, owner, said.append),
        pytest.raises(PaiBenchError, match="another sweep holds"),
        submitting(tmp_path, owner, said.append, patience=0),
    ):
        pass
    assert len(said) == 1
    lock = submitting(tmp_path, replace(owner, pid=2**22 + 1), said.append)
    lock.__enter__()
    with submitting(tmp_path, owner, said.append, patience=0):
        pass
    lock.__exit__(None, None, None)


def test_variables_of_an_enclosing_job_are_not_inherited() -> None:
    inside = {
        "SLURM_CONF": "/etc/x",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURMD_NODENAME": "n",
        "HOME": "/",
        "SBATCH_QOS": "q",
    }
    assert clean_environment(inside) == {"SLURM_CONF": "/etc/x", "HOME": "/", "SBATCH_QOS": "q"}


def test_the_users_squeue_filters_do_not_hide_jobs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(home)
    asked = controller(home)
    command(home, "squeue", f"[ -n \"$SQUEUE_PARTITION\" ] || printf '{ROWS}'")
    monkeypatch.setenv("SQUEUE_PARTITION", "another")
    assert len(in_flight.survey(home, asked, heal=True).names()) == 4
    filters = dict.fromkeys(("SQUEUE_USERS", "SACCT_LOCAL", "SCANCEL_STATE", "SCONTROL_ALL", "SINFO_PARTITION"), "x")
    assert clean_environment({**filters, "SBATCH_QOS": "q"}) == {"SBATCH_QOS": "q"}


def test_the_user_is_the_owner_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name = user()
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody")
    assert user() == name != "somebody"

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert user() == str(os.getuid())


def test_job_names_may_be_invalid_utf8(home: Path) -> None:
    begun(home)
    rows = f"6|RUNNING|None|n1|pr\\xfcfung|(null)\\n{ROWS}"
    assert len(in_flight.survey(home, controller(home, rows), heal=True).names()) == 4


RECIPE = recipes.load("quick", "digits", "conv8")


def sweep(
    home: Path,
    *methods: str,
    redo: bool = False,
    config: str = "MaxArraySize = 11",
    refuses_from: int = 999,
    answer: str = 'echo "Submitted batch job $job"',
    wait: bool = False,
    root: Path | None = None,
) -> tuple[int, str]:
    """Run a sweep with one cell per method, each in its own chunk, on a cluster whose jobs stay pending.

    Returns the exit code and the messages.
    """
    controller(home, config=f"ClusterName = here\\n{config}")
    command(home, "squeue", f"cat {home}/queue 2>/dev/null; true")
    command(
        home,
        "sbatch",
        f"""job=$((100 + $(cat {home}/queue 2>/dev/null | wc -l)))
        [ $job -ge {refuses_from} ] && echo 'sbatch: error: Invalid account or account/partition' >&2 && exit 1
        name=$(sed -n 's/^#SBATCH --job-name=//p' "${{@: -1}}" | tr -d "'\\"")
        echo "$job|PENDING|Resources||$name|$name" >> {home}/queue
        {answer}
        """,
    )
    asked = slurm_command.Sweep(
        runs=[Run(Cell(method, "digits", "conv8", 0.9, 0), RECIPE) for method in methods],
        settings=RunSettings(root or home, redo=redo),
        retry_failed=False,
        dry_run=False,
        as_json=False,
        lines=(),
    )
    options = slurm_command.Options(settings=("max_array=1",), cells_per_job=1, wait=wait)
    said = io.StringIO()
    code = slurm_command.run(asked, options, Console(file=said, width=200))
    return code, said.getvalue()


def n_queued(home: Path) -> int:
    return len((home / "queue").read_text().splitlines())


def key(method: str) -> ResultKey:
    return Run(Cell(method, "digits", "conv8", 0.9, 0), RECIPE).key()


def checkpoint(home: Path, method: str) -> Path:
    place = key(method).checkpoints_folder(home) / "e00001-s0000000.checkpoint"
    place.parent.mkdir(parents=True)
    place.touch()
    return place


@pytest.mark.slow
def test_redo_removes_the_checkpoints_of_submitted_cells_but_not_of_queued_ones(home: Path) -> None:
    sweep(home, "random")
    queued, new = checkpoint(home, "random"), checkpoint(home, "magnitude")
    assert sweep(home, "random", "magnitude", redo=True)[0] == 0
    assert queued.exists() and not new.exists() and n_queued(home) == 2


@pytest.mark.slow
def test_without_redo_checkpoints_are_kept(home: Path) -> None:
    place = checkpoint(home, "random")
    sweep(home, "random")
    assert place.exists() and n_queued(home) == 1


@pytest.mark.slow
def test_a_partly_refused_sweep_exits_with_1(home: Path) -> None:
    code, said = sweep(home, "random", "magnitude", refuses_from=101)
    assert code == 1 and n_queued(home) == 1 and "did not accept the other 1 tasks (Invalid account" in said
    assert sweep(home, "random", "magnitude")[0] == 0 and n_queued(home) == 2


@pytest.mark.slow
def test_a_sweep_whose_only_open_cells_have_failed_exits_with_1(home: Path) -> None:
    results.write_failure(home, key("random"), cause="boom", traceback="")
    code, said = sweep(home, "random")
    assert code == 1 and "1 failed" in said and not (home / "queue").exists()
    assert sweep(home, "random", wait=True)[0] == 1
    # With other work to submit, the exit code is that of the submission.
    assert sweep(home, "random", "magnitude")[0] == 0 and n_queued(home) == 1
    # While that work is queued, the sweep has not ended.
    assert sweep(home, "random", "magnitude")[0] == 0


@pytest.mark.slow
def test_without_job_arrays_each_task_is_a_job(home: Path) -> None:
    assert sweep(home, "random", "magnitude", config="MaxArraySize = 0")[0] == 0 and n_queued(home) == 2


@pytest.mark.slow
def test_a_job_running_only_in_accounting_does_not_block_its_cell(home: Path) -> None:
    command(home, "sacct", "echo '77|RUNNING'")
    owner = replace(Owner.current(), job="77", machine="another")
    claim = claims.take(home, key("random"), owner)
    assert claim is not None
    os.utime(claim.path, (1e9, 1e9))
    sweep(home, "random")
    assert n_queued(home) == 1
