"""Script that measures the time to plan and submit ten thousand cells, and counts the calls of SLURM commands.

    python -m tests.cluster.scale [CELLS]

The tasks are submitted in held state, so none of them runs. The script then repeats the sweep command, which has
nothing to submit, and runs `pai-bench status`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.program import pai_bench, recipe
from tests.cluster.cluster import Cluster, Sweep


def main(n_cells: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pai-", dir="/tmp"))
    cluster = Cluster.up(folder / "slurm", MAX_ARRAY="1001", MAX_JOBS=str(2 * n_cells))
    try:
        sparsities = ",".join(f"{i / 100:g}" for i in range(1, 100))
        seeds = f"0-{round(n_cells / 100) - 1}"
        cells = ("--methods", "random", "--sparsities", sparsities, "--seeds", seeds)
        sweep = Sweep(cluster, folder, *cells, "--recipe", recipe(folder), "--slurm", "options.hold=true")
        for words, more in [("submitted", ("--cells-per-job", "1")), ("typed again", ())]:
            began = time.monotonic()
            said = sweep.type(*more).splitlines()
            print(f"{words} in {time.monotonic() - began:.1f} s:")
            print("\n".join(f"    {line[:150]}" for line in said if line.startswith(("plan", "SLURM", "submitted"))))
        began = time.monotonic()
        shown = pai_bench(folder, "status", env=cluster.env)
        print(f"status in {time.monotonic() - began:.1f} s, exit code {shown.returncode}")
    finally:
        cluster.down()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
