"""Write docs/gpu.md from the records of tests/gpu.py: python -m tests.gpu_page [gpu.jsonl]."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.gpu import STEPS, Records
from tests.gpu_page_cells import (
    CELLS,
    Record,
    cells_part,
    latest,
    masks_part,
    of_kind,
    parity_part,
    reference_part,
    table,
)
from tests.gpu_page_text import HEAD, NOTHING, OPEN

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpu.md"
RECORDS = ROOT / "results" / "reference" / "gpu.jsonl"
"""Released measurements; the file is absent as long as no GPU was measured."""

EPOCHS, STEPS_PER_EPOCH, EVALUATIONS = 160, 391, 16
"""The sweep that is extrapolated, of `CELLS` cells: epochs, training steps per epoch, evaluations per cell."""


def page(records: Sequence[Record]) -> str:
    """Return the Markdown text of the page."""
    rehearsed = any(record.get("rehearsal") for record in of_kind(records, "run"))
    if rehearsed or not any(record.get("gpu") for record in of_kind(records, "machine")):
        steps = [(f"`{step.name}`", step.title, f"{step.expected:.0f}") for step in STEPS]
        return "\n".join((HEAD + NOTHING, table(("step", "content", "about s"), steps), _targets([]), OPEN))
    measured = [_steps, _packs, _kernels, _scoring, cells_part, masks_part, parity_part, reference_part]
    parts = [_machine, _outcomes, _targets, *measured]
    return HEAD + "\n" + "\n".join(text for part in parts if (text := part(records)))


def _machine(records: Sequence[Record]) -> str:
    m = latest(records, "machine") or {}
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    dirty = " with uncommitted changes" if m.get("dirty_diff_hash") else ""
    return (
        f"Measured on {m['began'][:10]} on one {m['gpu']} ({m['gpu_bytes'] / 2**30:.0f} GiB; driver, clock and power "
        f"limit {m['driver']}), with CUDA {m['cuda']}, cuDNN {m['cudnn']}, {versions}; commit {m['commit']}{dirty}.\n"
    )


def _outcomes(records: Sequence[Record]) -> str:
    last = {record["step"]: record for record in of_kind(records, "end")}
    rows = [
        (f"`{s.name}`", s.title, last[s.name]["outcome"] if s.name in last else "not run",
         last[s.name]["seconds"] if s.name in last else "")
        for s in STEPS
    ]  # fmt: skip
    return "## Steps\n\n" + table(("step", "content", "outcome", "s"), rows)


def _step(records: Sequence[Record], precision: str, layout: str, mechanism: str) -> float | None:
    found = latest(records, "step", precision=precision, layout=layout, mechanism=mechanism)
    return found["seconds"] if found else None


def _default(records: Sequence[Record], precision: str, layout: str) -> float | None:
    """Return the seconds of a step as a sweep launches it: several steps per graph."""
    return _step(records, precision, layout, "k steps") or _step(records, precision, layout, "captured")


LAYOUTS = {"ieee": "NCHW", "tf32": "NHWC", "bf16": "NHWC"}
"""Memory layout that is compared for each precision."""


def _pack_gain(records: Sequence[Record], precision: str) -> tuple[float, int] | None:
    """Return the best ratio of a pack to one cell, and its size."""
    times = {record["size"]: record["seconds"] for record in of_kind(records, "pack", precision=precision)}
    gains = {size: times[1] / seconds for size, seconds in times.items() if size > 1 and 1 in times}
    best = max(gains, key=lambda size: gains[size], default=None)
    return None if best is None else (gains[best], best)


def _hours(records: Sequence[Record], precision: str) -> float | None:
    """Extrapolate the GPU-hours of the sweep from the best measured pack and the measured evaluation."""
    times = [record["seconds"] for record in of_kind(records, "pack", precision=precision)]
    evaluation = latest(records, "evaluation")
    if not times or evaluation is None:
        return None
    return CELLS * (EPOCHS * STEPS_PER_EPOCH * min(times) + EVALUATIONS * evaluation["seconds"]) / 3600


def _targets(records: Sequence[Record]) -> str:
    rows: list[tuple[str, str, str, str]] = []

    def add(what: str, target: str, value: float | None, text: str, met: bool) -> None:
        rows.append((what, target, "not measured" if value is None else text, "" if value is None else _verdict(met)))

    for precision, layout in LAYOUTS.items():
        eager, captured = (_step(records, precision, layout, m) for m in ("eager", "captured"))
        ratio = eager / captured if eager and captured else None
        add(f"captured step, {precision} {layout}", "≥ 4 × eager", ratio, f"{ratio or 0:.1f} ×", (ratio or 0) >= 4)
    for precision in ("tf32", "bf16"):
        gain = _pack_gain(records, precision)
        text = f"{gain[0]:.2f} × at {gain[1]} cells" if gain else ""
        add(f"best pack, {precision}", "≥ 1.5 × one cell", gain and gain[0], text, bool(gain and gain[0] >= 1.5))
    batch, step = latest(records, "batch", mechanism="graph"), _default(records, "tf32", "NHWC")
    share = batch["seconds"] / step if batch and step else None
    add("share of the loader, tf32", "≤ 3 %", share, f"{100 * (share or 0):.1f} %", (share or 1) <= 0.03)
    hours = _hours(records, "tf32")
    add(
        f"{CELLS} cells × {EPOCHS} epochs of ResNet-20 on CIFAR-10, tf32 (extrapolated)",
        "≤ 1.6 GPU-hours, stretch 0.8", hours, f"{hours or 0:.2f} GPU-hours", (hours or 9) <= 1.6,
    )  # fmt: skip
    masks = [record for record in of_kind(records, "mask") if "different" in record]
    different = sum(record["different"] for record in masks)
    add(
        "masks in float64 on ResNet-20", "equal to the CPU's", len(masks) or None,
        f"{different} weights differ in {len(masks)} methods", different == 0,
    )  # fmt: skip
    for precision in ("tf32", "bf16"):
        r = latest(records, "compilation", precision=precision)
        ratio = median(r["ratios"]) if r else None
        met = bool(r) and (ratio or 0) >= 1.2 and r["compiled_mechanism"] == "cuda-graph"
        add(f"compiled captured step, {precision}", "≥ 1.2 × captured", ratio, f"{ratio or 0:.2f} ×", met)
    prospr = latest(records, "prospr vgg19", dtype="float32")
    seconds = prospr["seconds"] if prospr else None
    add("ProsPr's meta-gradient, VGG-19, batch 512", "seconds", seconds, f"{seconds or 0:.1f} s", (seconds or 99) < 10)
    return "## Targets\n\n" + table(("quantity", "target", "measured", ""), rows)


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _steps(records: Sequence[Record]) -> str:
    last = {(r["precision"], r["layout"], r["mechanism"]): r for r in of_kind(records, "step")}
    if not last:
        return ""
    rows = [
        (*key, f"{1e3 * r['seconds']:.3f}", f"{100 * r['spread']:.0f} %", f"{1e6 * r['host_seconds']:.0f}")
        for key, r in last.items()
    ]
    heads = ("precision", "layout", "mechanism", "ms", "spread", "host µs")
    text = "## Training step of ResNet-20 at batch 128\n\nBatches included; medians. Captured: one step per graph; "
    text += "k steps: about 16 of them, as in a sweep.\n\n" + table(heads, rows)
    for r in (found for m in ("graph", "loader") if (found := latest(records, "batch", mechanism=m))):
        text += f"\nBatch by the {r['mechanism']}, without training: {1e6 * r['seconds']:.0f} µs.\n"
    if r := latest(records, "evaluation"):
        text += f"\nEvaluation of {r['images']:,} images: {r['seconds']:.3f} s, of which the host is busy for "
        text += f"{r['host_seconds']:.3f} s.\n"
    return text


def _packs(records: Sequence[Record]) -> str:
    last = {(r["precision"], r["size"]): r for r in of_kind(records, "pack")}
    if not last:
        return ""
    rows = [
        (
            precision,
            r["layout"],
            size,
            f"{1e3 * r['seconds']:.3f}",
            f"{last[precision, 1]['seconds'] / r['seconds']:.2f}",
        )
        for (precision, size), r in last.items()
        if (precision, 1) in last
    ]
    return "## Packs\n\n" + table(("precision", "layout", "cells", "ms per step of a cell", "× one cell"), rows)


def _kernels(records: Sequence[Record]) -> str:
    last = {r["precision"]: r for r in of_kind(records, "kernels")}
    sizes = latest(records, "sizes")
    if not last:
        return ""
    text = (
        "## Distance to the floor\n\nThe floor of a captured step is the sum of the times of its kernels; the rest of "
    )
    text += "the step is launch latency between the nodes of the graph, and the loader.\n\n"
    rows = []
    for precision, r in last.items():
        step = _default(records, precision, r["layout"])
        kernel = r["microseconds"] / 1e3
        rate = sizes["flops"] / (kernel * 1e9) if sizes and kernel else 0.0
        whole = f"{1e3 * step:.3f}" if step else "–"
        share = f"{100 * kernel / (1e3 * step):.0f} %" if step else "–"
        rows.append((precision, whole, f"{kernel:.3f}", share, f"{r['per_step']:.0f}", f"{rate:.1f}"))
    heads = ("precision", "step ms", "kernels ms", "share", "kernels per step", "TFLOP/s in kernels")
    text += table(heads, rows)
    for precision, r in last.items():
        top = [(f"`{k['name'][:70]}`", f"{k['microseconds']:.0f}", f"{k['calls']:.0f}") for k in r["top"][:8]]
        text += f"\nLongest kernels, {precision}:\n\n" + table(("kernel", "µs per step", "calls per step"), top)
    return text


def _scoring(records: Sequence[Record]) -> str:
    text = ""
    if last := {r["name"]: r for r in of_kind(records, "scoring")}:
        rows = [
            (n, f"{1e3 * r['seconds']:.1f}", f"{r['units']:.2f}", f"{100 * r['spread']:.0f} %") for n, r in last.items()
        ]
        text += "## Scoring\n\nResNet-20, in units of one float32 (IEEE) pass of 128 images.\n\n"
        text += table(("work", "ms", "passes", "spread"), rows)
    if vgg := {r["dtype"]: r for r in of_kind(records, "prospr vgg19")}:
        rows = [(d, f"{r['seconds']:.2f}", f"{(r['peak_bytes'] or 0) / 2**30:.1f}") for d, r in vgg.items()]
        text += "\nProsPr's meta-gradient for VGG-19 at batch 512:\n\n" + table(("type", "s", "GiB"), rows)
    if t := latest(records, "threshold"):
        rows = [(name, f"{1e3 * t[name]:.1f}") for name in ("kthvalue", "sort", "topk")]
        text += f"\nThreshold of {t['scores']:,} float64 scores:\n\n" + table(("way", "ms"), rows)
    if convolutions := {(r["channels"], r["side"]): r for r in of_kind(records, "float64 convolution")}:
        rows = [
            (c, s, f"{r['flops'] / r['cudnn'] / 1e12:.1f}", f"{r['flops'] / r['product'] / 1e12:.1f}")
            for (c, s), r in convolutions.items()
        ]  # fmt: skip
        text += "\nfloat64 convolutions, TFLOP/s of forward and backward pass:\n\n"
        text += table(("channels", "side", "cuDNN", "matrix product"), rows)
    if choice := latest(records, "float64 choice"):
        gains = ", ".join(f"{gain:.2f}" for gain in choice["gains"])
        text += f"\nThe measurement that chooses (products if ≥ {choice['threshold']} ×), repeated: {gains} ×; "
        text += f"chosen: {choice['mechanism']}.\n"
    if r := latest(records, "snip resnet50"):
        text += f"\nSNIP of ResNet-50 at 224 × 224, batch {r['batch']}, float64: {r['seconds']:.1f} s, "
        text += f"{(r['peak_bytes'] or 0) / 2**30:.1f} GiB.\n"
    for r in of_kind(records, "compilation"):
        text += f"\nCompiled against plain captured step, {r['precision']}: {median(r['ratios']):.2f} × "
        text += f"({r['ratios'][0]:.2f} to {r['ratios'][-1]:.2f}; {r['compiled_mechanism']}; first steps "
        text += f"{r['compile_seconds']:.0f} s).\n"
    return text


def main() -> None:
    """Write the page."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    PAGE.write_text(page(Records(source).read()))


if __name__ == "__main__":
    main()
