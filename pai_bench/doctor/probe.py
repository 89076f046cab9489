"""The program of the job that doctor submits: `python -m pai_bench.doctor.probe QUESTION [--data-dir FOLDER] DATASETS`.

It examines the node and writes the answer next to the question.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from pai_bench.core.atomic import write_json


def look(question: str, data_dir: str | None, datasets: list[str]) -> None:
    """Write the content of the file `question` and a description of this node, as JSON, to `question`.answer.json."""
    import torch

    from pai_bench.datasets import files
    from pai_bench.experiment.provenance import source_hash

    place = Path(question)
    data = {}
    for name in datasets:
        found = files.check(name, None if data_dir is None else Path(data_dir))
        data[name] = None if found.problem is None else found.problem.cause
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    seen = {
        "question": place.read_text(encoding="utf-8"),
        "host": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": str(torch.__version__),
        "source_hash": source_hash(),
        "gpus": gpus,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "data": data,
    }
    write_json(place.with_suffix(".answer.json"), seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("question")
    parser.add_argument("--data-dir")
    parser.add_argument("datasets", nargs="*")
    given = parser.parse_args()
    look(given.question, given.data_dir, given.datasets)
