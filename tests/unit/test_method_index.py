"""The index of built-in methods agrees with the classes, and answers without torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from pai_bench.core import method_index
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import registry


def test_the_index_is_what_the_classes_say() -> None:
    ours = [name for name in registry.names() if registry.is_builtin(name)]
    assert list(method_index.builtin()) == ours
    for name, entry in method_index.builtin().items():
        cls = registry.method_class(name)
        fields = [(field.name, field.default) for field in dataclasses.fields(cls)]
        assert list(entry.hyperparameters) == fields
        assert entry.costly == bool(getattr(cls, "costly", False))
        assert entry.sentence.endswith(".") and 20 < len(entry.sentence) < 160, entry.sentence


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("snipp", "unknown method 'snipp'"),
        ("prospr:step=3", "unknown hyper-parameter of prospr 'step'"),
        ("random:a=1", "method random has no hyper-parameter 'a'"),
        ("prospr:", "cannot be read"),
    ],
)
def test_typos_are_answered_as_the_registry_does(spec: str, cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause) as found:
        method_index.check([spec])
    if spec.endswith(":"):
        return
    name, _, values = spec.partition(":")
    key, _, value = values.partition("=")
    with pytest.raises(PaiBenchError) as expected:
        registry.get(name, {key: int(value)} if key else {})
    assert found.value.args == expected.value.args


def test_good_specs_pass() -> None:
    method_index.check(["snip", "prospr:steps=3,lr=0.5", "snip:control=shuffle", "file:masks.npz"])


def test_a_typo_is_answered_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['pai-bench', 'sweep', '--methods', 'snipp']\n"
        "from pai_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(end.code + 10 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean snip?" in done.stderr


def test_other_methods_are_left_to_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert method_index.is_complete()
    assert not method_index.is_complete([method_index._FOLDER / "snip.py"])
    monkeypatch.setattr(method_index, "installed", lambda group: [group])
    assert not method_index.is_complete()
