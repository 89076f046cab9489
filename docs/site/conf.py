"""The site of the documentation: `make docs` builds it from the Markdown pages and the docstrings."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "pai-bench"
author = "The pai-bench authors"
copyright = "2026, the pai-bench authors"
version = release = installed_version("pai-bench")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["*.py", "*.toml"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings use single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 70
pygments_style = "friendly"

html_theme = "pydata_sphinx_theme"
html_title = "pai-bench"
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    # Everything comes from the site itself, also without a network.
    "navbar_end": ["theme-switcher"],
}
html_sidebars = {"index": []}

# Files outside docs/ that have a page of their own here; on GitHub the links lead to the files.
_PAGES = {
    "(../CONTRIBUTING.md)": "(site/contributing.md)",
    "(../CHANGELOG.md)": "(site/changelog.md)",
    "(../examples/README.md)": "(site/examples.md)",
}


def _lead_to_pages(app: Sphinx, name: str, text: list[str]) -> None:
    """Turn links to such files into links to their pages."""
    del app
    if "/" not in name:
        for link, page in _PAGES.items():
            text[0] = text[0].replace(link, page)


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", _lead_to_pages)
