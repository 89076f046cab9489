"""Record the kernels of one captured training step in three precisions."""

from __future__ import annotations

from collections import Counter, defaultdict

from torch.profiler import ProfilerActivity, profile

from tests.gpu_steps.common import REAL, cifar_like, record, synchronize
from tests.gpu_steps.training_step import started

STEPS = 10


def main() -> None:
    """Run the step."""
    data = cifar_like()
    for precision, last in (("ieee", False), ("tf32", True), ("bf16", True)):
        made = started(1, data, precision, last)
        activities = [ProfilerActivity.CUDA] if REAL else [ProfilerActivity.CPU]
        began = made.steps
        with profile(activities=activities) as profiled:
            made.run(STEPS)
            synchronize()
        steps = made.steps - began
        times: dict[str, float] = defaultdict(float)
        calls: Counter[str] = Counter()
        for event in profiled.events():
            duration = event.device_time if REAL else event.cpu_time
            times[event.name] += duration / steps
            calls[event.name] += 1
        top = sorted(times, key=lambda name: -times[name])[:20]
        record(
            "kernels",
            precision=precision,
            layout="NHWC" if last else "NCHW",
            per_step=sum(calls.values()) / steps,
            microseconds=sum(times.values()),
            top=[{"name": name[:120], "microseconds": times[name], "calls": calls[name] / steps} for name in top],
        )


if __name__ == "__main__":
    main()
