"""The website: it builds without a warning, loads nothing from other hosts, and shows pages as GitHub does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.system.paths import REPOSITORY
from tests.docs import pages

SHOWN = [page for page in pages.PAGES if pages.name(page).partition("/")[0] not in ("benchmarks", "tests")]
LOADED = re.compile(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//[^>]*>')


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the website, and what was printed while it was built."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture
def site(built: tuple[Path, str]) -> Path:
    return built[0]


def test_it_builds_without_a_warning(built: tuple[Path, str]) -> None:
    pages.report(line for line in built[1].splitlines() if not line.startswith("INFO"))


def html(site: Path, page: Path) -> str:
    path = site / pages.name(page)
    return (path.with_name("index.html") if page.name == "README.md" else path.with_suffix(".html")).read_text("utf-8")


def test_it_loads_nothing_from_other_hosts(site: Path) -> None:
    pages.report(f"{pages.name(page)}: {found}" for page in SHOWN for found in LOADED.findall(html(site, page)))


class Structure(HTMLParser):
    """The headings, lists, tables and code blocks of a page, as one list of tags."""

    TAGS = ("h1", "h2", "h3", "h4", "ul", "ol", "li", "pre", "table", "tr", "blockquote", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found += [tag] if tag in self.TAGS else []

    def handle_endtag(self, tag: str) -> None:
        self.found += [f"/{tag}"] if tag in ("ul", "ol", "li", "table") else []


@pytest.mark.parametrize("page", SHOWN, ids=pages.name)
def test_it_shows_a_page_as_github_does(site: Path, page: Path) -> None:
    on_github = re.sub(r"<p>\[\^.*?</p>", "", pages.PARSER.render(page.read_text(encoding="utf-8")), flags=re.DOTALL)
    on_site = re.split(r'<article[^>]*>|<div class="footnote">|</article>', html(site, page))[1]
    assert Structure(on_site).found == Structure(on_github).found
