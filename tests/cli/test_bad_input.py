"""Bad input gets a line of cause and a line of remedy, and exit code 2, before anything is started."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pai_bench.cli import program
from tests.cli.program import pai_bench, recipe

METHODS = """
from dataclasses import dataclass
from pai_bench.registry import register

@register("raises")
@dataclass(frozen=True)
class Raises:
    def __call__(self, problem):
        raise ZeroDivisionError("one by zero")

@register("shapes")
@dataclass(frozen=True)
class Shapes:
    def __call__(self, problem):
        return {name: w[:1] for name, w in problem.weights.items()}

@register("nan")
@dataclass(frozen=True)
class NaN:
    def __call__(self, problem):
        return {name: w * float("nan") for name, w in problem.weights.items()}

@register("few")
@dataclass(frozen=True)
class Few:
    def __call__(self, problem):
        return dict(list(problem.weights.items())[1:])

@register("wordy")
@dataclass(frozen=True)
class Wordy:
    word: str = ""
    def __call__(self, problem):
        return dict(problem.weights)

@register("nothing")
@dataclass(frozen=True)
class Nothing:
    def __call__(self, problem):
        return None
"""

MODELS = """
from torch import nn
from pai_bench.models import register_model

@register_model("norms")
def norms(channels, size, classes):
    return nn.Sequential(nn.BatchNorm2d(channels), nn.Flatten())

@register_model("broken")
def broken(channels, size, classes):
    return nn.Linear(-1, classes)
"""

# (arguments, words of the cause, words of the remedy)
CASES = [
    ("sweep --methods snipp", "unknown method 'snipp'", "did you mean snip?"),
    (
        "sweep --set data.mean=0.5,0.5 --set data.std=1,1",
        "has 2 values of data.mean, for the 1 channels of digits",
        "give one value per channel",
    ),
    ("sweep --methods synflow:rounds=0", "rounds must be at least 1, not 0", "synflow:rounds=100"),
    ("sweep --methods snip:bn=foo", "snip:bn must be 'train' or 'eval', not 'foo'", "name one of them"),
    ("sweep --methods snip:bm=eval", "unknown hyper-parameter of snip 'bm'", "did you mean bn?"),
    ("sweep --methods prospr:steps=three", "prospr:steps takes int", "prospr:steps=3"),
    ("sweep --methods prospr:variant=half", "'full' or 'first_order'", ""),
    ("sweep --methods snip:", "'snip:' cannot be read", "name:key=value"),
    ("sweep --methods snip,bn=eval", "belongs to no method", "snip:bn=eval"),
    ("sweep --controls shufle", "unknown control 'shufle'", "did you mean shuffle?"),
    ("sweep --controls ,", "empty list", ""),
    ("sweep --methods snip:control=flip", "unknown control 'flip'", "known: invert, quota-of, reinit, sample, shuffle"),
    ("sweep --methods random:control=shuffle", "random has no control shuffle", ""),
    ("sweep --datasets digit", "unknown data set 'digit'", "did you mean digits?"),
    ("sweep --models conv9", "unknown model 'conv9'", "did you mean conv8"),
    ("sweep --models vgg16-bn", "too few", "conv8"),
    ("sweep --recipe quik", "unknown recipe 'quik'", "did you mean quick?"),
    ("sweep --recipe frankle", "not meant for data set digits", "cifar10"),
    ("sweep --recipe typo-recipe.toml", "typo-recipe.toml: unknown key 'train.epoch'", "did you mean train.epochs"),
    ("sweep --recipe scheme.toml", "unknown initialisation scheme 'xavier'", "known: glorot-truncated, grasp"),
    ("sweep --sparsities 1", "1 is not in [0, 1)", ""),
    ("sweep --sparsities 0.99999 --models conv8", "0.99999 keeps none of the 14288 prunable weights", "lower"),
    (
        "prune --method snip --dataset digits --model conv8 --sparsity 0.99999 --out a.npz",
        "0.99999 keeps none",
        "lower",
    ),
    ("sweep --sparsities -0.1", "-0.1 is not in [0, 1)", ""),
    ("sweep --sparsities 90", "90 is not in [0, 1)", "did you mean 0.9?"),
    ("sweep --sparsities 98%", "98% is not in [0, 1)", "did you mean 0.98?"),
    ("sweep --sparsities much", "'much' is not a number", "0.9,0.98"),
    ("sweep --sparsities nan", "'nan' is not a number", "0.9,0.98"),
    ("sweep --sparsities ,", "empty list", ""),
    ("sweep --methods ,", "empty list", ""),
    ("sweep --seeds ,", "empty list", ""),
    ("sweep --datasets ,", "empty list", ""),
    ("sweep --sparsities 0.9 --densities 0.1", "--sparsities and --densities exclude each other", "give one"),
    ("sweep --seeds 4-0", "the range 4-0 is reversed", "did you mean 0-4?"),
    ("sweep --seeds one", "'one' is not a seed", "0-4,7"),
    ("sweep --filter metod=snip", "unknown field of --filter 'metod'", "did you mean method"),
    ("sweep --filter method=erkk", "leaves no cell", "--filter"),
    ("sweep --filter method=snp", "leaves no cell", "method 'snp' is not in the plan, did you mean snip"),
    ("sweep --filter method=SNIP", "leaves no cell", "method 'SNIP' is not in the plan, did you mean snip?"),
    ("sweep --set train.epochs=1", "train.warmup_epochs = 1", "--set train.warmup_epochs=0"),
    ("data fetch imagenet --data-dir .", "imagenet", ""),
    ("sweep --retry all", "--retry 'all'", "failed"),
    ("sweep --workers 0", "--workers", "--help"),
    ("sweep --frob", "No such option", "--help"),
    ("sweep --epochs 3", "No such option: --epochs", "--set train.epochs=3"),
    ("sweep --learning-rate=0.5", "No such option: --learning-rate", "--set train.lr=0.5"),
    ("prune --out a.npz --batch-size 7", "No such option", "--set train.batch_size=7 or --set scoring.batch_size=7"),
    ("sweep --device cuda", "No such option: --device", "CUDA_VISIBLE_DEVICES"),
    ("train --masks a.npz --gpu 0", "No such option: --gpu", "CUDA_VISIBLE_DEVICES"),
    ("sweep --steps 10", "No such option: --steps", "--set train.steps=10"),
    ("sweep --temperature 10", "No such option: --temperature", "--methods grasp:temperature=10"),
    ("sweep --methods SNIP", "unknown method 'SNIP'", "did you mean snip? known"),
    ("sweep --datasets CIFAR10", "unknown data set 'CIFAR10'", "did you mean cifar10? known"),
    ("sweep --models Conv8", "unknown model 'Conv8'", "did you mean conv8? known"),
    ("sweep --recipe QUICK", "unknown recipe 'QUICK'", "did you mean quick? known"),
    ("prune --methods snipp --out a.npz", "unknown method 'snipp'", "did you mean snip?"),
    ("prune --sparsities 0.8,0.9 --out a.npz", "the masks of one cell", "sweep takes lists"),
    ("sweep --sparsity 90", "90 is not in [0, 1)", "did you mean 0.9?"),
    ("sweep --seed 4-0", "the range 4-0 is reversed", "did you mean 0-4?"),
    ("sweep --methods snip --methods erk", "--methods was given twice", "in one list: --methods snip,erk"),
    ("sweep --method snip --methods erk --method x", "--methods was given 3 times", "--methods snip,erk"),
    ("sweep --sparsities 0.9 --sparsity 0.8", "--sparsities was given twice", "--sparsities 0.9,0.98"),
    ("sweep --workers 1 --workers 2", "--workers was given twice", "give --workers once"),
    ("cancel --filter method=snip --filter seed=0", "--filter was given twice", "--filter method=snip,seed<3"),
    ("prune --seed 0 --seed 1 --out a.npz", "--seed was given twice", "give --seed once"),
    ("data check --data-dir a --data-dir b", "--data-dir was given twice", "once"),
    ("config show --seeds 1 --seeds 2", "--seeds was given twice", "--seeds 0,1"),
    ("swep", "No such command", "--help"),
    ("sweep --config none.toml", "none.toml does not exist", "--config"),
    ("sweep --config broken.toml", "broken.toml is not valid TOML", "correct"),
    ("sweep --config typo.toml", "typo.toml: unknown key 'sedes'", "did you mean seeds"),
    ("sweep --config seed.toml", "seed.toml: seed is an option of prune and train, not a key of a sweep file", "seeds"),
    ("sweep --config sparsity.toml", "sparsity is an option of prune, not a key", "write sparsities instead"),
    ("config show -c out.toml", " and prune, not a key of a sweep file", "remove that line"),
    ("config show -c from.toml", " and data add, not a key of a sweep file", "remove that line"),
    (
        "prune -c lists.toml --out a.npz",
        "lists.toml: sparsities is a list for sweep, and prune takes one value",
        "sparsity",
    ),
    ("train -c lists.toml --masks a.npz", "lists.toml: seeds is a list for sweep, and train takes one", "--seed"),
    ("prune -c lists.toml --seed 1 --out a.npz", "sparsities is a list for sweep, and prune", "sparsity = …"),
    ("sweep --datasets cifar10 --data-dir .", "data set cifar10 is not on disk", "--data-dir"),
    ("sweep --results a-file/results", "cannot be written to: Not a directory", "--results"),
    ("sweep --dry-run --results a-file", "a-file is not a folder", "--results"),
    ("prune --method snip --dataset digits --model conv8 --out .", "--out . does not end in .npz", "--out masks.npz"),
    ("sweep --plugin none.py", "none.py is not a file", ""),
    ("sweep --plugin no-suffix", "no-suffix cannot be loaded: NameError", "-v"),
    ("sweep --plugin broken.py", "broken.py cannot be loaded: SyntaxError", ""),
    ("sweep --plugin bare.py", "bare.py cannot be loaded: ValueError: method 'bare': give the hyper-parameter 'k'", ""),
    ("sweep --plugin exits.py", "exits.py cannot be loaded: SystemExit: 4", "-v"),
    ("sweep --plugin methods.py --methods raises", "ZeroDivisionError: one by zero", "before any job"),
    (
        "sweep --plugin methods.py --methods shapes",
        "shapes returned [1, 1, 3, 3] for conv1.weight",
        "correct the method",
    ),
    ("sweep --plugin methods.py --methods nan", "scores for conv1.weight that are not finite", "correct the method"),
    ("sweep --plugin methods.py --methods few", "no scores for conv1.weight", "correct the method"),
    ("sweep --plugin methods.py --methods nothing", "nothing returned", "correct the method"),
    ("sweep --plugin models.py --models norms", "nothing to prune", "Conv"),
    ("sweep --plugin models.py --models broken", "broken cannot be built for digits", ""),
    (f"sweep --recipe {'r' * 190}.toml", "too long for the names of files", "shorter name"),
    (f"sweep --plugin methods.py --methods wordy:word={'w' * 250}", "too long for the name of a folder", "shorter"),
    ("report", "no finished result", "pai-bench sweep"),
    ("report --from none.csv", "none.csv does not exist", ""),
    ("list frobs", "unknown list 'frobs'", "methods"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    fast = Path(recipe(folder)).read_text()
    files = {
        "methods.py": METHODS,
        "models.py": MODELS,
        "broken.py": "def (",
        "exits.py": "import sys; sys.exit(4)",
        "bare.py": METHODS[: METHODS.index("@register")]
        + "@register('bare')\n@dataclass(frozen=True)\nclass Bare:\n    k: int\n",
        "broken.toml": "methods = [",
        "typo.toml": "sedes = '0'",
        "seed.toml": "seed = 7",
        "sparsity.toml": "sparsity = 0.5",
        "out.toml": "out = 'figures'",
        "from.toml": "from = 'figures'",
        "lists.toml": "seeds = '0-4'\nsparsities = [0.8, 0.9]\n",
        "typo-recipe.toml": fast.replace("epochs = ", "epoch = ", 1),
        f"{'r' * 190}.toml": fast,
        "scheme.toml": fast.replace('"torch"', '"xavier"'),
        "a-file": "",
        "no-suffix": "undefined",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("arguments", "cause", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_bad_input_is_refused_before_anything_is_started(folder: Path, arguments: str, cause: str, remedy: str) -> None:
    done = pai_bench(folder, *arguments.split())
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ") and cause in lines[0]
    assert lines[1].startswith("  ") and remedy in lines[1]
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert not (folder / "results").exists()


def test_tracebacks_are_shown_when_asked_for(folder: Path) -> None:
    done = pai_bench(folder, "sweep", "--plugin", "methods.py", "--methods", "raises", "-v")
    assert done.returncode == 2
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def _without_override() -> None:
    """Make permissions bind for root too: drop CAP_DAC_OVERRIDE (1) from what the next program may have."""
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")


def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = pai_bench(tmp_path, "sweep", "--results", "locked", before=_without_override)
    assert done.returncode == 2
    assert "cannot be written to: Permission denied" in done.stderr.splitlines()[-2]
    assert "--results" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "locked").iterdir()) == []


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.EACCES], ids=errno.errorcode.get
)
@pytest.mark.parametrize("verbose", [False, True], ids=["", "-v"])
def test_an_error_of_the_operating_system_is_printed_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, verbose: bool
) -> None:
    def refused(**_: object) -> None:
        raise OSError(code, os.strerror(code), "/disk/file")

    monkeypatch.setattr(program, "app", refused)
    monkeypatch.setattr(program, "messages", lambda: Console(stderr=True))
    monkeypatch.setattr(program, "say", lambda text: print(text, file=sys.stderr))
    monkeypatch.setattr(sys, "argv", ["pai-bench", *["-v"] * verbose])
    with pytest.raises(SystemExit) as ended:
        program.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and ("Traceback" in said) == verbose
    cause, remedy = said.splitlines()[-2:]
    assert cause.startswith("error: ") and "/disk/file" in cause and remedy.startswith("  ")
    assert os.strerror(code) in cause or "permission denied" in cause
    full = code in (errno.ENOSPC, errno.EDQUOT)
    assert ("free space or raise the quota (or name another folder: --results, --data-dir, --out)" in remedy) == full
    assert ("finished results are safe" in remedy) == (code != errno.EACCES)


def test_a_typo_in_the_users_profile_names_the_profile(tmp_path: Path) -> None:
    (tmp_path / "config" / "pai-bench").mkdir(parents=True)
    (tmp_path / "config" / "pai-bench" / "config.toml").write_text("resultz = 'x'")
    done = pai_bench(tmp_path, "report")
    assert done.returncode == 2
    assert "config.toml: unknown key 'resultz'" in done.stderr and "did you mean results" in done.stderr
