"""Command `pai-bench speed`: measure the networks of finished results, one record each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn

from pai_bench import results
from pai_bench.analysis.collect import OURS, collect
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.markdown import to_markdown
from pai_bench.analysis.selection import Selection
from pai_bench.analysis.speed import grids
from pai_bench.cells import DENSE
from pai_bench.core.atomic import check_writable
from pai_bench.core.plugins import load_plugin
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.outcome import device_name
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner
from pai_bench.recipes import Recipe
from pai_bench.results import speeds
from pai_bench.speed import forms, timing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    """Options of the command, as given by the user."""

    forms: tuple[str, ...]
    batch_size: int
    rounds: int
    threads: int
    device: str | None
    dtype: str
    redo: bool
    out: Path | None
    plugins: tuple[Path, ...]
    as_json: bool


def run(root: Path, selection: Selection, options: Options, messages: Console) -> bool:
    """Measure the results without a record in this setting, print the table of all; return False if one failed.

    The masks of the lowest seed of each method and sparsity are measured. Records are written one by one, so that an
    interrupted command continues with the missing ones.

    Raises: PaiBenchError for bad input, and for a form without a kernel on the device.
    """
    for plugin in options.plugins:
        load_plugin(plugin)
    device, dtype = _device(options), _dtype(options)
    names = ("dense", *(form for form in options.forms if form != "dense"))
    forms.check_forms(names, device, dtype)
    rows = _with_masks(selection.apply(collect(root)).rows)
    check_writable(root, "--results")
    if options.out is not None:
        check_writable(options.out.absolute().parent, "--out")
    # The number of threads is global to the process, and is restored at the end.
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    sizes = options.threads, options.batch_size, options.rounds
    setting = speeds.Setting(device_name(device), options.dtype, *sizes, torch.__version__)
    found, failed = [], False
    try:
        for number, row in enumerate(rows, start=1):
            result = results.read(Path(row["path"]))
            known = speeds.read_speed(speeds.speed_path(root, result.key, setting))
            if known is None or options.redo or known.mask_hash != result.mask_hash or not _has(known, names):
                try:
                    known = _measured(result, Path(row["path"]), names, setting, device, dtype)
                except (PaiBenchError, results.DamagedResult) as error:
                    messages.print(f"{number}/{len(rows)} {result.cell}: failed: {error}", markup=False)
                    failed = True
                    continue
                speeds.write_speed(root, known)
            for form, reason in known.absent.items():
                messages.print(f"{number}/{len(rows)} {result.cell}: not {form}: {reason}", markup=False)
            messages.print(f"{number}/{len(rows)} {result.cell}: {_line(known)}", markup=False, highlight=False)
            found.append(known)
    finally:
        torch.set_num_threads(before)
    lines = [line for speed in found for line in speed.rows()]
    if options.out is not None:
        pd.DataFrame(lines).to_csv(options.out, index=False)
    print(json.dumps(lines, indent=1) if options.as_json else to_markdown(grids(pd.DataFrame(lines))), end="")
    return not failed


def _device(options: Options) -> torch.device:
    try:
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).partition("\n")[0]
        raise PaiBenchError(f"--device {options.device} cannot be used: {line}", "write cpu, cuda or cuda:1") from None
    return device


def _dtype(options: Options) -> torch.dtype:
    if options.dtype not in DTYPES:
        raise PaiBenchError(f"--dtype {options.dtype} is unknown", f"write {', '.join(DTYPES)}")
    return DTYPES[options.dtype]


def _with_masks(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of pruned networks with masks, of the lowest seed of each point.

    Raises: PaiBenchError if there is none.
    """
    ours = rows[(rows["source"] == OURS) & (rows["method"] != DENSE)].sort_values("seed", kind="stable")
    first = ours.drop_duplicates(["method", "dataset", "model", "recipe", "sparsity"]).sort_index()
    found = [line for line in first.to_dict("records") if results.masks_path(Path(line["path"])).is_file()]
    if not found:
        raise PaiBenchError(
            "no result of a pruned network has masks beside it",
            "run a sweep before, for example pai-bench sweep --granularity channel, or name another --results",
        )
    return found


def _has(speed: speeds.Speed, names: tuple[str, ...]) -> bool:
    return set(names) <= {form.form for form in speed.forms} | speed.absent.keys()


def _measured(
    result: results.Result,
    place: Path,
    names: tuple[str, ...],
    setting: speeds.Setting,
    device: torch.device,
    dtype: torch.dtype,
) -> speeds.Speed:
    """Build the forms of a result's network at initialisation and measure them.

    Raises: PaiBenchError if the network cannot be built or run, DamagedResult for damaged masks.
    """
    recipe = Recipe.from_dict({**result.recipe_values, "name": result.recipe, "dataset": result.dataset})
    # At initialisation: the values of kept weights do not affect the time of a pass.
    network = CellRunner(device="cpu").model(Run(result.cell, recipe))
    masks = {name: torch.from_numpy(mask) for name, mask in results.read_masks(place).items()}
    shape = loading.info(result.dataset).shape
    if is_small_dense(result.method):
        wide = CellRunner(device="cpu").model(Run(replace(result.cell, method=DENSE, sparsity=0.0), recipe))
        built, absent = _narrow_forms(names, wide, network, shape, device, dtype)
    else:
        built, absent = _forms(names, network, masks, shape, device, dtype)
    x = torch.randn(setting.batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    try:
        peaks = [timing.peak_bytes(form.model, x) for form in built]
        times = timing.interleaved([form.model for form in built], x, setting.rounds)
    except torch.OutOfMemoryError:
        raise PaiBenchError(f"{result.model} does not fit in the memory of the device", "lower --batch-size") from None
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise PaiBenchError(
            f"a pass of {result.model} in {setting.dtype} fails: {line}", "choose another --dtype"
        ) from error
    forms_ = [
        speeds.FormSpeed(
            form=form.name,
            **dict(zip(("seconds_low", "seconds", "seconds_high"), time.seconds, strict=True)),
            **dict(zip(("ratio_low", "ratio", "ratio_high"), time.ratio, strict=True)),
            repeats=time.repeats,
            parameters=form.parameters,
            flops=form.flops,
            peak_bytes=peak,
        )
        for form, time, peak in zip(built, times, peaks, strict=True)
    ]
    key = result.recipe, result.fingerprint, result.mask_hash
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return speeds.Speed(result.cell, *key, setting, tuple(forms_), absent, ended)


def _forms(
    names: tuple[str, ...],
    network: nn.Module,
    masks: Mapping[str, Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[forms.Form], dict[str, str]]:
    """Return the forms of a network, and the reasons of those that it does not have."""
    built, absent = [], {}
    for name in names:
        try:
            built.append(forms.build(name, network, masks, shape, device, dtype))
        except PaiBenchError as error:
            if name in ("dense", "masked"):
                raise
            absent[name] = error.cause
    return built, absent


def _narrow_forms(
    names: tuple[str, ...],
    wide: nn.Module,
    narrow: nn.Module,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[list[forms.Form], dict[str, str]]:
    """Return the network of full width as "dense" and the narrower one, which has no masks, as "shrunk"."""
    found = [forms.build("dense", model, {}, shape, device, dtype) for model in (wide, narrow)]
    built = [found[0], *([replace(found[1], name="shrunk")] if "shrunk" in names else [])]
    return built, {name: "a narrower dense network has no masks" for name in names if name not in ("dense", "shrunk")}


def _line(speed: speeds.Speed) -> str:
    parts = [f"{f.form} {f.ratio:.2f}x" for f in speed.forms if f.form != "dense"]
    return f"dense {1000 * speed.forms[0].seconds:.2f} ms, {', '.join(parts)}"
