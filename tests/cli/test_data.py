"""`pai-bench data`, and a user's data set from its file to its results."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from pai_bench.cli import main
from pai_bench.core.plugins import load_plugin
from pai_bench.datasets import loading
from pai_bench.errors import PaiBenchError
from tests.cli import program

PLUGIN = '''
import numpy as np
from pai_bench.data_files import Archive, File, Info, Source, damaged, register_dataset, register_source


@register_dataset("blobs", Info(channels=1, size=8, classes=3, train=60, test=30))
def blobs(root):
    """Three kinds of noise."""
    draws = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = draws.integers(0, 80, (90, 1, 8, 8)) + 80 * y[:, None, None, None]
    x = x.astype(np.uint8)
    return x[:60], y[:60], x[60:], y[60:]


def read(folder, part):
    y = np.arange(4) % 2
    content = (folder / f"{part}.bin").read_bytes()
    if len(content) != 16:
        raise damaged(folder / f"{part}.bin", "it has not 16 bytes")
    return np.frombuffer(content, np.uint8).reshape(4, 1, 2, 2), y


files = tuple(File(f"{part}.bin", MD5) for part in ("train", "test"))
archives = tuple(Archive(file.name, MD5, (f"http://127.0.0.1:9/{file.name}",)) for file in files)
register_source("bins", Source(Info(1, 2, 2, 4, 4), "bins", files, read, archives))
'''
CONTENT = bytes(range(16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plug-in, its data in origin/ and a copy that is not the original in other/."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    for name, content in (("origin", CONTENT), ("other", bytes(16))):
        (tmp_path / name).mkdir()
        for part in ("train", "test"):
            (tmp_path / name / f"{part}.bin").write_bytes(content)
    (tmp_path / "mine.py").write_text(PLUGIN.replace("MD5", repr(hashlib.md5(CONTENT).hexdigest())))
    return tmp_path


def data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `pai-bench data …`, in this process."""
    monkeypatch.setattr(sys, "argv", ["pai-bench", "data", *words, "--data-dir", "data", "--plugin", "mine.py"])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_copies_are_added_listed_and_checked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> str:
        code, out, _ = data(capsys, monkeypatch, "list", "--json")
        assert code == 0
        return str({line["name"]: line["state"] for line in json.loads(out)}["bins"])

    assert state() == "missing"
    (folder / "data/bins").mkdir(parents=True)
    (folder / "data/bins/train.bin").write_bytes(b"half")
    listed = data(capsys, monkeypatch, "list")[1].splitlines()
    (place,) = (n for n, line in enumerate(listed) if line.startswith("bins "))
    assert "refused" in listed[place] and "an incomplete copy of bins: test.bin is missing" in listed[place + 1]
    (folder / "broken").mkdir()
    for part in ("train", "test"):
        (folder / "broken" / f"{part}.bin").write_bytes(b"short")
    code, _, err = data(capsys, monkeypatch, "add", "bins", "--from", "broken", "--accept-checksum")
    assert code == 2 and "it has not 16 bytes" in err
    assert state() == "refused", "what cannot be read is not accepted"
    code, out, err = data(capsys, monkeypatch, "add", "bins", "--from", "other")
    assert (code, out) == (2, "") and len(err.splitlines()) == 2 and "--accept-checksum" in err
    assert data(capsys, monkeypatch, "add", "bins", "--from", "other", "--accept-checksum")[0] == 0
    assert state() == "accepted"
    (folder / "data/bins/train.bin").write_bytes(b"short")
    assert state() == "refused"
    code, out, err = data(capsys, monkeypatch, "check")
    assert (
        code == 1
        and "changed since this copy of bins was accepted" in err
        and ["bins", "refused"] in [line.split()[:2] for line in out.splitlines()]
    )
    listed = data(capsys, monkeypatch, "list")[1].splitlines()
    assert listed[0].split() == ["name", "state", "size", "place"]
    (place,) = (n for n, line in enumerate(listed) if line.startswith("bins "))
    assert "refused" in listed[place] and "changed since this copy of bins was accepted" in listed[place + 1]
    assert data(capsys, monkeypatch, "add", "bins", "--from", "origin")[0] == 0
    assert state() == "official" and data(capsys, monkeypatch, "check", "bins", "blobs")[0] == 0
    code, out, _ = data(capsys, monkeypatch, "list")
    assert code == 0 and any(line.split()[:2] == ["blobs", "plug-in"] for line in out.splitlines())


def test_the_remedy_for_a_linked_copy_links_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "other").rename(folder / "my copy")
    code, _, err = data(capsys, monkeypatch, "add", "bins", "--from", "my copy", "--link")
    words = shlex.split(err.splitlines()[1].partition("pai-bench data ")[2])
    assert code == 2 and words == [
        *("add", "bins", "--from", str(folder / "my copy"), "--accept-checksum", "--link", "--data-dir", "data")
    ]
    assert not (folder / "data/bins").exists()
    assert data(capsys, monkeypatch, *words[:-2])[0] == 0
    assert (folder / "data/bins/train.bin").readlink() == folder / "my copy/train.bin"


def test_a_failed_fetch_is_reported_in_two_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = data(capsys, monkeypatch, "fetch", "bins")
    errors = err[err.index("error:") :].splitlines()
    assert (code, out, len(errors)) == (1, "", 2) and "Connection refused" in errors[0] and "login node" in errors[1]
    code, _, err = data(capsys, monkeypatch, "fetch", "imagenet")
    assert code == 2 and "image-net.org" in err
    code, _, err = data(capsys, monkeypatch, "fetch", "cifar")
    assert code == 2 and "did you mean cifar10" in err
    mirror = f"file://{folder / 'origin'}"
    assert data(capsys, monkeypatch, "fetch", "bins", "--mirror", mirror)[0] == 0
    assert sorted(path.name for path in (folder / "data/bins").iterdir()) == ["test.bin", "train.bin"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("size=8", "size=9"), "images (60, 1, 8, 8) and labels (60,), not (60, 1, 9, 9)"),
        (("train=60", "train=61"), "images (60, 1, 8, 8) and labels (60,), not (61, 1, 8, 8)"),
        (("np.uint8", "float"), "images float64 and labels int64, not uint8"),
        (("classes=3", "classes=2"), "labels run from 0 to 2, not 0 to 1"),
    ],
)
def test_a_plugin_data_set_that_differs_from_its_info_is_refused(
    folder: Path, change: tuple[str, str], words: str
) -> None:
    (folder / "mine.py").write_text((folder / "mine.py").read_text().replace(*change, 1))
    load_plugin(folder / "mine.py")
    with pytest.raises(PaiBenchError, match="data set blobs differs from its Info: its training ") as refused:
        loading.load("blobs", folder)
    assert words in refused.value.cause and "correct Info(…) in register_dataset('blobs', …)" in refused.value.remedy


def test_a_plugin_reader_that_differs_from_its_info_is_refused(folder: Path) -> None:
    text = (folder / "mine.py").read_text().replace("np.arange(4) % 2", "np.arange(4)")
    (folder / "mine.py").write_text(text)
    load_plugin(folder / "mine.py")
    (folder / "origin").rename(folder / "bins")
    with pytest.raises(PaiBenchError, match="data set bins differs from its Info: its training labels run from 0 to 3"):
        loading.load("bins", folder)


def test_results_of_a_plugin_data_set_record_its_copy(folder: Path) -> None:
    recipe = folder / "mine.toml"
    recipe.write_text(program.FAST.replace("EPOCHS", "1").replace("datasets.digits", "datasets.blobs"))
    command = ("sweep", "--plugin", "mine.py", "--datasets", "blobs", "--models", "conv8", "--recipes", "mine.toml")
    command += ("--methods", "snip", "--sparsities", "0.9", "--seeds", "0", "--where", "debug")
    command += ("--set", "data.split=test,validation")
    done = program.pai_bench(folder, *command)
    assert done.returncode == 0, done.stderr
    found = program.results(folder / "results")
    assert len(found) == 4 and len({result["recipe"] for result in found.values()}) == 2
    (origin,) = {result["provenance"]["data_origin"] for result in found.values()}
    assert origin.startswith("plug-in:")
    # Only the training set was read and hashed, because the validation split is a part of it.
    assert len({result["provenance"]["data_hash"] for result in found.values()}) == 2
    plugin = folder / "mine.py"
    plugin.write_text(plugin.read_text().replace("default_rng(0)", "default_rng(1)"))
    refused = program.pai_bench(folder, *command, "--redo")
    assert refused.returncode == 2 and "data set blobs changed since the plan" in refused.stderr
