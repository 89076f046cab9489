"""The report as one HTML file without external parts: figures, sortable tables, recipes, provenance, objections."""

from pai_bench.analysis.html.page import Content, render

__all__ = ["Content", "render"]
