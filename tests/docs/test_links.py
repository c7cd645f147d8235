"""Every link, image and file name in the pages leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from harness.system.paths import REPOSITORY
from tests.docs import pages

NAMED = re.compile(rf"({'|'.join(pages.FOLDERS)}|figures)/[\w./*+-]*|(?!plugins/)[\w/]+\.py")


def problem(page: Path, link: str) -> str:
    """Why a link is broken, or nothing."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "" if parts.scheme == "https" else "is not https"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists() or not target.is_relative_to(REPOSITORY):
        return "does not exist"
    if parts.fragment and parts.fragment not in pages.anchors(target):
        return "has no such heading"
    return ""


def exists(path: str) -> bool:
    """Whether a file has this path, or a path that ends with it."""
    path = path.rstrip("/")
    return any(any(REPOSITORY.glob(pattern)) for pattern in (path, *(f"{top}/**/{path}" for top in pages.FOLDERS)))


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page: Path) -> None:
    found = [(link, problem(page, link.text)) for link in pages.links(page)]
    pages.report(f"{link} {reason}" for link, reason in found if reason)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_files_that_are_named_exist(page: Path) -> None:
    names = [span for span in pages.code_spans(page) if NAMED.fullmatch(span.text)]
    pages.report(span for span in names if not exists(span.text))


def test_a_broken_link_is_found() -> None:
    page = REPOSITORY / "README.md"
    assert problem(page, "docs/none.md") == "does not exist"
    assert problem(page, "docs/records.md#none") == "has no such heading"
    assert problem(page, "http://example.org") == "is not https"
    assert problem(page, "docs/records.md#recordjson") == ""
