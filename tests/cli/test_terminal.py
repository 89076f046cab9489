"""Terminals without Unicode, interrupts, and the precedence of options that are given in several ways."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from pai_bench.cli import program
from tests.cli.program import PAI_BENCH, environment, pai_bench, recipe

RUN = ("sweep", "--methods", "prospr:lr=0.1", "--sparsities", "0.5", "--seeds", "0", "--workers", "1")


def on_terminal(folder: Path, *arguments: str, **settings: str) -> tuple[int, bytes]:
    """Run a command on a terminal of 80 columns to its end; return the exit code and all that it shows."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {**environment(folder), "TERM": "xterm", "COLUMNS": "80", **settings}
    shown = b""
    with subprocess.Popen(
        [*PAI_BENCH, *arguments], cwd=folder, env=environ, stdin=side, stdout=side, stderr=side, start_new_session=True
    ) as process:
        os.close(side)
        with suppress(OSError):  # the end of a terminal's output
            while part := os.read(main, 4096):
                shown += part
    os.close(main)
    return process.returncode, shown


def test_ascii_terminals_get_ascii(tmp_path: Path) -> None:
    """The plan, the bar of a real run and the tables that follow it."""
    ascii_only = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    code, shown = on_terminal(tmp_path, *RUN, "--recipe", recipe(tmp_path), **ascii_only)
    assert code == 0 and shown.isascii() and b"Traceback" not in shown, shown
    assert b"digits - conv8" in shown and b"2/2 done" in shown and b"------" in shown, shown
    code, shown = on_terminal(tmp_path, "status", **ascii_only)
    assert code == 0 and shown.isascii() and b"2 done" in shown, shown
    code, shown = on_terminal(tmp_path, "list", "methods", "--long", **ascii_only)
    assert code == 0 and shown.isascii() and b"prospr" in shown and b"?" * 3 not in shown, shown


def test_typed_densities_beat_the_environment_and_filters_are_canonical(tmp_path: Path) -> None:
    env = {"PAI_BENCH_SPARSITIES": "0.9"}
    asked = ("sweep", "--methods", "prospr:steps=10,lr=0.5", "--densities", "0.25", "--seeds", "0", "--dry-run")
    done = pai_bench(tmp_path, *asked, "--filter", "method=prospr:lr=0.5,steps=10", env=env)
    assert done.returncode == 0, done.stderr
    assert "sparsities 0.75" in done.stderr and "1 to run" in done.stderr


EARLY = """
import os, signal, sys

class Attribute:
    def __set_name__(self, owner, name):  # an error in it becomes the cause of a RuntimeError before Python 3.12
        os.kill(os.getpid(), signal.SIGINT)

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == MODULE:
            type("Class", (), {"attribute": Attribute()}) if IN_A_CLASS else os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = sys.argv[1:]
from pai_bench.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "in_a_class"),
    [
        *((name, False) for name in ("typer", "pai_bench.cli.sweep", "pai_bench.cli.listing", "torch")),
        *((name, True) for name in ("typer", "torch")),
    ],
)
def test_an_interrupt_during_an_import_ends_the_command_in_one_line(
    tmp_path: Path, module: str, in_a_class: bool
) -> None:
    arguments = ["pai-bench", "list", "methods"] if module != "torch" else ["pai-bench", "sweep", "--dry-run"]
    early = EARLY.replace("MODULE", repr(module)).replace("IN_A_CLASS", str(in_a_class))
    done = subprocess.run(
        [sys.executable, "-c", early, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("interrupted")


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("sweep --seeds 0", "interrupted: finished cells are kept; the same command resumes from here"),
        ("train --masks a.npz", "interrupted: finished cells are kept; the same command resumes from here"),
        ("merge a b", "interrupted: finished cells are kept; the same command resumes from here"),
        ("data fetch cifar10", "interrupted: downloaded parts of files are kept; the same command resumes from here"),
        *(
            (name, "interrupted")
            for name in ("status", "logs snip", "cancel --yes", "report", "doctor", "list methods")
        ),
        *((name, "interrupted") for name in ("prune --out a.npz", "data add cifar10", "data check", "config show", "")),
    ],
)
def test_the_message_of_an_interrupt_names_the_files_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
    command: str,
    line: str,
) -> None:
    def interrupted(**_: object) -> None:
        raise error

    monkeypatch.setattr(program, "app", interrupted)
    monkeypatch.setattr(program, "say", lambda text: print(text, file=sys.stderr))
    monkeypatch.setattr(sys, "argv", ["pai-bench", *command.split()])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, f"{line}\n")


def test_an_interrupt_at_any_moment_has_no_traceback(tmp_path: Path) -> None:
    for pause in (0.02, 0.1, 0.3):
        started = subprocess.Popen(
            [*PAI_BENCH, "list", "methods"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(pause)
        os.kill(started.pid, signal.SIGINT)
        _, err = started.communicate(timeout=300)
        if started.returncode not in (0, -signal.SIGINT):  # before Python runs, the signal ends the process itself
            assert "cells" not in err and "pai_bench" not in err, err
