"""The paragraph of a paper on its statistics: exactly the procedures that a report used, with their numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.columns import AT_CHANCE, PANEL
from pai_bench.analysis.comparison import testable
from pai_bench.analysis.difference_tables import limits
from pai_bench.analysis.display_names import method_name
from pai_bench.analysis.labels import measured_at
from pai_bench.analysis.latex_text import escape
from pai_bench.analysis.statistics import split_control
from pai_bench.cells import DENSE

_CITED = {
    "agarwal2021": "Agarwal et al. 2021",
    "demsar2006": "Demšar 2006",
    "friedman1937": "Friedman 1937",
    "holm1979": "Holm 1979",
    "nemenyi1963": "Nemenyi 1963",
    "schuirmann1987": "Schuirmann 1987",
    "welch1947": "Welch 1947",
}


@dataclass(frozen=True)
class Numbers:
    """The tables of a report that its methods paragraph describes."""

    rows: pd.DataFrame
    summary: pd.DataFrame
    compared: pd.DataFrame
    pooled: pd.DataFrame
    controls: pd.DataFrame
    margin: float
    emphasised: bool
    more: tuple[str, ...] = ()
    """Sentences on aggregates over settings and on published numbers."""


def methods_text(numbers: Numbers) -> str:
    """Return the paragraph as plain text; citations are keys of references.bib in double brackets."""
    compared = [*_comparisons(numbers), *_pooling(numbers), *numbers.more]
    return " ".join([*_means(numbers), *compared, *_bold(numbers), *_controls(numbers)])


def cited(text: str) -> list[str]:
    """Return the keys that the paragraph cites."""
    return [key for key in _CITED if f"[[{key}]]" in text]


def methods_markdown(text: str) -> str:
    """Return the paragraph as Markdown, with author and year in place of keys."""
    for key, name in _CITED.items():
        text = text.replace(f"[[{key}]]", f"({name})")
    return f"{text}\n"


def methods_latex(text: str) -> str:
    r"""Return the paragraph as LaTeX, with \citep for the entries of references.bib.

    With natbib, as in the classes of NeurIPS, ICLR and ICML, \cite would set the authors as a part of the sentence.
    """
    parts = re.split(r"\[\[(\w+)\]\]", text)
    written = [rf"\citep{{{part}}}" if place % 2 else escape(part) for place, part in enumerate(parts)]
    head = "% cites references.bib\n\\providecommand{\\citep}{\\cite}\n"
    # Citations by author and year are too long for some lines of a narrow column.
    body = "".join(written).replace(r" \citep", r"~\citep")
    return head + "{\\emergencystretch=2em\n" + body + "\\par}\n"


def _means(numbers: Numbers) -> list[str]:
    summary = numbers.summary
    measured = summary[summary["n"] > 0]
    methods = measured[measured["method"] != DENSE]
    counts = _range((methods if len(methods) else measured)["n"])
    what = measured_at(summary["recipe"], summary["epoch"])
    what = what.replace(" (%)", "").replace("(%; ", "(")
    what = what[0].lower() + what[1:]
    parts = [f"We report the mean {what} over {counts}"]
    dense = measured[measured["method"] == DENSE]
    if len(methods) and len(dense) and _range(dense["n"]) != counts:
        parts[0] += f" (dense networks: {_range(dense['n'], 'run')})"
    parts[0] += (
        " with the sample standard deviation (n − 1 in the denominator)." if measured["std"].notna().any() else "."
    )
    if counts == "1 seed":
        parts[0] = f"We report the {what} of one seed, without any measure of its spread."
    failed = int((numbers.rows["status"] != "ok").sum())
    if failed:
        parts.append(
            f"{failed} of {len(numbers.rows)} runs collapsed or diverged; they count at their accuracy, or at chance"
            " (1 / number of classes) where none was recorded."
        )
    chance = int(numbers.rows["at_chance"].sum())
    if chance:
        runs = f"{chance} {'further ' if failed else ''}{'runs are' if chance > 1 else 'run is'}"
        parts.append(f"{runs} at chance, with an accuracy of at most {AT_CHANCE:g} / classes.")
    if failed or chance:
        parts.append("No deviation is given for means over such runs.")
    lacking = int((summary["planned"] - summary["runs"]).sum())
    if lacking:
        parts.append(f"{lacking} planned {'runs are' if lacking > 1 else 'run is'} missing.")
    return parts


def _comparisons(numbers: Numbers) -> list[str]:
    table = numbers.compared
    if not len(table):
        return []
    hashed = "init_hash" in numbers.rows and numbers.rows["init_hash"].notna().any()
    same = "sparsity, seed and initial weights" if hashed else "sparsity and seed"
    family = _range(table.drop_duplicates([*PANEL, "epoch"])["comparisons"], "comparison")
    parts = [
        f"Methods are compared with {method_name(table['baseline'].iloc[0])} by paired differences between runs"
        f" with the same data set, network, recipe, {same}. For each data set and network, the differences"
        f" of a seed are averaged over the common sparsities ({_range(table['sparsities'], 'sparsity')}), so that every"
        f" seed counts once ({_range(table['n'])}). We give their mean with a 95 % Student t interval,"
        " which is not adjusted for the number of comparisons.",
    ]
    failed = int((table["failed"] > 0).sum())
    if failed:
        parts.append(
            f"{failed} of the {len(table)} differences {'have' if failed > 1 else 'has'} no interval, because a run of"
            " the method or the baseline collapsed, diverged or is at chance."
        )
    if testable(table).any():
        exact = table["n"].max() <= inference.EXACT_FLIPS
        kind = "an exact" if exact else f"a (beyond {inference.EXACT_FLIPS} seeds, {inference.DRAWS:,} random flips)"
        parts.append(
            f"The p values are from {kind} two-sided sign-flip test, adjusted within each data set and network"
            f" ({family}) by Holm's procedure [[holm1979]]; beside them we give the smallest p that could be reached."
        )
    parts += [f"{sentence[0].upper()}{sentence[1:]}; for these we give no p value." for sentence in limits(table)]
    return parts


def _pooling(numbers: Numbers) -> list[str]:
    table = numbers.pooled
    if not len(table):
        return []
    settings = _range(table["settings"], "setting")
    units, drawn = table["units"], f"{inference.DRAWS:,} random flips"
    kind = "exact" if units.max() <= inference.EXACT_FLIPS else drawn
    if units.min() <= inference.EXACT_FLIPS < units.max():
        kind = f"exact up to {inference.EXACT_FLIPS} pairs, else {drawn}"
    parts = [
        f"Pooled over {settings} (data set and network), every setting and seed counts once; the two-sided sign-flip"
        f" test over {_range(units, 'pair')} of setting and seed ({kind}) refers to these settings."
    ]
    if (table["settings"] >= inference.MIN_BLOCKS).any():
        parts.append(
            "For new data sets and networks, the 95 % Student t interval and the sign-flip test are over the means of"
            " the settings."
        )
    else:
        parts.append(f"No statement about new settings is made, which needs {inference.MIN_BLOCKS} settings.")
    if testable(table).any():
        family = _range(table["comparisons"], "comparison")
        parts.append(
            f"The p values are adjusted over the methods of a recipe ({family}) by Holm's procedure [[holm1979]]."
        )
    parts += [f"{sentence}; for these we give no p value." for sentence in limits(table)]
    return parts


def _bold(numbers: Numbers) -> list[str]:
    if not numbers.emphasised:
        return []
    return [
        "In tables, bold marks the highest mean among methods with all seeds and each of them whose Holm-adjusted 95 %"
        " t interval of the paired difference to it contains 0."
    ]


def _controls(numbers: Numbers) -> list[str]:
    table = numbers.controls
    if not len(table):
        return []
    names = ", ".join(dict.fromkeys(table["control"]))
    methods = len({split_control(method)[0] for method in table["method"]})
    return [
        f"Controls ({names}) of {methods} {'methods' if methods > 1 else 'method'} are called equivalent to their"
        f" method if the 90 % t interval of the paired difference is within ±{100 * numbers.margin:g} points (two"
        f" one-sided tests [[schuirmann1987]], p < {inference.LEVEL:g}, not corrected for the {len(table)} tests)."
    ]


def _range(counts: pd.Series, noun: str = "seed") -> str:
    """Return "3 seeds", "1 seed" or "2 to 5 seeds"."""
    low, high = int(counts.min()), int(counts.max())
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} {noun if high == 1 else plural}"
