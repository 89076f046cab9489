"""`pai-bench speed`: forms of networks, interleaved timings, records, and their table and figure in reports."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.sparse import _semi_structured_conversions as conversions
from typer.testing import CliRunner

import pai_bench
from pai_bench import results
from pai_bench.analysis import speed as table
from pai_bench.analysis.collect import collect
from pai_bench.analysis.command import run as report
from pai_bench.analysis.figures import Options as FigureOptions
from pai_bench.analysis.figures.cost import Spot
from pai_bench.analysis.figures.speed import Measured, below
from pai_bench.analysis.selection import Selection
from pai_bench.cells import Cell
from pai_bench.cli.program import app
from pai_bench.errors import PaiBenchError
from pai_bench.models import build
from pai_bench.recipes import load
from pai_bench.results import speeds
from pai_bench.speed import forms, timing
from pai_bench.speed.command import Options, run, run_masks

from .test_results import result

CPU = torch.device("cpu")
QUIET = Console(file=io.StringIO())
OPTIONS = Options(("masked", "shrunk"), 4, 3, 1, "cpu", "float32", False, None, (), True)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def half(model: nn.Module) -> dict[str, Tensor]:
    """Prune the second half of the hidden units of every layer but the last."""
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.dim() > 1}
    for name in ("0.weight", "2.weight"):
        masks[name][len(masks[name]) // 2 :] = False
    return masks


def form(name: str, model: nn.Module, masks: dict[str, Tensor]) -> forms.Form:
    return forms.build(name, model, masks, (64,), CPU, torch.float32)


def test_sizes_of_forms_by_hand() -> None:
    model = mlp()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    dense, masked, shrunk = (form(name, model, half(model)) for name in ("dense", "masked", "shrunk"))
    parameters, products = 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10, 64 * 64 + 64 * 32 + 32 * 10
    assert (dense.parameters, dense.flops) == (masked.parameters, masked.flops) == (parameters, 2 * products)
    assert shrunk.parameters == 64 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    assert shrunk.flops == 2 * (64 * 32 + 32 * 16 + 16 * 10)
    x = torch.randn(5, 64)
    assert torch.allclose(masked.model(x), shrunk.model(x), atol=1e-5)
    assert not masked.model.get_parameter("0.weight")[32:].any() and not pai_bench.masks_of(masked.model)
    assert not masked.model.training and not torch.allclose(dense.model(x), masked.model(x))


def test_two_of_four_takes_the_linear_layers_with_the_pattern_and_a_kernel() -> None:
    model = mlp()
    masks = pai_bench.prune(model, [(torch.randn(8, 64), torch.arange(8))], "magnitude", 0.5, granularity="2:4")
    found = form("2:4", model, masks)
    converted = 64 * 64 + 64 * 32  # the last layer has 10 outputs, for which there is no kernel
    assert found.parameters == form("dense", model, masks).parameters - converted // 2
    assert found.flops == form("dense", model, masks).flops - converted
    with pytest.raises(PaiBenchError, match="no linear layer has the pattern 2:4"):
        form("2:4", model, half(model))


@pytest.mark.parametrize(
    ("names", "device", "dtype", "text"),
    [
        (("dense", "2:4"), "cpu", torch.float16, "there is no kernel for 2:4 on the device cpu"),
        (("shrunken",), "cpu", torch.float32, "unknown form"),
    ],
)
def test_a_form_without_a_kernel_is_refused(names: tuple[str, ...], device: str, dtype: torch.dtype, text: str) -> None:
    with pytest.raises(PaiBenchError, match=text):
        forms.check_forms(names, torch.device(device), dtype)


@pytest.mark.parametrize(
    ("capability", "dtype", "text"), [((7, 5), torch.float16, "7.5"), ((9, 0), torch.float32, "in f")]
)
def test_a_gpu_without_the_kernel_is_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, text: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    with pytest.raises(PaiBenchError, match=f"there is no kernel for 2:4 .*{text}"):
        forms.check_forms(("2:4",), torch.device("cuda"), dtype)
    forms.check_forms(("2:4",), torch.device("cuda"), torch.bfloat16) if capability > (8, 0) else None


def test_a_build_of_torch_without_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: False)
    with pytest.raises(PaiBenchError, match="lacks cuSPARSELt"):
        forms.check_forms(("2:4",), torch.device("cuda"), torch.float16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_of_two_of_four_lose_no_weight_in_the_compressed_format(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of the format in PyTorch stores two of four inputs, and the place of each in two bits."""
    compressed = torch.sparse.SparseSemiStructuredTensorCUTLASS
    monkeypatch.setattr(compressed, "_PROTOTYPE_WARNING_SHOWN", True)  # the warning imports torch._dynamo
    compressed._load_dispatch_table()
    model = mlp()
    masks = pai_bench.prune(model, [(torch.randn(8, 64), torch.arange(8))], "snip", 0.5, granularity="2:4")
    converted = form("2:4", model, masks).model.to(dtype)
    for name in ("0.weight", "2.weight"):
        weight = converted.get_parameter(f"model.{name}").detach()
        kept = torch.where(masks[name], model.get_parameter(name), 0).to(dtype)
        values, places = conversions.sparse_semi_structured_from_dense_cutlass(weight)
        assert values.numel() == weight.numel() // 2 and kept.any()
        assert torch.equal(conversions.sparse_semi_structured_to_dense_cutlass(values, places), kept)
        holder = nn.Flatten()
        holder.weight = nn.Parameter(compressed(weight.shape, values, places, None, None, None), False)
        # Bytes: two for each of the n / 2 values, and a quarter for the place of each.
        assert timing.peak_bytes(holder, torch.zeros(1, 4)) == weight.numel() + weight.numel() // 8


def test_the_caption_names_points_below_the_axis() -> None:
    points = [(98.0, 1.0, 0.0), (97.0, 1.5, 0.5), (96.0, 2.0, 0.9), (44.0, 7.73, 0.98)]
    measured = [Measured(Spot("snip", cost, mean, math.nan, 1), s, "shrunk", cost, cost) for mean, cost, s in points]
    assert below([measured], str.upper) == "Below the axis: SNIP at 98 % sparsity (accuracy 44 %, 7.73x)"
    assert not below([measured[:3]], str.upper)


class Takes(nn.Module):
    """A network whose passes take so many seconds of a simulated clock."""

    def __init__(self, clock: list[float], seconds: list[float], calls: list[str], name: str) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls, self.name = clock, seconds, calls, name

    def forward(self, x: Tensor) -> Tensor:
        self.clock[0] += self.seconds[len([c for c in self.calls if c == self.name]) % len(self.seconds)]
        self.calls.append(self.name)
        return x


def test_ratios_compare_timings_of_the_same_round_in_rotating_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    dense, fast = Takes(clock, [0.04], calls, "dense"), Takes(clock, [0.02], calls, "fast")
    noise, speedup = timing.interleaved([dense, fast], torch.zeros(1), 6)
    assert noise.ratio == pytest.approx((1, 1, 1)) and speedup.ratio == pytest.approx((2, 2, 2))
    assert noise.seconds == pytest.approx((0.04,) * 3) and speedup.seconds == pytest.approx((0.02,) * 3)
    assert (noise.repeats, speedup.repeats) == (1, 1)
    timed = calls[3 * 2 * timing.WARMUP :]
    assert timed == ["dense", "fast", "dense", "fast", "dense", "dense", "dense", "dense", "fast"] * 2


def test_short_passes_are_repeated_and_quantiles_show_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    dense, other = Takes(clock, [0.1], calls, "dense"), Takes(clock, [0.05, 0.1, 0.2], calls, "other")
    _, found = timing.interleaved([dense, other], torch.zeros(1), 9)
    assert found.ratio == pytest.approx((0.5, 1, 2))
    _, short = timing.interleaved([dense, Takes(clock, [0.001], calls, "short")], torch.zeros(1), 3)
    assert short.repeats == 20 and short.ratio == pytest.approx((100, 100, 100))


def test_one_interrupted_pass_does_not_shorten_the_timings_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter timings are interrupted less often, so that the network would seem faster than the others."""
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    interrupted = [0.001] * timing.WARMUP + [0.05] + [0.001] * 1000
    networks = [Takes(clock, seconds, calls, str(n)) for n, seconds in enumerate(([0.001], interrupted))]
    assert [found.repeats for found in timing.interleaved(networks, torch.zeros(1), 3)] == [20, 20]


def test_peak_memory_by_hand() -> None:
    model, x = mlp(), torch.randn(7, 64)
    held = sum(p.nbytes for p in model.parameters())
    # The outputs of the first layer and of its ReLU exist at the same time.
    assert timing.peak_bytes(model.eval(), x) == held + 2 * 7 * 64 * 4
    assert timing.peak_bytes(nn.Sequential(nn.Flatten(), nn.Identity()), x) == 0


def channels(sparsity: float) -> dict[str, np.ndarray]:
    network = build("conv8", 1, 8, 10)
    return {
        name: np.broadcast_to(
            (np.arange(len(p)) >= sparsity * len(p) * (len(p) > 10)).reshape(-1, *[1] * (p.dim() - 1)), p.shape
        ).copy()
        for name, p in network.named_parameters()
        if p.dim() > 1
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of one method at two sparsities and of the dense network, with masks."""
    values = load("quick", "digits", "conv8").values()
    about = {"recipe": "quick", "recipe_values": values, "layers": (), "empty_layers": ()}
    for sparsity in (0.5, 0.75):
        for seed in (0, 1):
            one = result(method="snip", sparsity=sparsity, seed=seed, mask_hash=f"{sparsity}", **about)
            results.write(tmp_path, one, channels(sparsity))
    results.write(tmp_path, result(method="dense", sparsity=0.0, seed=0, **about), channels(0.0))
    return tmp_path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_every_point_is_measured_once_and_shown_in_the_report(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "speed.csv"
    assert run(folder, Selection(), replace(OPTIONS, out=out), QUIET)
    found = lines(capsys)
    assert [(line["sparsity"], line["seed"], line["form"]) for line in found] == [
        (s, 0, f) for s in (0.5, 0.75) for f in ("dense", "masked", "shrunk")
    ]
    assert pd.read_csv(out)["ratio"].tolist() == pytest.approx([line["ratio"] for line in found])
    for line in found:
        assert line["ratio_low"] <= line["ratio"] <= line["ratio_high"] and line["seconds"] > 0
        assert (line["threads"], line["batch_size"], line["dtype"], line["rounds"]) == (1, 4, "float32", 3)
    sizes = [line["parameters"] for line in found]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[5] and sizes[3] == sizes[0]
    assert found[2]["peak_bytes"] < found[0]["peak_bytes"] and found[2]["flops"] < found[1]["flops"]

    def again(*arguments: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(timing, "interleaved", again)
        assert run(folder, Selection(), OPTIONS, QUIET)
        assert lines(capsys) == found
        with pytest.raises(AssertionError, match="measured again"):
            run(folder, Selection(), replace(OPTIONS, redo=True), QUIET)
        with pytest.raises(AssertionError, match="measured again"):
            run(folder, Selection(), replace(OPTIONS, batch_size=5), QUIET)
    capsys.readouterr()
    report(folder, None, (), False, QUIET, FigureOptions(figures=("speed",)))
    written = folder / "report"
    text = (written / "report.md").read_text()
    assert "## Measured speed" in text and "SNIP, 75 %, shrunk" in text and "speed.png" in text
    points = pd.read_csv(written / "speed-points.csv")
    assert points["method"].tolist() == ["dense", "snip", "snip"] and points["form"].tolist()[1:] == ["shrunk"] * 2
    assert points["speedup"].tolist()[1:] == pytest.approx([found[2]["ratio"], found[5]["ratio"]])
    page = (written / "report.html").read_text()
    assert '<section id="speed">' in page and "Accuracy against measured speed-up" in page
    assert (written / "speed.tex").read_text().count("snip") == 0  # display names


@pytest.mark.slow
def test_records_of_other_masks_are_left_out_and_measured_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, Selection(matches=lambda cell: cell.sparsity == 0.5), OPTIONS, QUIET)
    capsys.readouterr()
    rows = collect(folder).rows
    assert len(table.read(folder, rows)[0]) == 3
    assert table.read(folder, rows.assign(mask_hash="other"))[0].empty
    (place,) = (folder / "speed").rglob("*.json")
    place.write_text(place.read_text()[:100])
    measured, remarks = table.read(folder, rows)
    assert measured.empty and "1 records of pai-bench speed are damaged" in remarks[0]
    run(folder, Selection(), OPTIONS, QUIET)
    assert len(table.read(folder, rows)[0]) == 6


@pytest.mark.slow
def test_masks_of_files_are_measured_without_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for sparsity in (0.5, 0.75):
        masks = {name: torch.from_numpy(mask) for name, mask in channels(sparsity).items()}
        pai_bench.save_masks(f"s{sparsity}.npz", masks)
    files = [tmp_path / "s0.5.npz", tmp_path / "s0.75.npz"]
    run_masks(files, "digits", "conv8", replace(OPTIONS, out=tmp_path / "speed.csv"), QUIET)
    found = lines(capsys)
    assert [line["form"] for line in found] == ["dense", "masked", "shrunk"] * 2
    assert found[2]["parameters"] > found[5]["parameters"] and found[0]["model"] == "conv8"
    assert str(found[0]["method"]).startswith("file:s0.5-") and found[0]["sparsity"] != found[3]["sparsity"]
    assert {path.name for path in tmp_path.iterdir()} == {"s0.5.npz", "s0.75.npz", "speed.csv"}
    run_masks(files[:1], "digits", None, replace(OPTIONS, as_json=False), QUIET)  # the model of the data set
    assert "shrunk" in capsys.readouterr().out
    with pytest.raises(PaiBenchError, match=r"has no mask for|which model|has shape"):
        run_masks(files[:1], "digits", "lenet-300-100", OPTIONS, QUIET)
    with pytest.raises(PaiBenchError, match=r"no kernel for 2:4 on the device cpu"):
        run_masks(files[:1], "digits", None, replace(OPTIONS, forms=("2:4",)), QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--masks", "a.npz", "--methods", "snip"), "--methods cannot be used with --masks"),
        (("--model", "conv8"), "--model cannot be used without --masks"),
    ],
)
def test_options_of_mask_files_are_separate(arguments: tuple[str, ...], text: str) -> None:
    found = CliRunner().invoke(app, ["speed", *arguments])
    assert isinstance(found.exception, PaiBenchError) and text in str(found.exception)


@pytest.mark.slow
def test_a_damaged_result_does_not_stop_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broken,) = (p for p in results.result_paths(folder) if p.name.startswith("s0.5-seed0"))
    results.masks_path(broken).write_bytes(b"no masks")
    messages = Console(file=io.StringIO(), width=200)
    assert not run(folder, Selection(), OPTIONS, messages)
    assert "failed: " in messages.file.getvalue()  # type: ignore[attr-defined]
    assert {line["sparsity"] for line in lines(capsys)} == {0.75}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"device": "warp"}, "--device warp cannot be used"),
        ({"dtype": "float8"}, "--dtype float8 is unknown"),
        ({"forms": ("2:4",)}, "no kernel for 2:4 on the device cpu"),
    ],
)
def test_bad_options_are_refused(folder: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(PaiBenchError, match=text):
        run(folder, Selection(), replace(OPTIONS, **changes), QUIET)
    assert not (folder / "speed").exists()


@pytest.mark.slow
def test_results_without_masks_are_refused(folder: Path) -> None:
    for place in results.result_paths(folder):
        results.masks_path(place).unlink()
    with pytest.raises(PaiBenchError, match="has masks beside it"):
        run(folder, Selection(), OPTIONS, QUIET)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    setting = speeds.Setting("cpu", "float32", 2, 8, 3, "2")
    one = speeds.FormSpeed("dense", 1.0, 0.5, 2.0, 1.0, 0.9, 1.1, 1, 10, 20, 30)
    record = speeds.Speed(Cell("snip", "digits", "conv8", 0.5, 0), "quick", "f" * 16, "m", setting, (one,), {}, "now")
    place = speeds.write_speed(tmp_path, record)
    assert speeds.read_speed(place) == record and speeds.read_speeds(tmp_path) == ([record], [])
    assert str(setting) == "cpu, 2 threads, float32, batches of 8, 3 rounds"


@pytest.mark.slow
def test_a_narrower_dense_network_is_compared_with_the_one_of_full_width(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = "small-dense"
    about = {"recipe": "quick", "recipe_values": load("quick", "digits", "conv8").values(), "layers": ()}
    results.write(folder, result(method=method, sparsity=0.75, seed=0, empty_layers=(), **about), channels(0.0))
    chosen = Selection(matches=lambda cell: cell.method == method)
    assert run(folder, chosen, OPTIONS, QUIET)
    dense, narrow = lines(capsys)
    assert (dense["form"], narrow["form"]) == ("dense", "shrunk")
    assert narrow["parameters"] < 0.4 * dense["parameters"] and narrow["flops"] < dense["flops"]
