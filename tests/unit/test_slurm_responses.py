"""Lost, wrong or incomplete responses of SLURM: no job is forgotten, and no cell is submitted twice."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.monitoring import cancel
from pai_bench.sweep.slurm import answers, in_flight
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, tag
from pai_bench.sweep.slurm.ledger import Ledger, open_chunks, sweep_chunks, user
from tests.unit import test_slurm
from tests.unit.test_slurm import ROWS, TAG, begun, command, controller, n_queued, sweep

home = test_slurm.home
SWEEP = "20260101T000000-abcdef"
FAILED = "sbatch: error: Batch job submission failed: "
LOST = f"echo '{FAILED}Socket timed out on send/recv operation' >&2; exit 1"


def answer_of(home: Path, text: str) -> str:
    command(home, "sbatch", text)
    return answers.job_id(*answers.sbatch(["x"], {"PATH": str(home / "bin") + ":/usr/bin:/bin"}))


@pytest.mark.parametrize(
    "text",
    [
        "echo Submitted batch job 5",
        "echo Welcome to job 7 of the day; echo 'Submitted batch job 5 on cluster b'",
        "echo '5;cluster'",
        "echo 42 of 100 GB used; echo 42; echo Submitted batch job 5",
        "echo 'sbatch: warning: something' >&2; echo Submitted batch job 5",
        "echo Submitted batch job 5; exit 3",
        "echo Submitted batch job 5 >&2; exit 3",
        "printf '\\033[1mSubmitted batch job 5\\033[0m'",
    ],
)
def test_output_with_a_job_id_means_accepted(home: Path, text: str) -> None:
    assert answer_of(home, text) == "5"


@pytest.mark.parametrize("where", [">&2; exit 1", ">&2; exit 0", "; exit 1", "; exit 0"])
def test_explicit_refusals_are_found_wherever_wrappers_print_them(home: Path, where: str) -> None:
    with pytest.raises(answers.Refused, match=r"^Invalid account$"):
        answer_of(home, f"echo Welcome; echo '{FAILED}Invalid account' {where}")
    with pytest.raises(answers.Unanswered, match="Socket timed out"):
        answer_of(home, f"echo Welcome; echo '{FAILED}Socket timed out' {where}")


@pytest.mark.parametrize(
    ("text", "words", "remedy"),
    [
        (f"{FAILED}Invalid partition name specified", "Invalid partition name specified", "sinfo"),
        (f"{FAILED}Unable to contact slurm controller (connect failure)", "Unable to contact", "try again later"),
        (f"{FAILED}Invalid node name specified", "Invalid node name specified", "nodelist"),
        (f"{FAILED}AssocMaxSubmitJobLimit", "AssocMaxSubmitJobLimit", "wait until"),
        ("sbatch: error: Invalid --signal specification", "Invalid --signal specification", "signal_seconds"),
        (
            "sbatch: option '--pa=x' is ambiguous; possibilities: '--partition' '--parsable'\nTry \"sbatch --help\"",
            "option '--pa=x' is ambiguous",
            "whole name",
        ),
        (
            "sbatch: unrecognized option '--o=x'\nTry \"sbatch --help\" for more information",
            "unrecognized option '--o=x'",
            "[options]",
        ),
        (
            f"sbatch: error: Jobs here must name a project; you will not receive help\n{FAILED}Unspecified error",
            "Jobs here must name a project; you will not receive help; Unspecified error",
            "profile",
        ),
    ],
)
@pytest.mark.parametrize("code", [1, 255])
def test_explicit_refusals_are_quoted_once_with_a_remedy(
    home: Path, text: str, words: str, remedy: str, code: int
) -> None:
    (home / "said").write_text(f"{text}\n{text}\n")
    with pytest.raises(answers.Refused) as caught:
        answer_of(home, f"cat {home}/said >&2; exit {code}")
    assert str(caught.value).startswith(words) and "--help" not in str(caught.value)
    assert str(caught.value).count(words[:20]) == 1 and remedy in answers.explain(str(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        LOST,
        f"echo '{FAILED}Unable to contact slurm controller (receive failure)' >&2; exit 1",
        f"echo '{FAILED}Unable to contact slurm controller (send failure)' >&2; exit 1",
        f"echo '{FAILED}Zeitüberschreitung' >&2; exit 1",
        f"echo '{FAILED}Zero Bytes were transmitted or received' >&2; exit 1",
        f"echo '{FAILED}Unspecified error' >&2; exit 1",
        f"echo '{FAILED}Protocol authentication error' >&2; exit 1",
        "exit 0",
        "exit 1",
        "echo 'Welcome to job 7'",
        "echo 42; echo 5",
        "echo Submitted batch job 0",
        "kill -9 $$",
        "echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying' >&2; kill -9 $$",
        "exit 137",
    ],
)
def test_any_other_output_leaves_the_outcome_unknown(home: Path, text: str) -> None:
    with pytest.raises(answers.Unanswered, match=r"."):
        answer_of(home, text)


@pytest.mark.slow
def test_a_hanging_sbatch_leaves_the_outcome_unknown_and_a_missing_sbatch_is_an_error(home: Path) -> None:
    command(home, "sbatch", "exec sleep 9")
    with pytest.raises(answers.Unanswered, match=r"within 0 s"):
        answers.sbatch([], {"PATH": f"{home}/bin:/bin"}, seconds=0.1)
    with pytest.raises(PaiBenchError, match="cannot be started"):
        answers.sbatch([], {"PATH": str(home / "nowhere")})


def squeue(monkeypatch: pytest.MonkeyPatch, *lines: str) -> Controller:
    """A controller whose squeue prints these lines, followed by the fields after the state."""
    text = "".join(f"{line}|None||{tag(SWEEP, 'c001')}|\n" for line in lines)
    asked = Controller()
    monkeypatch.setattr(asked, "ask", lambda *_: text)
    return asked


def test_an_array_in_one_row_stands_for_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue prints such rows without -r, which wrappers of sites may leave out; rows of steps are left out."""
    lines = ("7_[1-2,5%2]|PENDING", " 7_0 | RUNNING ", "7_0.batch|RUNNING", "8+0|RUNNING", "9_[3,4-9:4]|PENDING")
    rows = squeue(monkeypatch, *lines).rows()
    assert [row.job for row in rows] == ["7_1", "7_2", "7_5", "7_0", "8", "9_3", "9_4", "9_8"]
    assert [row.index for row in rows] == [1, 2, 5, 0, 0, 3, 4, 8] and {row.state for row in rows} == {
        "PENDING",
        "RUNNING",
    }


@pytest.mark.parametrize("job", ["", "7_[1-3,...%2]", "7_[1-", "7_x", "x7", "7 8", "7_[]"])
def test_a_row_with_an_unreadable_id_leaves_the_state_of_all_jobs_unknown(
    monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    with pytest.raises(ControllerUnavailable, match="squeue returned"):
        squeue(monkeypatch, "7_0|RUNNING", f"{job}|RUNNING").rows()


@pytest.mark.parametrize(
    "output",
    [
        "echo '{row}'; printf '7_1|RUNN'",
        "printf '7_1|RUNNING|None|n1|pai-bench:2026'",
        "echo '{row}'; printf 7",
        "echo '{row}'; printf 7_",
        f"echo '7_[3-1]|PENDING|None|n1|{tag(SWEEP, 'c001')}|'",
        "echo '   7_0  debug pai-benc  ann  R  0:01  1 n1'",
        f'echo \'{{{{"name": "{tag(SWEEP, "c001")}"}}}}\'',
        "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)'",
        "echo '{row}'; echo 'squeue: error: cluster b: Connection refused' >&2",
    ],
)
def test_a_partial_answer_with_exit_code_0_leaves_the_state_of_all_jobs_unknown(home: Path, output: str) -> None:
    command(home, "squeue", output.format(row=f"7_0|RUNNING|None|n1|{tag(SWEEP, 'c001')}|"))
    with pytest.raises(ControllerUnavailable):
        Controller().rows()


def test_rows_are_read_beside_warnings_and_other_jobs(home: Path) -> None:
    """One of another job has a line break in its name, and the last row has no end, as in `printf %s "$(squeue)"`."""
    row = f"7_0|RUNNING|None|n1|{tag(SWEEP, 'c001')}|"
    text = f"CLUSTER: here\n1|RUNNING|None|n1|of\ntwo lines|\n   2  debug  bash  ann  R  0:01  1 n1\n{row}"
    command(home, "squeue", f"echo 'error: slurm.conf line 12: CommunicationParameters' >&2; printf '{text}'")
    assert [found.job for found in Controller().rows()] == ["7_0"]


@pytest.mark.parametrize("size", ["", "n/a", "10", "1_0"])
def test_a_damaged_answer_of_scontrol_gives_default_limits(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    asked = Controller()
    monkeypatch.setattr(asked, "ask", lambda *_: f"ClusterName = c\nMaxArraySize            = {size}\n")
    assert asked.limits().max_array_size == (10 if size == "10" else 1001)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [LOST, "exit 0"])
def test_a_job_whose_reply_was_lost_is_found_by_its_tag(home: Path, answer: str) -> None:
    code, said = sweep(home, "random", "magnitude", answer=answer)
    assert code == 0 and n_queued(home) == 2 and "did not accept" not in said
    assert [chunk.job for chunk in open_chunks(home)] == ["100", "101"]
    assert sweep(home, "random", "magnitude")[0] == 0 and n_queued(home) == 2


@pytest.mark.slow
def test_a_job_whose_reply_was_lost_and_that_squeue_does_not_show_stays_unknown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = f"mv {home}/queue {home}/hidden; {LOST}"
    code, said = sweep(home, "random", "magnitude", answer=lost)
    assert code == 1 and "it is unknown if SLURM accepted 1 tasks" in said and "Socket timed out" in said
    (chunk,) = open_chunks(home)
    folder = results.sweeps_folder(home) / chunk.sweep
    kept = {place.name for place in folder.rglob("*") if place.is_file()}
    assert {"ledger.jsonl", "c001.json", "sbatch.sh"} <= kept, "the job may still be in the queue and need its files"
    # After the submitter's end, the cell that may be queued is not submitted again, but the other one is.
    monkeypatch.setattr(Owner, "runs_here", lambda self: False)
    assert sweep(home, "random", "magnitude")[0] == 0 and n_queued(home) == 1
    assert len(open_chunks(home)) == 2
    with (home / "queue").open("a") as queue:
        queue.write((home / "hidden").read_text())
    assert sweep(home, "random", "magnitude")[0] == 0 and n_queued(home) == 2, "adopted"
    assert None not in [chunk.job for chunk in open_chunks(home)]


@pytest.mark.slow
def test_a_job_that_never_appears_is_submitted_again_after_the_grace_period(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(home, "random", answer=f"rm {home}/queue; {LOST}")
    monkeypatch.setattr(Owner, "runs_here", lambda self: False)
    code, said = sweep(home, "random")
    assert code == 0 and not (home / "queue").exists() and "are not submitted again now" in said
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    assert sweep(home, "random")[0] == 0 and n_queued(home) == 1


def asked(home: Path, *outputs: str) -> Controller:
    """Return a controller whose squeue prints the outputs one after the other, and then repeats the last."""
    made = controller(home)
    for number, output in enumerate(outputs):
        (home / f"answer-{number}").write_text(output.replace("\\n", "\n"))
    (home / "n").write_text("0")
    command(
        home,
        "squeue",
        f"n=$(cat {home}/n); [ -e {home}/answer-$((n + 1)) ] && echo $((n + 1)) > {home}/n; cat {home}/answer-$n",
    )
    return made


def test_rows_of_a_closed_sweep_count_and_reopen_it(home: Path) -> None:
    begun(home)
    Ledger(home, SWEEP).close()
    assert not open_chunks(home)
    assert len(in_flight.survey(home, asked(home, ROWS)).names()) == 4 and not open_chunks(home)
    assert len(in_flight.survey(home, asked(home, ROWS), heal=True).names()) == 4 and len(open_chunks(home)) == 1


def test_a_row_overrides_a_refusal_in_the_ledger(home: Path) -> None:
    begun(home, noted=False)
    Ledger(home, SWEEP).refused("c001", "Socket timed out")
    assert len(in_flight.survey(home, asked(home, ROWS), heal=True).names()) == 4
    assert [chunk.job for chunk in open_chunks(home)] == ["5"]


def test_an_unknown_user_in_a_ledger_does_not_hide_jobs(home: Path) -> None:
    begun(home)
    place = results.sweeps_folder(home) / "20250101T000000-abcdef" / "ledger.jsonl"
    place.parent.mkdir()
    lines = (results.sweeps_folder(home) / SWEEP / "ledger.jsonl").read_text()
    place.write_text(lines.replace(f'"user":"{user()}"', '"user":"nobody-known"'))
    found = controller(home)
    command(home, "squeue", f"case $* in *nobody-known*) exit 1;; esac; printf '{ROWS}'")
    flight = in_flight.survey(home, found, heal=True)
    assert flight.silent is None and len(flight.tasks) == 2


def test_a_closed_sweep_without_live_jobs_stays_closed(home: Path) -> None:
    begun(home)
    Ledger(home, SWEEP).close()
    ended = ROWS.replace("PENDING", "CANCELLED")
    found = in_flight.survey(home, asked(home, ended), heal=True)
    assert not found.names() and not found.ended and not open_chunks(home)


@pytest.mark.parametrize("rows", ["", f"5_0|PENDING|None||{TAG}|x\\n"])
def test_a_recent_task_without_a_row_is_in_flight(home: Path, rows: str) -> None:
    begun(home)
    found = in_flight.survey(home, asked(home, rows), heal=True)
    assert len(found.names()) == 4 and len(open_chunks(home)) == 1
    assert len(found.unlisted) == (0 if rows else 1)


@pytest.mark.slow
def test_an_old_task_has_ended_when_two_queries_do_not_show_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    begun(home)
    one = asked(home, "", ROWS)
    assert len(in_flight.survey(home, one, heal=True).names()) == 4 and len(open_chunks(home)) == 1
    assert one.calls["squeue"] == 2
    half = asked(home, f"5_0|PENDING|None||{TAG}|x\\n", ROWS)
    assert len(in_flight.survey(home, half, sure=True).names()) == 4
    assert not in_flight.survey(home, asked(home, "", ""), heal=True).names() and not open_chunks(home)


def claimed(home: Path, job: str, seconds_ago: float) -> None:
    owner = replace(Owner.current(), job=job, machine="another")
    claim = claims.take(home, test_slurm.key("random"), owner)
    assert claim is not None
    os.utime(claim.path, (time.time() - seconds_ago,) * 2)


@pytest.mark.parametrize(("job", "seconds_ago", "n_cells"), [("5_1", 0.0, 2), ("5_1", 900.0, 0), ("9_1", 0.0, 0)])
def test_a_task_with_a_live_claim_is_in_flight(
    home: Path, monkeypatch: pytest.MonkeyPatch, job: str, seconds_ago: float, n_cells: int
) -> None:
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    begun(home)
    claimed(home, job, seconds_ago)
    assert len(in_flight.survey(home, asked(home, ""), heal=True).names()) == n_cells
    assert len(open_chunks(home)) == (1 if n_cells else 0)


@pytest.mark.slow
def test_a_cell_with_a_live_claim_counts_as_running_without_a_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(home, "random")
    claimed(home, "100", 0.0)
    (home / "queue").write_text("")
    monkeypatch.setattr(in_flight, "GRACE_SECONDS", 0.0)
    assert "1 running, 0 to submit" in sweep(home, "random")[1] and n_queued(home) == 0
    assert len(open_chunks(home)) == 1


def test_tasks_whose_cells_all_have_results_have_ended(home: Path) -> None:
    begun(home)
    for seed in range(4):
        place = home / "runs" / f"digits/conv8/snip/s0.9-seed{seed}-quick-01234567.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    one = asked(home, "")
    assert not in_flight.survey(home, one, heal=True).names() and not open_chunks(home)
    assert one.calls["squeue"] == 1, "no second look is needed"


@pytest.mark.slow
def test_cancel_covers_closed_sweeps_and_jobs_without_rows(home: Path) -> None:
    command(home, "scancel", f'echo "$@" >> {home}/cancelled')
    begun(home)
    Ledger(home, SWEEP).close()
    asked(home, ROWS)
    said: list[str] = []
    assert cancel.run(home, None, True, said.append, lambda _: True), said
    Ledger(home, SWEEP).reopen()
    asked(home, "")
    assert cancel.run(home, None, True, said.append, lambda _: True), said
    assert (home / "cancelled").read_text() == "5\n5\n"
    Ledger(home, SWEEP).unanswered("c001", "Socket timed out")
    place = home / "state" / "sweeps" / SWEEP / "ledger.jsonl"
    place.write_text("\n".join(line for line in place.read_text().splitlines() if '"submitted"' not in line))
    assert not cancel.run(home, None, True, said.append, lambda _: True) and "cancel again in 5 minutes" in said[-2]
    assert (home / "cancelled").read_text().splitlines()[-1] == f"--me --name={TAG}"


def test_the_ledger_records_lost_replies_and_adoptions(home: Path) -> None:
    begun(home, noted=False)
    Ledger(home, SWEEP).unanswered("c001", "Socket timed out")
    assert [chunk.unanswered for chunk in sweep_chunks(home, SWEEP)] == [True]
    Ledger(home, SWEEP).adopted("c001", "7")
    (chunk,) = sweep_chunks(home, SWEEP)
    assert (chunk.unanswered, chunk.job) == (False, "7")
    lines = (results.sweeps_folder(home) / SWEEP / "ledger.jsonl").read_text().split("\n")
    assert [json.loads(line)["event"] for line in lines if line] == ["submitting", "unanswered", "adopted"]
