"""The index of built-in methods agrees with the classes, and answers without torch."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pai_bench
from pai_bench.analysis import bibliography
from pai_bench.cells import DENSE, SMALL_DENSE
from pai_bench.cli.program import app
from pai_bench.core import method_index
from pai_bench.core.facts import SEES, VERIFICATIONS, Facts
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import registry


def test_the_index_equals_the_classes() -> None:
    ours = [name for name in registry.names() if registry.is_builtin(name)]
    assert list(method_index.builtin()) == ours
    for name, entry in method_index.builtin().items():
        cls = registry.method_class(name)
        fields = [(field.name, field.default) for field in dataclasses.fields(cls)]
        assert list(entry.hyperparameters) == fields
        assert entry.costly == bool(getattr(cls, "costly", False))
        assert entry.facts == registry.facts(name) != Facts()
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
def test_typos_get_the_errors_of_the_registry(spec: str, cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause) as found:
        method_index.check([spec])
    if spec.endswith(":"):
        return
    name, _, values = spec.partition(":")
    key, _, value = values.partition("=")
    with pytest.raises(PaiBenchError) as expected:
        registry.get(name, {key: int(value)} if key else {})
    assert found.value.args == expected.value.args


def test_valid_specs_are_accepted() -> None:
    method_index.check(["snip", "prospr:steps=3,lr=0.5", "snip:control=shuffle", "file:masks.npz"])


@pytest.mark.slow
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


TOP = Path(pai_bench.__file__).parents[1]
PLUGIN = """
from dataclasses import dataclass

from pai_bench import Facts, Problem, register


@register("listed-plugin"FACTS)
@dataclass(frozen=True)
class Listed:
    \"""The weights themselves.\"""

    steps: int = 4

    def __call__(self, problem: Problem):
        return dict(problem.weights)
"""


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    app(["list", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_every_built_in_method_states_all_facts() -> None:
    for name, entry in method_index.builtin().items():
        facts = entry.facts
        assert facts.kind and facts.sees in SEES, name
        # A search takes as many passes as the training of the recipe, which is recorded with each result.
        assert (facts.passes == "") == (facts.kind == "search"), name
        assert (facts.verified in VERIFICATIONS and facts.paper) or name in (DENSE, SMALL_DENSE), name


def test_papers_are_those_of_the_bibliography() -> None:
    for name, entry in method_index.builtin().items():
        cited = [bibliography.citation(key) for key in bibliography.keys_of("methods", name) or ()]
        author, year = entry.facts.paper.split(" et al.")[0].split(" and ")[0], str(entry.facts.year)
        known = any(c.startswith(author) and c.endswith(year) for c in cited)
        assert known or (name, cited) in ((DENSE, []), (SMALL_DENSE, [])), name


@pytest.mark.slow
def test_the_table_of_the_readme_has_the_same_facts() -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.split("| name | paper |")[1].splitlines()[2:]]
    shown = {}
    for names, paper, sees, verified, _ in (map(str.strip, row) for row in rows if len(row) == 5):
        shown |= dict.fromkeys(re.findall(r"`([\w:-]+)`", names), (paper, sees, verified))
    shown.pop("file:PATH")
    facts = {name: entry.facts for name, entry in method_index.builtin().items()}
    assert shown == {name: (one.paper, one.sees, one.verified) for name, one in facts.items()}


def test_every_method_verified_by_released_code_has_a_golden_test() -> None:
    golden = "".join(path.read_text(encoding="utf-8") for path in (TOP / "tests" / "golden").glob("test_*.py"))
    for name, entry in method_index.builtin().items():
        has_case = f'"{name}"' in golden
        assert has_case or entry.facts.verified in ("formula", ""), name


@pytest.mark.slow
@pytest.mark.parametrize("what", ["methods", "models", "datasets", "recipes"])
def test_json_has_all_columns_of_all_names(capsys: pytest.CaptureFixture[str], what: str) -> None:
    lines = json.loads(listed(capsys, what, "--json"))
    assert [line["name"] for line in lines] == listed(capsys, what).splitlines()
    assert len({tuple(line) for line in lines}) == 1
    found = {line["name"]: line for line in lines}
    examples = {
        "methods": {"name": "force", "paper": "De Jorge et al. 2021", "year": 2021, "kind": "gradient"}
        | {"sees": "labels", "rounds": 60, "passes": 180, "passes formula": "3 * rounds * batches"},
        "models": {"name": "resnet20", "paper": "He et al. 2016", "year": 2016, "kind": "residual"}
        | {"parameters": 269722},
        "datasets": {"name": "svhn", "paper": "Netzer et al. 2011", "kind": "images", "classes": 10}
        | {"training": 73257, "verified": "MD5"},
        "recipes": {"name": "snip", "paper": "Lee et al. 2019", "year": 2019, "data sets": ["mnist"]},
    }
    line = found[str(examples[what]["name"])]
    assert {column: line[column] for column in examples[what]} == examples[what]


@pytest.mark.slow
def test_the_table_and_its_long_form(capsys: pytest.CaptureFixture[str]) -> None:
    table = listed(capsys, "methods", "--long")
    assert re.search(r"ntk-sap +Wang et al. 2023 +kernel +shape +20 +700 +release", table)
    assert re.search(r"prospr +Alizadeh et al. 2022 +meta gradient +labels +1 +30 +release", table)
    assert "prospr: steps=3 lr=0.5 momentum=0.9" in table and "passes: 9 * steps + 3" in table
    assert max(map(len, table.splitlines())) <= 120
    assert "Three hidden layers of 16 units" in listed(capsys, "models", "--long")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ("", ("", None, "", "", None, "", "")),
        (
            ", Facts('Own et al. 2026', kind='own', sees='inputs', passes='2 * steps', verified='formula')",
            ("Own et al. 2026", 2026, "own", "inputs", 8, "2 * steps", "formula"),
        ),
    ],
)
def test_plug_ins_show_their_facts_or_blanks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, facts: str, shown: tuple[object, ...]
) -> None:
    name = f"listed-plugin-{len(facts)}"
    (tmp_path / "own.py").write_text(PLUGIN.replace("FACTS", facts).replace("listed-plugin", name))
    lines = json.loads(listed(capsys, "methods", "--plugin", str(tmp_path / "own.py"), "--json"))
    (line,) = (line for line in lines if line["name"] == name)
    columns = ("paper", "year", "kind", "sees", "passes", "passes formula", "verified")
    assert tuple(line[column] for column in columns) == shown
    assert (line["hyper-parameters"], line["description"]) == ({"steps": 4}, "The weights themselves.")
    assert name in listed(capsys, "methods", "--plugin", str(tmp_path / "own.py"), "--long")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"paper": "Lee et al."}, "does not end with its year; write for instance 'Lee et al. 2019'"),
        ({"sees": "everything"}, "sees is 'everything'; write nothing, shape, inputs, labels"),
        ({"verified": "yes"}, "verified is 'yes'; write release, transcribed, formula"),
        *(
            ({"passes": formula}, "is not a formula of numbers, names and")
            for formula in ("3 *", "len(batches)", "2 ** rounds", "batches.n", "'3'", "1 / 0", "True")
        ),
    ],
)
def test_wrong_facts_are_refused(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Facts(**wrong)


def test_the_formula_of_the_cost_may_use_hyper_parameters_of_its_method() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own:
        steps: int = 3

        def __call__(self, problem: object) -> dict[str, object]:
            return {}

    with pytest.raises(
        ValueError, match=r"method 'own': passes '2 \* rounds' has the unknown name 'rounds'; known are"
    ):
        registry.register("own", Facts(passes="2 * rounds"))(Own)
    with pytest.raises(TypeError, match="unexpected keyword argument 'see'"):
        Facts(see="labels")  # type: ignore[call-arg]
    assert "own" not in registry.names()
    assert Facts(passes="rounds * (2 * batches + 3 / batch_size) - 1").cost(
        {"rounds": 2, "batches": 3, "batch_size": 2}
    ) == pytest.approx(14)
    assert Facts().cost({}) is None and Facts().year is None
