"""Short sentences and standard words, where a machine can tell."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from harness.system.paths import REPOSITORY
from tests.docs import pages

MOST_WORDS = 30
PROSE = [page for page in pages.PAGES if page.name not in ("BENCHMARKS.md", "CHANGELOG.md")]
DRAWN = REPOSITORY / "datasets" / "synthetic"  # its people do stand
CODE = sorted(path for top in ("harness", "datasets", "benchmarks") for path in REPOSITORY.glob(f"{top}/**/*.py"))
CODE = [path for path in CODE if DRAWN not in path.parents]
CARDS = sorted(path for top in ("harness", "datasets", "backbones") for path in REPOSITORY.glob(f"{top}/**/*.toml"))

INSTEAD = {
    r"anew": "again",
    r"for want of": "for lack of",
    r"(go|goes|gone|went) on from": "resume from",
    r"what was read": "the files, or the data",
    r"it is said": "name who says it",
    r"(make|makes|made) again": "regenerate",
    r"(is|are|was|were|be) told": "name what is passed or printed",
    r"a word": "name, text or value",
    r"the (whole )?line works": "the program works",
    r"stands": "is",
    r"wants": "needs, or expects",
    r"(one|two|\d+) (card|column|entry|file|folder|line|number|picture|process|row|value)s? an? \w+": "per",
}
AMERICAN = r"colors?|behaviors?|(initial|normal|optim|organ|regular|serial|summar)iz(e|es|ed|er|ers|ing|ation)"


def found(pattern: str, text: str) -> str | None:
    """The words of a text that match a pattern."""
    match = re.search(rf"(?<![\w-])({pattern})(?![\w-])", re.sub(r"\s+", " ", text), re.IGNORECASE)
    return match and match[0]


def phrases(parts: Iterable[pages.Part]) -> Iterator[str]:
    for part in parts:
        for pattern, better in INSTEAD.items():
            if words := found(pattern, part.text):
                yield f"{pages.name(part.page)}:{part.line}: '{words}', better: {better}"


def texts(path: Path) -> Iterator[pages.Part]:
    """The strings and comments of a module: docstrings, help texts and messages are among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield pages.Part(path, node.lineno, node.value)
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield pages.Part(path, token.start[0], token.string)


def lines(path: Path) -> Iterator[pages.Part]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield pages.Part(path, number, line)


@pytest.mark.parametrize("page", PROSE, ids=pages.name)
def test_sentences_are_short(page: Path) -> None:
    counted = [(len(sentence.text.split()), sentence) for sentence in pages.sentences(page)]
    pages.report(f"{sentence} ({count} words)" for count, sentence in counted if count > MOST_WORDS)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_pages_use_standard_words(page: Path) -> None:
    pages.report(phrases(pages.texts(page)))


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_pages_are_in_british_spelling(page: Path) -> None:
    pages.report(part for part in pages.texts(page) if found(AMERICAN, re.sub("`[^`]*`", "", part.text)))


def test_help_texts_messages_and_comments_use_standard_words() -> None:
    pages.report(hit for path in CODE for hit in phrases(texts(path)))


def test_cards_and_recipes_use_standard_words() -> None:
    pages.report(hit for path in CARDS for hit in phrases(lines(path)))
