"""The Markdown pages of the repository, read as GitHub reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness.system.paths import REPOSITORY

FOLDERS = ("docs", "backbones", "datasets", "harness", "benchmarks", "tests")
PAGES = sorted(REPOSITORY.glob("*.md")) + sorted(page for top in FOLDERS for page in REPOSITORY.glob(f"{top}/**/*.md"))
SENTENCE_END = r"(?:(?<=[.!?])|(?<=[.!?][)\"*]))(?<!e\.g\.)(?<!i\.e\.)\s"
PARSER = MarkdownIt("gfm-like", {"linkify": False})


@dataclass(frozen=True)
class Part:
    """A piece of a page: a code block, the target of a link, a code span or a sentence.

    Attributes:
        kind: the language of a code block; `table` for text in a table.
        before: the text before a code block.
    """

    page: Path
    line: int
    text: str
    kind: str = ""
    before: str = ""

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}: {self.text}"


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def report(problems: Iterable[object]) -> None:
    """Fails with one problem per line."""
    if lines := [str(problem) for problem in problems]:
        pytest.fail("\n".join(lines), pytrace=False)


@cache
def tokens(page: Path) -> list[Token]:
    return PARSER.parse(page.read_text(encoding="utf-8"))


def code_blocks(page: Path) -> Iterator[Part]:
    before = ""
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            yield Part(page, token.map[0] + 1, token.content, token.info.strip(), before)
            before = ""
        elif token.type == "inline":
            before = token.content


def inlines(page: Path) -> Iterator[tuple[int, Token]]:
    """Every text, link, image and code span of a page with its line."""
    for token in tokens(page):
        if token.type == "inline":
            assert token.map is not None and token.children is not None
            line = token.map[0] + 1
            for child in token.children:
                yield line, child
                line += child.type in ("softbreak", "hardbreak")
        elif token.type == "html_block":
            assert token.map is not None
            yield token.map[0] + 1, token


def links(page: Path) -> Iterator[Part]:
    for line, token in inlines(page):
        if token.type in ("html_block", "html_inline"):
            targets = re.findall(r'(?:src|srcset|href)="([^"]*)"', token.content)
        else:
            targets = [token.attrs[key] for key in ("href", "src") if key in token.attrs]
        for target in targets:
            yield Part(page, line, str(target))


def code_spans(page: Path) -> Iterator[Part]:
    for line, token in inlines(page):
        if token.type == "code_inline":
            yield Part(page, line, token.content)


def texts(page: Path) -> Iterator[Part]:
    """Every paragraph, list item, heading and cell of a table as it is read; a code span is one word."""
    in_table = False
    for token in tokens(page):
        in_table = token.type == "table_open" or (in_table and token.type != "table_close")
        if token.type == "inline":
            assert token.map is not None and token.children is not None
            text = "".join(words(child) for child in token.children)
            yield Part(page, token.map[0] + 1, text, "table" if in_table else "")


def sentences(page: Path) -> Iterator[Part]:
    """The sentences outside code blocks and tables."""
    for text in texts(page):
        if text.kind == "table":
            continue
        start = 0
        for sentence in re.split(SENTENCE_END, text.text):
            yield Part(page, text.line + text.text.count("\n", 0, start), " ".join(sentence.split()))
            start += len(sentence) + 1


def words(token: Token) -> str:
    """What a reader sees of a piece of a line."""
    if token.type in ("softbreak", "hardbreak"):
        return "\n"
    if token.type == "code_inline":
        return f"`{token.content.replace(' ', '_')}`"
    return token.content if token.type == "text" else ""


@cache
def anchors(page: Path) -> set[str]:
    """The names of the headings, by GitHub's rule."""
    found: list[str] = []
    headings = zip(tokens(page), tokens(page)[1:], strict=False)
    for text in (inline for opening, inline in headings if opening.type == "heading_open"):
        content = "".join(child.content for child in text.children or [])
        slug = re.sub(r"[^\w\- ]", "", content.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)
