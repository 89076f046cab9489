"""Command `pai-bench speed`: measure the networks of finished results, one record each, or of mask files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from pai_bench import results
from pai_bench.analysis.collect import OURS, collect
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.markdown import to_markdown
from pai_bench.analysis.selection import Selection
from pai_bench.analysis.speed import grids
from pai_bench.cells import DENSE, Cell
from pai_bench.core.atomic import check_writable
from pai_bench.core.plugins import load_plugin
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.outcome import device_name
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner
from pai_bench.pruning.mask_io import load_masks
from pai_bench.recipes import Recipe
from pai_bench.recipes.selection import choose
from pai_bench.results import mask_files, speeds
from pai_bench.speed import forms
from pai_bench.speed.networks import forms_of, measured, narrow_forms

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
    device, dtype, names = _check(options)
    rows = _with_masks(selection.apply(collect(root)).rows)
    check_writable(root, "--results")
    setting, found, failed = _setting(options, device), [], False
    with _threads(options.threads):
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
    _show(found, options)
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
        built, absent = narrow_forms(names, wide, network, shape, device, dtype)
    else:
        built, absent = forms_of(names, network, masks, shape, device, dtype)
    found = measured(built, result.model, setting, shape, dtype)
    key = result.recipe, result.fingerprint, result.mask_hash
    return speeds.Speed(result.cell, *key, setting, found, absent, _now())


def run_masks(places: Sequence[Path], dataset: str, model: str | None, options: Options, messages: Console) -> None:
    """Measure a model (None: the data set's own) at initialisation under the masks of files, and print their table.

    Nothing is recorded.

    Raises: PaiBenchError for bad input, and for a form without a kernel on the device.
    """
    for plugin in options.plugins:
        load_plugin(plugin)
    device, dtype, names = _check(options)
    (choice, *_) = choose([dataset], [] if model is None else [model]).choices
    network = CellRunner(device="cpu").model(Run(Cell(DENSE, dataset, choice.model, 0.0, 0), choice.recipe))
    shape, found = loading.info(dataset).shape, []
    with _threads(options.threads):
        for place in places:
            file = mask_files.read(place)
            cell = Cell(file.method, dataset, choice.model, file.sparsity, 0)
            built, absent = forms_of(names, network, load_masks(place, network), shape, device, dtype)
            times = measured(built, choice.model, _setting(options, device), shape, dtype)
            speed = speeds.Speed(cell, "", "", file.digest, _setting(options, device), times, absent, _now())
            for form, reason in absent.items():
                messages.print(f"{place}: not {form}: {reason}", markup=False)
            messages.print(f"{place}: {_line(speed)}", markup=False, highlight=False)
            found.append(speed)
    _show(found, options)


def _check(options: Options) -> tuple[torch.device, torch.dtype, tuple[str, ...]]:
    """Return the device, the data type and the names of all forms.

    Raises: PaiBenchError for bad input, and for a form without a kernel on the device.
    """
    device, dtype = _device(options), _dtype(options)
    names = ("dense", *(form for form in options.forms if form != "dense"))
    forms.check_forms(names, device, dtype)
    if options.out is not None:
        check_writable(options.out.absolute().parent, "--out")
    return device, dtype, names


def _setting(options: Options, device: torch.device) -> speeds.Setting:
    sizes = options.threads, options.batch_size, options.rounds
    return speeds.Setting(device_name(device), options.dtype, *sizes, torch.__version__)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run with so many threads on a CPU; the number is global to the process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show(found: Sequence[speeds.Speed], options: Options) -> None:
    """Print the table or JSON, and write the file `out`."""
    lines = [line for speed in found for line in speed.rows()]
    if options.out is not None:
        pd.DataFrame(lines).to_csv(options.out, index=False)
    print(json.dumps(lines, indent=1) if options.as_json else to_markdown(grids(pd.DataFrame(lines))), end="")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(speed: speeds.Speed) -> str:
    parts = [f"{f.form} {f.ratio:.2f}x" for f in speed.forms if f.form != "dense"]
    return f"dense {1000 * speed.forms[0].seconds:.2f} ms, {', '.join(parts)}"
