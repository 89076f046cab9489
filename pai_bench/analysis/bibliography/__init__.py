"""Bibliography of a report: the papers of the methods, data sets, networks, recipes and statistics that it uses."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line lists papers without loading pandas
    import pandas as pd

__all__ = ["STATISTICS", "citation", "entries", "keys", "keys_of", "paper_of", "references_bib", "with_papers"]

_COLUMNS = {"methods": "method", "datasets": "dataset", "models": "model", "recipes": "recipe"}

STATISTICS = ("agarwal2021", "demsar2006", "friedman1937", "holm1979", "nemenyi1963", "schuirmann1987", "welch1947")
"""Keys that the methods paragraph may cite."""


@cache
def keys() -> dict[str, dict[str, list[str]]]:
    """Return the BibTeX keys by kind (methods, controls, datasets, models, recipes) and name."""
    return tomllib.loads(_read("references.toml"))


@cache
def entries() -> dict[str, str]:
    """Return the BibTeX entries by key."""
    parts = re.split(r"\n(?=@)", _read("references.bib").strip())
    return {part[part.index("{") + 1 : part.index(",")]: part.strip() for part in parts}


def keys_of(kind: str, name: str) -> list[str] | None:
    """Return the keys of a method, control, data set, model or recipe (a plural in `kind`); None if it has no entry."""
    known = keys()[kind]
    pattern = name if name in known else next((each for each in known if fnmatchcase(name, each)), None)
    return None if pattern is None else known[pattern]


def citation(key: str) -> str:
    """Return the authors and the year of an entry in running text, as in "Lee et al. 2019"."""
    entry = entries()[key]
    authors, year = (re.search(rf"^\s*{field}\s*=\s*{{(.*)}},?$", entry, re.MULTILINE) for field in ("author", "year"))
    assert authors and year
    names = [_last_name(author) for author in authors[1].split(" and ")]
    return f"{names[0] + ' et al.' if len(names) > 2 else ' and '.join(names)} {year[1]}"


def paper_of(kind: str, name: str) -> str:
    """Return the citation of the first paper of a method, data set, model or recipe (see `keys_of`); "" without one."""
    found = keys_of(kind, name)
    return citation(found[0]) if found else ""


def _last_name(author: str) -> str:
    """Return the capitalised last name of an author, without braces and accents of LaTeX."""
    name = re.sub(r"\\[^a-zA-Z]|[{}]", "", author if author.startswith("{") else author.partition(",")[0])
    return name[:1].upper() + name[1:]


def references_bib(rows: pd.DataFrame, cited: Iterable[str] = ()) -> str:
    """Return the entries for all names in the rows of a report and for the keys `cited`.

    Names without a known reference are listed in a comment.
    """
    from pai_bench.analysis.statistics import split_control  # loads pandas

    keys, without = set(cited), []
    names = [(kind, name) for kind, column in _COLUMNS.items() for name in sorted({*rows[column].unique()} - {""})]
    for kind, name in names:
        spec, control = split_control(name) if kind == "methods" else (name, None)
        found = keys_of(kind, spec.partition(":")[0] if kind == "methods" else spec.partition("+")[0])
        if found is None:
            without.append(f"{_COLUMNS[kind]} {name}")
        keys.update(found or (), keys_of("controls", control or "") or ())
    lines = [f"% no reference known: {' '.join(name.split())}" for name in without]
    return "\n\n".join(["\n".join(lines)] * bool(lines) + [entries()[key] for key in sorted(keys)]) + "\n"


def with_papers(text: str, papers: Iterable[str]) -> str:
    """Return the content of a references.bib with the entries of more papers; keys without an entry are left out."""
    added = [entries()[key] for key in sorted(set(papers) & set(entries())) if f"{{{key}," not in text]
    return "\n\n".join([text.rstrip("\n"), *added]) + "\n"


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
