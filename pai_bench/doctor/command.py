"""`pai-bench doctor`: run all checks and print each as it completes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from pai_bench import results
from pai_bench.doctor import cluster, data, folders, machine
from pai_bench.doctor.checks import FAILED, OK, WARNING, Check
from pai_bench.errors import PaiBenchError


def run(
    results_folder: Path | None,
    data_dir: Path | None,
    *,
    profile: str | None,
    job: bool,
    as_json: bool,
    settings: PaiBenchError | None,
    say: Callable[[str], None],
) -> bool:
    """Run all checks and print each as it completes; returns True when none failed.

    `settings` is the error found in the user's profile or config file, None when they are valid.
    """
    root = results.resolve_root(results_folder)
    done = []

    def every() -> Iterator[Check]:
        if settings is not None:
            yield Check("settings", FAILED, settings.cause, settings.remedy)
        else:
            yield Check("settings", OK, "the user's profile and the config file can be read, where there are any")
        yield from machine.checks()
        yield from folders.checks(root)
        yield from data.checks(root, data_dir)
        yield from cluster.checks(root, data_dir, profile, job, say)

    for check in every():
        done.append(check)
        if not as_json:
            print(_line(check), flush=True)
    n_failed, n_warnings = (sum(check.state == state for check in done) for state in (FAILED, WARNING))
    if as_json:
        print(json.dumps({"ok": not n_failed, "checks": [asdict(check) for check in done]}, indent=1))
    say(f"{len(done)} checks: {n_failed} failed, {n_warnings} warnings")
    return not n_failed


def _line(check: Check) -> str:
    """Format a check as one line, with the remedy on a second line."""
    remedy = f"\n         {'':14} {check.remedy}" if check.remedy and check.state != OK else ""
    return f"{check.state:8} {check.name:14} {check.found}{remedy}"
