"""Tests of mask files: every format gives the same masks, invalid files are refused, and runs keep the exact masks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import pai_bench
from pai_bench import models
from pai_bench.cells import Cell, MethodSpec, kept_count
from pai_bench.errors import PaiBenchError
from pai_bench.pruning import fixed_masks
from pai_bench.pruning.pruner import Pruner
from pai_bench.results import mask_files
from pai_bench.results.mask_files import MaskFile
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable
from pai_bench.sweep.planning import checks
from pai_bench.sweep.planning import request as planning

MASKS = {"a.weight": np.array([[True, False, True], [False, False, True]]), "b.weight": np.array([[[True]], [[False]]])}


def write(folder: Path, form: str) -> Path:
    place = folder / f"{form}.{'npz' if form in ('ours', 'bool', 'numbers') else 'pt'}"
    tensors = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
    if form == "ours":
        mask_files.save(place, MASKS)
    elif form == "bool":
        np.savez(place, **dict(reversed(MASKS.items())))
    elif form == "numbers":
        np.savez(place, **{name: mask.astype(np.float32) for name, mask in MASKS.items()})
    elif form == "tensors":
        torch.save(tensors, place)
    elif form == "nested":
        torch.save({"epoch": 3, "masks": {name: mask.double() for name, mask in tensors.items()}}, place)
    else:  # as torch.nn.utils.prune, or a code that registers masks as buffers, in a data-parallel wrapper
        state = {f"module.{name}_mask": mask.float() for name, mask in tensors.items()}
        state |= {f"module.{name}_orig": torch.randn(mask.shape) for name, mask in tensors.items()}
        torch.save({"state_dict": {**state, "module.a.bias_mask": torch.ones(2)}}, place)
    return place


@pytest.mark.parametrize("form", ["ours", "bool", "numbers", "tensors", "nested", "state-dict"])
def test_every_form_gives_the_same_masks_and_hash(tmp_path: Path, form: str) -> None:
    found = mask_files.read(write(tmp_path, form))
    assert found.masks.keys() == MASKS.keys()
    assert all(found.masks[name].dtype == bool and (found.masks[name] == mask).all() for name, mask in MASKS.items())
    assert found.digest == MaskFile(Path("x.npz"), MASKS).digest
    assert found.digest != MaskFile(Path("x.npz"), {**MASKS, "a.weight": ~MASKS["a.weight"]}).digest


def test_a_parameter_may_have_the_name_of_an_argument_of_numpy(tmp_path: Path) -> None:
    masks = {name: np.arange(6).reshape(2, 3) % 2 == 0 for name in ("file", "allow_pickle", "conv.weight")}
    mask_files.save(tmp_path / "mine.npz", masks)
    with np.load(tmp_path / "mine.npz") as content:
        assert sorted(content.files) == sorted(masks)
        assert all((content[name] == mask).all() for name, mask in masks.items())


def test_masks_of_torch_prune_are_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    torch_prune.random_unstructured(model[0], "weight", amount=0.5)
    torch_prune.random_unstructured(model[2], "weight", amount=0.5)
    torch.save(model.state_dict(), tmp_path / "state.pth")
    masks = mask_files.read(tmp_path / "state.pth").masks
    assert set(masks) == {"0.weight", "2.weight"} and masks["0.weight"].sum() == 6


def test_masks_of_any_type_of_torch_are_read(tmp_path: Path) -> None:
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    forms = {"weight": mask.bfloat16(), "other": nn.Parameter(mask), "half": mask.half(), "bool": mask.bool()}
    forms |= {str(kind): mask.to(kind) for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16)}
    torch.save(forms, tmp_path / "masks.pt")
    found = mask_files.read(tmp_path / "masks.pt").masks
    assert found.keys() == forms.keys() and all(kept.tolist() == mask.bool().tolist() for kept in found.values())


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, 2, device="meta"), "float32 on meta"),
        (torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4_e2m1fn_x2 on cpu"),
    ],
)
def test_a_tensor_without_an_array_is_refused_by_name(tmp_path: Path, tensor: torch.Tensor, kind: str) -> None:
    torch.save({"a.weight": tensor}, tmp_path / "x.pt")
    with pytest.raises(PaiBenchError, match=f"a.weight is a tensor of {kind}"):
        mask_files.read(tmp_path / "x.pt")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("pickled code ran",))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.npz", None, "do not exist"),
        ("x.txt", b"", "unknown ending"),
        ("x.npz", b"PK\x03\x04 cut off", "cannot be read"),
        ("x.pt", pickle.dumps(Evil()), "cannot be read"),
        ("x.npz", {}, "are empty"),
        ("x.npz", {"a": np.array([[0.5, 1.0]])}, "other than 0 and 1"),
        ("x.npz", {"a": np.array([[2, 1]])}, "other than 0 and 1"),
        ("x.npz", {"a": np.array([["True", "False"]])}, "a is an array of <U5, not of numbers"),
        ("x.npz", {"a": np.ones(3)}, r"contain vectors of ones only: a \[3\]"),
        ("x.pt", b"hello", "torch.save has not written it"),
    ],
)
def test_invalid_masks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: object, words: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    with pytest.raises(PaiBenchError, match=words):
        mask_files.read(tmp_path / name)
    assert "pickled code ran" not in capsys.readouterr().out


def test_the_remedy_for_safetensors_converts_them(tmp_path: Path) -> None:
    with pytest.raises(PaiBenchError, match="unknown ending") as caught:
        mask_files.read(tmp_path / "m.safetensors")
    assert "torch.save(safetensors.torch.load_file('m.safetensors'), 'm.pt')" in caught.value.remedy


def test_the_sparsity_is_the_exact_fraction_of_removed_weights() -> None:
    generator = np.random.default_rng(0)
    for size in (7, 100, 14_288, 272_474):
        for kept in (1, size // 7, size - 1, int(generator.integers(1, size))):
            mask = np.zeros(size, dtype=bool)
            mask[:kept] = True
            sparsity = MaskFile(Path("x.npz"), {"w": mask}).sparsity
            assert kept_count(sparsity, size) == kept
    mask = np.arange(14_288) < 1429
    assert MaskFile(Path("x.npz"), {"w": mask}).sparsity == 0.9
    with pytest.raises(PaiBenchError, match="keeps no weight"):
        _ = MaskFile(Path("x.npz"), {"w": np.zeros(9, dtype=bool)}).sparsity


@pytest.mark.parametrize("path", ["masks.npz", "a b/ä ö,=:.v2.npz", "...npz", f"{'long' * 60}.pt"])
def test_the_methods_name_can_be_a_part_of_a_path_and_is_read_back(path: str) -> None:
    file = MaskFile(Path(path), MASKS)
    spec = MethodSpec.parse(file.method)
    assert str(spec) == spec.name == file.method and spec.hyperparameters == () and len(file.method) < 90
    assert "/" not in file.method and "," not in file.method
    assert MaskFile(Path("elsewhere", f"{file.method.removeprefix('file:')}.npz"), MASKS).method == file.method


def conv8_masks() -> dict[str, np.ndarray]:
    network = models.build("conv8", 1, 8, 10)
    models.initialise(network, "torch", 0)
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(weight.shape, generator=generator) < 0.2).numpy()
        for name, weight in prunable(network).items()
    }


def test_the_harness_keeps_exactly_the_masks_of_the_file(tmp_path: Path) -> None:
    masks = conv8_masks()
    mask_files.save(tmp_path / "mine.npz", masks)
    request = planning.Request(methods=(f"file:{tmp_path}/mine.npz", "snip"), sparsities=(0.5, 0.6), seeds=(0,))
    (run,) = (run for run in planning.expand(planning.with_masks(request)) if run.cell.method.startswith("file:"))
    checks.check([run], None)
    plugins = planning.keep_masks([run], tmp_path)
    assert mask_files.holds(plugins[0], mask_files.read(tmp_path / "mine.npz").digest)
    assert run.cell.method not in registry.names()
    network = models.build("conv8", 1, 8, 10)
    batches = [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))]
    found = Pruner(network, batches, run.scorer(), name=run.cell.method).masks(run.cell.sparsity)
    assert all((found[name].numpy() == mask).all() for name, mask in masks.items())
    before = run.fingerprint()
    changed = MaskFile(tmp_path / "mine.npz", {**masks, "conv1.weight": ~masks["conv1.weight"]})
    fixed_masks.register_masks(changed)
    assert planning.Run(Cell(changed.method, "digits", "conv8", 0.5, 0), run.recipe).fingerprint() != before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conv2.weight": None}, "has no mask for conv2.weight of model conv8"),
        ({"conv1.weight": np.ones((16, 1, 5, 5), bool)}, r"conv1.weight has shape \[16, 1, 5, 5\]"),
        ({"conv9.weight": np.ones((16, 1), dtype=bool) & [[0]]}, "conv9.weight, which model conv8"),
    ],
)
def test_masks_of_another_model_are_refused_before_anything_runs(
    tmp_path: Path, change: dict[str, np.ndarray | None], words: str
) -> None:
    masks = {name: mask for name, mask in {**conv8_masks(), **change}.items() if mask is not None}
    mask_files.save(tmp_path / "mine.npz", masks)
    request = planning.Request(methods=(f"file:{tmp_path}/mine.npz",), seeds=(0,))
    with pytest.raises(PaiBenchError, match=words):
        checks.check(planning.expand(planning.with_masks(request)), None)


def foreign(form: str, masks: dict[str, torch.Tensor]) -> object:
    """Return masks in the format of other code bases."""
    layers = {name.removesuffix(".weight"): mask.float() for name, mask in masks.items()}
    weights = {name: torch.randn(mask.shape) for name, mask in masks.items()}
    return {
        "list": list(layers.values()),
        "pairs": list(masks.items()),
        "mask": {"epoch": 3, "mask": masks},
        "list in a dict": {"masks": list(masks.values()), "state_dict": weights},
        "model": {"model": {f"{name}_mask": mask.float() for name, mask in masks.items()}, "optimizer": {"lr": 0.1}},
        "layer.mask": {**weights, **{f"{name}.mask": mask for name, mask in layers.items()}},
        "weight.mask": {f"{name}.mask": mask for name, mask in masks.items()},
        "layers": layers,
        "by layer": {name: {"weight": mask, "note": "x"} for name, mask in layers.items()},
        "compiled": {f"_orig_mod.{name}": mask for name, mask in masks.items()},
        "both": {"state_dict": {f"module._orig_mod.{name}_mask": mask for name, mask in masks.items()}},
        "sparse": {name: mask.float().to_sparse() for name, mask in masks.items()},
    }[form]


FORMS = [
    *("list", "pairs", "mask", "list in a dict", "model", "layer.mask", "weight.mask", "layers", "by layer"),
    *("compiled", "both", "sparse"),
]


def test_a_sparse_mask_with_an_index_outside_of_its_shape_is_refused(tmp_path: Path) -> None:
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        wrong = torch.sparse_coo_tensor(torch.tensor([[0], [9]]), torch.ones(1), (2, 3))
    torch.save({"0.weight": wrong}, tmp_path / "wrong.pt")
    with pytest.raises(PaiBenchError, match=r"wrong\.pt cannot be read"):
        pai_bench.load_masks(tmp_path / "wrong.pt", nn.Sequential(nn.Linear(3, 2)))


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_other_codes_are_read(tmp_path: Path, form: str) -> None:
    network = models.build("conv8", 1, 8, 10)
    masks = {name: torch.from_numpy(mask) for name, mask in conv8_masks().items()}
    torch.save(foreign(form, masks), tmp_path / "theirs.pt")
    for model in (network, nn.DataParallel(network)):
        found = pai_bench.load_masks(tmp_path / "theirs.pt", model)
        assert list(found) == list(masks) and all(torch.equal(found[name], mask) for name, mask in masks.items())
    pai_bench.apply_masks(network, found)
    assert all(torch.equal(mask, masks[name]) for name, mask in pai_bench.masks_of(network).items())
    file = mask_files.read(tmp_path / "theirs.pt")
    fixed_masks.register_masks(file)
    batches = [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))]
    pai_bench.remove_masks(network)
    kept = Pruner(network, batches, registry.get(file.method), name=file.method).masks(file.sparsity)
    assert all(torch.equal(kept[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("ending", [".npz", ".pt", ".pth"])
def test_masks_are_written_as_bool_arrays_by_name_and_read_back(tmp_path: Path, ending: str) -> None:
    masks = {name: torch.from_numpy(mask) for name, mask in MASKS.items()}
    place = tmp_path / f"masks{ending}"
    pai_bench.save_masks(place, masks)
    found = pai_bench.load_masks(place)
    assert list(found) == list(masks) and all(torch.equal(found[name], mask) for name, mask in masks.items())
    plain = np.load(place) if ending == ".npz" else torch.load(place, weights_only=True)
    assert all(
        plain[name].shape == mask.shape and str(plain[name].dtype).endswith("bool") for name, mask in masks.items()
    )
    np.savez(tmp_path / "packed.npz", **mask_files.pack(MASKS))
    np.savez(tmp_path / "unnamed.npz", *MASKS.values())
    assert mask_files.read(tmp_path / "packed.npz").digest == mask_files.read(place).digest
    assert list(mask_files.read(tmp_path / "unnamed.npz").masks) == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"epoch": 3, "note": "x"}, r"found a dict with epoch \(int\), note \(str\)"),
        (["a", "b", 1], r"found a list of 3 \(int, str\)"),
        ({"a.weight": torch.tensor([[0.5, -1.0]])}, "a.weight has values other than 0 and 1, from -1 to 0.5"),
        ([torch.ones(2, 3)], "is a list of 1 masks without names"),
    ],
)
def test_errors_describe_the_content_of_the_file(tmp_path: Path, content: object, cause: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(PaiBenchError, match=cause):
        pai_bench.load_masks(tmp_path / "x.pt")


def test_a_list_of_another_length_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2, 3)], tmp_path / "x.pt")
    with pytest.raises(
        PaiBenchError, match="is a list of 1 masks, and model Sequential has 2 prunable weights"
    ) as caught:
        pai_bench.load_masks(tmp_path / "x.pt", nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))
    assert "0.weight, 1.weight" in caught.value.remedy and "[2, 3]" in caught.value.remedy


def test_invalid_masks_are_not_written(tmp_path: Path) -> None:
    for masks, cause in (({}, "no masks to save"), ({"a": torch.ones(2)}, "not a tensor of torch.bool")):
        with pytest.raises(PaiBenchError, match=cause):
            pai_bench.save_masks(tmp_path / "x.npz", masks)
    with pytest.raises(PaiBenchError, match="unknown ending"):
        pai_bench.save_masks(tmp_path / "x.txt", {"a": torch.ones(2, dtype=torch.bool)})


@pytest.mark.parametrize("prefix", ["net.", "model.module.", "backbone._orig_mod."])
@pytest.mark.parametrize("ending", ["pth.tar", "ckpt", "bin"])
def test_masks_of_a_model_inside_of_another_are_found_in_checkpoints(tmp_path: Path, prefix: str, ending: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    masks = {"0.weight": torch.eye(2, 3).bool(), "2.weight": torch.eye(2).bool()}
    for key in ("{}weight", "{}weight_mask", "{}mask"):
        named = {prefix + key.format(name.removesuffix("weight")): mask.float() for name, mask in masks.items()}
        torch.save({"epoch": 3, "state_dict": named}, tmp_path / f"x.{ending}")
        found = pai_bench.load_masks(tmp_path / f"x.{ending}", model)
        assert found.keys() == masks.keys() and all(torch.equal(found[name], masks[name]) for name in masks)


def test_two_masks_of_one_weight_are_refused(tmp_path: Path) -> None:
    for other in ("module.0.weight", "0"):
        torch.save({"0.weight": torch.eye(2), other: torch.ones(2, 2)}, tmp_path / "x.pt")
        with pytest.raises(PaiBenchError, match=r"are both masks of 0\.weight"):
            pai_bench.load_masks(tmp_path / "x.pt", nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("name", ["foo", "('a', 'weight')", "other.weight", "other"])
def test_masks_of_one_foreign_name_are_refused(tmp_path: Path, name: str) -> None:
    torch.save({name: torch.ones(2, 3)}, tmp_path / "x.pt")
    with pytest.raises(PaiBenchError, match="does not count as prunable"):
        pai_bench.load_masks(tmp_path / "x.pt", nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))


def test_a_mask_of_channels_is_refused_and_not_taken_for_one_of_biases(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    for vector in (torch.ones(2), torch.tensor([1.0, 0.0])):
        torch.save({"0.weight": vector, "1.weight": torch.ones(2, 2)}, tmp_path / "x.pt")
        with pytest.raises(PaiBenchError, match=r"the mask of 0\.weight has shape \[2\]"):
            pai_bench.load_masks(tmp_path / "x.pt", model)
    torch.save({"0.bias": torch.ones(2), "1.weight": torch.ones(2, 2)}, tmp_path / "x.pt")
    assert list(pai_bench.load_masks(tmp_path / "x.pt", model)) == ["1.weight"]


def test_layers_without_a_mask_in_a_list_are_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    torch.save([torch.ones(2, 3), None, torch.ones(2, 2)], tmp_path / "x.PT")
    assert list(pai_bench.load_masks(tmp_path / "x.PT", model)) == ["0.weight", "2.weight"]


def test_damaged_files_and_other_archives_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.rand(64, 64) > 0.5}, tmp_path / "x.pt")
    content = bytearray((tmp_path / "x.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "y.pt").write_bytes(content)
    with pytest.raises(PaiBenchError, match=r"y\.pt are damaged: the checksum of"):
        pai_bench.load_masks(tmp_path / "y.pt")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.pt").read_bytes())
    with pytest.raises(PaiBenchError, match=r"contain .*, which is not an array"):
        pai_bench.load_masks(tmp_path / "x.npz")
