"""The site in headless Chromium: what a reader does, without outside requests, errors, or harm by names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.reporting import site
from harness.reporting.site import bundle
from tests.support import site_results
from tests.support.site_results import ATTACK

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install --editable '.[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install --editable '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]

ALIKE = {"exclude": [["article ~ article"], [".tile ~ .tile"], [".tabulator-row ~ .tabulator-row"], ["tr ~ tr ~ tr"]]}
"""Parts of a page that are made as those before them; axe takes a second for each hundred."""

AXE = {"preload": False, "resultTypes": ["violations"]}
VIEWS = [name for name, _ in bundle.PAGES]


@pytest.fixture(scope="module")
def started(site_folder: Path) -> Iterator[Reader]:
    """A browser with one page, which all tests share."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(20_000)
        yield Reader(page, site_folder)
        browser.close()


@pytest.fixture
def reader(started: Reader) -> Iterator[Reader]:
    """A reader who sees the site for the first time; at the end, nothing went wrong."""
    started.problems.clear()
    started.page.goto("about:blank")
    started.page.set_viewport_size({"width": 1280, "height": 900})
    yield started
    started.page.evaluate("localStorage.clear()")
    assert started.problems == []


class Reader:
    """A reader of the site: opens views, and notes errors and requests.

    Attributes:
        page: the page of the browser.
        problems: messages of the console, exceptions, and requests for anything but files of the site.
    """

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.problems: list[str] = []
        page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._requested)
        page.on("dialog", lambda dialog: (self.problems.append("a dialog"), dialog.dismiss()))

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.folder.as_uri(), "data:", "blob:", "about:")):
            self.problems.append(f"request: {request.url}")

    def open(self, address: str) -> Any:
        """Opens a view and waits until it is complete."""
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}#/{address}")
        return self.ready(address.partition("?")[0])

    def ready(self, view: str) -> Any:
        """Waits for a view; returns its section."""
        section = f"#{view if view in ('overview', 'about') else 'view'}"
        self.page.wait_for_selector(f"{section}[data-ready='{view}']:not([aria-busy='true'])")
        return self.page.locator(section)

    def rows(self, place: Any) -> list[list[str]]:
        """The shown cells of a table that sorts."""
        return [row.locator(".tabulator-cell").all_inner_texts() for row in place.locator(".tabulator-row").all()]


def test_the_leaderboard_sorts_by_click_and_by_key(reader: Reader):
    place = reader.open("leaderboard")
    scores = [float(row[3].split()[0]) for row in reader.rows(place)[:4]]
    assert scores == sorted(scores, reverse=True) and scores[0] == 50.5
    header = place.get_by_role("columnheader", name="mAP", exact=True)
    header.click()  # descending is the start; the next is none, then ascending
    header.focus()
    reader.page.keyboard.press("Enter")
    header = place.get_by_role("columnheader", name="Backbone")
    header.focus()
    reader.page.keyboard.press("Enter")
    names = [row[0] for row in reader.rows(place)]
    assert names == sorted(names) and len(names) == 5


def test_filters_columns_and_search_narrow_the_leaderboard(reader: Reader):
    place = reader.open("leaderboard")
    assert "5 of 9 rows" in place.get_by_role("status").inner_text()
    place.get_by_role("combobox", name="Test").select_option("flip")
    assert {row[2] for row in reader.rows(place)} == {"flip"}
    place.get_by_role("searchbox", name="Search").fill("gamma")
    assert [row[0] for row in reader.rows(place)] == ["gamma"]
    assert "1 of 9 rows" in place.get_by_role("status").inner_text()
    place.get_by_role("searchbox", name="Search").fill("no such name")
    assert reader.rows(place) == [] and serious(reader.page) == []
    place.get_by_role("searchbox", name="Search").fill("gamma")
    place.get_by_text("Columns", exact=True).click()
    assert not place.get_by_role("columnheader", name="mINP").is_visible()
    place.get_by_role("checkbox", name="mINP").check()
    assert place.get_by_role("columnheader", name="mINP").is_visible()


def test_a_number_leads_to_its_interval_runs_and_record(reader: Reader):
    place = reader.open("leaderboard")
    place.get_by_role("link", name="alpha").click()
    dialog = reader.page.get_by_role("dialog")
    scores = dialog.get_by_role("region", name="Scores").inner_text()
    assert "[16.5, 24.5]" in scores and "± 0.7" in scores, "bounds averaged over two seeds"
    dialog.get_by_role("region", name="Runs").get_by_role("link").first.click()
    record = reader.ready("record")
    assert record.get_by_role("heading", level=1).inner_text() == "Record"
    shown = record.inner_text()
    assert "alpha on market1501, recipe unified" in shown and "2.14.1" in shown and "Some CPU" not in shown
    record.get_by_text("The whole record").click()
    assert '"schema_version": 1' in record.locator("pre").inner_text()


def test_a_point_of_the_cost_plot_tells_its_numbers(reader: Reader):
    place = reader.open("cost")
    place.get_by_role("combobox", name="Cost", exact=True).select_option("images_per_second")
    place.get_by_role("combobox", name="Score").select_option("rank-1")
    place.locator(".points .point").first.wait_for()
    point = place.locator(".points .point").nth(1)
    point.hover(force=True)
    words = place.locator(".hoverlayer").text_content()
    assert "rank-1" in words and "Images/s at test" in words and "interval" in words
    place.get_by_text("Values of the plot as a table").click()
    lines = place.get_by_role("region").locator("tbody tr")
    lines.first.wait_for()
    assert lines.count() == 4


def test_frontier_has_the_points_that_no_other_beats(reader: Reader):
    reader.open("cost")
    points = [{"x": x, "y": y} for x, y in ((1, 5), (2, 9), (2, 7), (3, 8), (4, 10), (4, 10))]
    cheap = reader.page.evaluate("points => site.frontier(points, -1).map(({x, y}) => [x, y])", points)
    fast = reader.page.evaluate("points => site.frontier(points, 1).map(({x, y}) => [x, y])", points)
    assert cheap == [[1, 5], [2, 9], [4, 10]] and fast == [[4, 10]]


def test_the_page_rounds_as_python_does(reader: Reader):
    reader.open("overview")
    values = [0.1225, 0.1275, 0.48265694803348955, 0.0, 1.0, 0.98549999, 0.5, 0.0725, 0.00250, 0.3075]
    shown = reader.page.evaluate("values => values.map(site.format.percent)", values)
    assert shown == [f"{100 * value:.1f}" for value in values]


def test_lists_of_two_backbones_stand_side_by_side(reader: Reader):
    place = reader.open("queries")
    assert place.locator("article").count() == 12
    sentences = place.locator("article > p").all_inner_texts()
    differences = [float(words.split("difference ")[1].rstrip(".")) for words in sentences]
    assert differences == sorted(differences, reverse=True)
    for name in (ATTACK, "gamma"):
        place.get_by_role("checkbox", name=name).uncheck()
    for name in ("alpha", "beta"):
        place.get_by_role("checkbox", name=name).check()
    first = place.locator("article").first
    assert [head.split(":")[0] for head in first.locator(".list h3").all_inner_texts()] == ["beta", "alpha"]
    tiles = first.locator(".list").first.locator("li")
    assert tiles.count() == 10 and "distance 0." in tiles.first.inner_text() and "camera" in tiles.first.inner_text()
    assert first.locator("img").count() == 0, "no pictures unless asked for"


def test_odd_addresses_and_the_skip_link_keep_the_reader_on_the_page(reader: Reader):
    for address, words in (
        ("record", "The address names no record."),
        ("record?run=../../x", "There is no record ../../x."),
        ("queries?table=99&keys=%,", "queries with the largest difference"),
        ("leaderboard?row=x", "Rows of different datasets"),
    ):
        assert words in reader.open(address).inner_text(), address
    reader.page.locator(".skip").focus()
    reader.page.keyboard.press("Enter")
    assert reader.page.evaluate("document.activeElement.id") == "main" and reader.page.url.endswith("row=x")


def test_queries_without_lists_take_one_line_each(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site_results.write_pair(tmp_path / "results", 20, "")
    for path in tmp_path.rglob("ranked_lists*"):
        path.unlink()
    monkeypatch.setattr(reader, "folder", site.write(tmp_path / "results", tmp_path / "site").parent)
    place = reader.open("queries")
    assert place.locator("article").count() == 0 and place.locator("tbody tr").count() == 12
    assert place.locator("thead").inner_text().split() == ["Query", "Identity", "Camera", "alpha", "beta", "Difference"]
    assert place.inner_text().count("alpha has no ranked lists.") == 1


def test_the_matrix_mirrors_and_explains_each_pair(reader: Reader):
    place = reader.open("significance")
    lines = place.locator(".matrix tbody tr")
    best = lines.first.locator("td").last.inner_text().split()
    worst = lines.last.locator("td").first.inner_text().split()
    assert best[0].replace("+", "-") == worst[0] and (best[1], worst[1]) == ("ahead", "behind")
    lines.first.locator("button").last.click()
    assert "p, corrected by Holm" in reader.page.get_by_role("dialog").inner_text()


def serious(page: Any, **options: Any) -> list[tuple[str, str]]:
    """What axe finds that is serious: the rule, and the first element."""
    found = axe.Axe().run(page, context=ALIKE, options={**AXE, **options}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_accessible_and_harmless(reader: Reader, theme: str):
    """Names with markup are shown as text, and call nothing; axe finds nothing serious; a phone shows all of it."""
    page, width = reader.page, 390 if theme == "dark" else 1280
    only = {"runOnly": ["color-contrast"]} if theme == "dark" else {}  # the rest does not depend on the theme
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    for view in [*VIEWS, f"record?run={run_of(reader)}"]:
        place = reader.open(view)
        assert page.locator("img[src='x'], a[href^='javascript']").count() == 0, view
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        assert serious(page, **only) == [], view
        if view in ("leaderboard", "queries", "failures", "audits"):
            assert "<script>hacked()</script>" in place.inner_text()
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.get_by_role("button", name="theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") != theme


def run_of(reader: Reader) -> str:
    """The short id of a scored run."""
    reader.open("records")
    found: str = reader.page.evaluate("site.need('records').then((all) => all.rows.find((row) => row[7] != null)[0])")
    return found
