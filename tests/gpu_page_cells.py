"""Parts of docs/gpu.md about cells and masks, and helpers for all parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

Record = Mapping[str, Any]

CELLS = 90
"""Number of cells of the sweep that is extrapolated."""


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def of_kind(records: Sequence[Record], what: str, **values: object) -> list[Record]:
    """Return the records of one kind with the given values; later records of equal kind come last."""
    return [r for r in records if r["what"] == what and all(r.get(name) == value for name, value in values.items())]


def latest(records: Sequence[Record], what: str, **values: object) -> Record | None:
    """Return the last record of one kind with the given values."""
    found = of_kind(records, what, **values)
    return found[-1] if found else None


def number(value: object) -> str:
    """Return a value for a table; a dash for None."""
    return f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "–")


def cells_part(records: Sequence[Record]) -> str:
    """Return the cells of Fashion-MNIST, one of which was killed."""
    cells = of_kind(records, "cell")
    if not cells:
        return ""
    killed, continued = latest(records, "killed") or {}, latest(records, "continued") or {}
    text = "## Cells of Fashion-MNIST\n\n"
    text += (
        f"`kill -9` hit {killed.get('workers', 0)} worker(s) with {killed.get('results', 0)} results on disk; the same "
    )
    text += f"command ended with exit code {continued.get('exit_code')} and {continued.get('results')} results.\n\n"
    names = [name for name in cells[0] if name not in ("step", "what")]
    return text + table(names, [[number(cell.get(name)) for name in names] for cell in cells])


def masks_part(records: Sequence[Record]) -> str:
    """Return the numbers of weights that only one of two masks keeps."""
    last = {r["method"]: r for r in of_kind(records, "mask")}
    rows = [
        (method, r.get("kept", "–"), r.get("different", r.get("refused", "–")), number(r.get("seconds")),
         number(r.get("cpu_seconds")))
        for method, r in last.items()
    ]  # fmt: skip
    heads = ("method", "kept", "different", "GPU s", "CPU s")
    return "## Masks on the GPU and on the CPU\n\nfloat64, ResNet-20, 90 %.\n\n" + table(heads, rows) if rows else ""


def parity_part(records: Sequence[Record]) -> str:
    """Return the differences of accuracy between TF32 and IEEE float32, paired by cell."""
    found = {
        (r["precision"], r["method"], r["sparsity"], r["seed"]): r["accuracy"]
        for r in of_kind(records, "parity")
        if r["accuracy"] is not None
    }
    pairs: dict[tuple[str, float], list[float]] = {}
    for (precision, method, sparsity, seed), accuracy in found.items():
        if precision == "tf32" and ("ieee", method, sparsity, seed) in found:
            difference = 100 * (accuracy - found["ieee", method, sparsity, seed])
            pairs.setdefault((method, sparsity), []).append(difference)
    rows = [(*key, len(d), f"{mean(d):+.2f}", f"{min(d):+.2f} to {max(d):+.2f}") for key, d in sorted(pairs.items())]
    heads = ("method", "sparsity", "seeds", "mean, points", "range")
    text = "## Accuracy in TF32 minus accuracy in IEEE float32\n\nFashion-MNIST, paired by seed.\n\n"
    return text + table(heads, rows) if rows else ""


def reference_part(records: Sequence[Record]) -> str:
    """Return the finished cells of CIFAR-10 by method and sparsity, and the GPU-hours of all of them."""
    found = of_kind(records, "reference cell")
    last = {(r["method"], r["sparsity"], r["seed"]): r for r in found if r["accuracy"] is not None}
    groups: dict[tuple[str, float], list[Record]] = {}
    for (method, sparsity, _), r in sorted(last.items()):
        groups.setdefault((method, sparsity), []).append(r)
    rows = [
        (*key, len(rs), f"{100 * mean(r['accuracy'] for r in rs):.2f}", f"{mean(r['train_seconds'] for r in rs):.0f}")
        for key, rs in groups.items()
    ]
    hours = CELLS * mean(r["train_seconds"] for r in last.values()) / 3600 if last else 0.0
    text = f"## Reference cells of CIFAR-10\n\nResNet-20, recipe frankle, IEEE float32; {CELLS} of these cells take "
    text += f"{hours:.2f} GPU-hours.\n\n"
    return text + table(("method", "sparsity", "seeds", "accuracy, %", "seconds"), rows) if rows else ""
