"""The HTML page of a report in a headless Chromium: sorting, filtering, links, requests and width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import chromium
from tests.chromium import Chromium
from tests.unit.test_html import render_many

if chromium.find() is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)

PHONE = 390
VISIBLE = """(id) => [...document.querySelectorAll(`#${id} tbody tr`)].filter((row) => row.offsetHeight)
  .map((row) => [...row.cells].map((cell) => cell.textContent))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report.html"
    place.write_text(render_many(), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    opened = Chromium()
    yield opened
    opened.close()


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Iterator[Chromium]:
    """The page in a wide window; nothing may be printed to the console or requested from anywhere."""
    browser.open(page, 1280)
    yield browser
    assert browser.complaints() == []
    assert {address.partition("#")[0] for address in browser.requests()} == {page.as_uri()}


def column(browser: Chromium, table: str, title: str) -> list[str]:
    """The visible cells of a column."""
    heads = browser.evaluate(
        f"[...document.querySelectorAll('#{table} thead tr:last-child th')].map((h) => h.innerText)"
    )
    return [row[heads.index(title)] for row in browser.evaluate(f"({VISIBLE})('{table}')")]


def sort(browser: Chromium, table: str, title: str) -> str:
    """Click the title of a column, and return the direction that the column then has."""
    head = f"[...document.querySelectorAll('#{table} th')].find((h) => h.innerText === '{title}')"
    browser.evaluate(f"{head}.firstChild.click()")
    return str(browser.evaluate(f"{head}.ariaSort"))


def filter_by(browser: Chromium, table: str, text: str) -> str:
    """Type into the filter of a table, and return the number of rows that is stated beside it."""
    browser.evaluate(f"document.querySelector('#{table} input').focus()")
    browser.evaluate("document.activeElement.select()")
    browser.call("Input.insertText", text=text)
    return str(browser.evaluate(f"document.querySelector('#{table} output').value"))


def test_a_click_sorts_numbers_by_value_and_another_reverses_them(opened: Chromium) -> None:
    before = column(opened, "points", "Mean (%)")
    assert sort(opened, "points", "Mean (%)") == "ascending"
    numbers = [float(text) for text in column(opened, "points", "Mean (%)")]
    assert numbers == sorted(map(float, before)) != [float(text) for text in before]
    assert sort(opened, "points", "Mean (%)") == "descending"
    assert [float(text) for text in column(opened, "points", "Mean (%)")] == numbers[::-1]
    assert sort(opened, "points", "Method") == "ascending"
    assert column(opened, "points", "Method") == sorted(column(opened, "points", "Method"))
    assert opened.evaluate("document.querySelectorAll('#points th:not([aria-sort=none])').length") == 1


def test_the_keyboard_sorts_too(opened: Chromium) -> None:
    opened.evaluate("document.querySelector('#points th[data-name=n] [role=button]').focus()")
    for direction in ("ascending", "descending"):
        for kind in ("keyDown", "keyUp"):
            opened.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
        assert opened.evaluate("document.activeElement.parentElement.ariaSort") == direction


def test_rows_without_a_number_come_last_in_both_directions(opened: Chromium) -> None:
    for direction in ("ascending", "descending"):
        assert sort(opened, "runs", "Kept weights") == direction
        opened.evaluate("document.querySelector('#runs .all')?.click()")
        kept = column(opened, "runs", "Kept weights")
        assert kept[-3:] == ["–"] * 3 and "–" not in kept[:-3]


def test_rows_are_filtered_by_words_and_conditions(opened: Chromium) -> None:
    total = len(column(opened, "points", "Method"))
    stated = filter_by(opened, "points", "SNIP sparsity>=95 dataset=cifar10")
    methods, sparsities = column(opened, "points", "Method"), column(opened, "points", "Sparsity (%)")
    assert stated == f"{len(methods)} of {total} rows" and len(methods) == 4
    assert all("snip" in method for method in methods) and {*sparsities} == {"95", "98"}
    assert {*column(opened, "points", "Data set")} == {"cifar10"}
    assert filter_by(opened, "points", "method=snip sparsity<80") == f"2 of {total} rows"
    assert filter_by(opened, "points", "nothing-like-it") == f"0 of {total} rows"
    assert filter_by(opened, "points", "") == f"{total} rows" and len(column(opened, "points", "Method")) == total


def test_long_tables_show_all_rows_on_request(opened: Chromium) -> None:
    assert len(column(opened, "runs", "Seed")) == 200
    assert opened.evaluate("document.querySelector('#runs .all').innerText") == "Show all 259"
    opened.evaluate("document.querySelector('#runs .all').click()")
    assert len(column(opened, "runs", "Seed")) == 259
    assert opened.evaluate("document.querySelector('#runs .all').hidden")


def test_links_and_printing_open_folded_parts(opened: Chromium) -> None:
    opened.evaluate("new Promise((done) => { addEventListener('hashchange', done); location.hash = '#recipe-1'; })")
    assert opened.evaluate("document.querySelector('#recipe-1').open")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate("[...document.querySelectorAll('details')].every((part) => part.open)")


def test_print_shows_whole_tables_without_controls(opened: Chromium) -> None:
    opened.call("Emulation.setEmulatedMedia", media="print")
    style = "(name) => { const part = document.querySelector(name), s = getComputedStyle(part); return %s; }"
    hidden = {name: opened.evaluate(f"({style % 's.display'})('{name}')") for name in ("nav", ".tools", "#runs")}
    assert set(hidden.values()) == {"none"}
    assert opened.evaluate(
        f"({style % '[s.overflowY, part.scrollHeight - part.clientHeight]'})('#points .scroll')"
    ) == [
        "visible",
        0,
    ]
    # Browsers repeat the head of a table on each page, unless it contains buttons.
    assert opened.evaluate(f"({style % 's.breakInside'})('#points thead')") == "avoid"
    assert opened.evaluate("document.querySelectorAll('thead button').length") == 0
    opened.call("Emulation.setEmulatedMedia", media="")


def test_nothing_overflows_on_a_phone(browser: Chromium, page: Path) -> None:
    browser.open(page, PHONE)
    browser.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert browser.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [PHONE, PHONE]
    outside = """[...document.querySelectorAll('body *')].filter((e) => !e.parentElement.closest('.scroll')
      && (e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < 0))
      .map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 60)}`)"""
    assert browser.evaluate(outside) == []
    # Wide tables and figures scroll inside their own part of the page.
    assert browser.evaluate("document.querySelector('#runs .scroll').scrollWidth") > PHONE
    assert browser.complaints() == [] and len(browser.requests()) == 1
