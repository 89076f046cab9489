"""Figures as SVG elements inside an HTML page."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import style

_HEAD = re.compile(r".*?<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ID = re.compile(r"(\sid=\"|href=\"#|url\(#)")
_REFERENCE = re.compile(r"(?:href=\"#|url\(#)([^\")]+)")
_OWN_ID = re.compile(r"\sid=\"([^\"]+)\"")
_PATH = re.compile(r"\sd=\"[^\"]*\"")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_SPACE = re.compile(r"\s*\n\s*")


def pages(drawing: Drawing) -> list[Markup]:
    """Return the pages of a drawing as <svg> elements, whose ids begin with "figure-" and the name of the page."""
    found = zip(drawing.stems(), drawing.pages, strict=True)
    return [_element(figure, f"figure-{stem}", drawing.title) for stem, figure in found]


def _element(figure: Figure, name: str, title: str) -> Markup:
    """Return a figure as an <svg> element without namespaces, metadata and fixed size, which a page does not need."""
    buffer = io.StringIO()
    # Text becomes outlines, because a reader's machine may lack the fonts; the salt gives the same ids in every run.
    with style(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    head = _HEAD.match(text)
    assert head is not None, "matplotlib writes a view box"
    body = _COMMENT.sub("", _METADATA.sub("", text[head.end() :])).replace("xlink:href", "href")
    body = _ID.sub(rf"\g<1>{name}-", body)
    # Other ids come from names of artists, which several artists of a figure may share.
    used = set(_REFERENCE.findall(body))
    body = _OWN_ID.sub(lambda found: found[0] if found[1] in used else "", body)
    # A hundredth of a point is enough for paths; transformations of glyphs need all digits.
    body = _PATH.sub(lambda path: _DIGITS.sub(r"\1", path[0]), _SPACE.sub(" ", body))
    width = float(head[1].split()[2])
    attributes = (
        f'viewBox="{head[1]}" role="img" aria-label="{escape(title)}" style="max-width:{width / 72 * 1.6:.2f}in"'
    )
    return Markup(f"<svg {attributes}>{body}")
