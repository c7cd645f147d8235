"""Text that cannot break out of its place, and number formats."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.reporting import text

markdown_it = pytest.importorskip("markdown_it", reason="comes with rich; renders Markdown for these tests")
RENDERER = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])

SPECIAL = st.text(alphabet="ab1. |`*_~[]()<>!&#+-=$\\^:/@\n\r\t{};\"'\u202e\u00e9\u4eba", max_size=25)
WORDS = SPECIAL | st.text(max_size=25)
NASTY = (
    "a|b",
    "`x`",
    "\\|",
    "<script>alert(1)</script>",
    "[x](javascript:y)",
    "![x](y)",
    "~~gone~~",
    "1. one",
    "- one",
    "# one",
    "&lt;",
    "a\n\n| b |",
    "$x$",
    "=====",
    "[^1]",
    "\\",
)


def shown(rendered: str) -> str:
    """What a reader sees: no tags, entities resolved."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rendered)).split())


def seen(value: str) -> str:
    """What a reader should see: the text on one line, without invisible characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in value).split())


def cells(rendered: str) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", rendered, flags=re.DOTALL)


@given(WORDS)
@settings(max_examples=300, deadline=None)
def test_a_cell_shows_the_text_and_nothing_else(value):
    rendered = RENDERER.render(text.table([{"A": text.escape(value), "B": "end"}]))
    found = cells(rendered)
    assert len(found) == 2 and found[1] == "end"
    assert not re.search(r"<[a-z]", found[0])
    assert shown(found[0]) == seen(value)


@given(WORDS)
@settings(max_examples=300, deadline=None)
def test_a_paragraph_shows_the_text_and_nothing_else(value):
    rendered = RENDERER.render(text.escape(value)).strip()
    assert shown(rendered) == seen(value)
    assert not seen(value) or re.fullmatch(r"<p>[^<]*</p>", rendered, flags=re.DOTALL)


@pytest.mark.parametrize("value", NASTY)
def test_known_ways_out_are_closed(value):
    rendered = RENDERER.render(text.table([{"A": text.escape(value), "B": text.code(value)}]))
    assert len(cells(rendered)) == 2
    assert shown(cells(rendered)[0]) == seen(value)
    assert not re.search(r"<(script|a|img|del|em|strong|li|h1)\b", rendered)


@given(WORDS)
@example("``")
@example("a`b|c")
@settings(max_examples=200, deadline=None)
def test_a_code_span_stays_a_code_span(value):
    span = text.code(value)
    rendered = RENDERER.render(text.table([{"A": span or "empty", "B": "end"}]))
    found = cells(rendered)
    assert len(found) == 2 and found[1] == "end"
    if span:
        assert re.fullmatch(r"<code>[^<]*</code>", found[0], flags=re.DOTALL)


@pytest.mark.parametrize("value", ["http://a.b/c", "www.a.bc", "someone@a.bc", "@someone"])
def test_nothing_becomes_a_link_or_addresses_a_person(value):
    assert not re.search(r"://|www\.|@", text.escape(value))
    assert html.unescape(text.escape(value)) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://a.bc/d_e, README.md", "<https://a.bc/d_e>, README.md"),
        ("see (https://www.a.bc/d/) and  https://e.fg", "see (<https://www.a.bc/d/>) and <https://e.fg>"),
        ("[x](https://a.bc)", "\\[x\\](<https://a.bc>)"),
    ],
)
def test_a_plain_url_of_a_source_can_be_copied(value, shown):
    assert text.escape_except_urls(value) == shown


@pytest.mark.parametrize(
    "value",
    [
        "http://a.bc/d",
        "javascript://a.bc",
        "xhttps://a.bc",
        "https://user@a.bc",
        "https://a.bc:80/d",
        "https://a.bc/?q=1",
        "https://a.bc/%0a",
        "https://a.bc/|x",
        "https://a.bc/><script>",
        "https://a.bc/`x`",
        "https://a.\u0430.bc",
        "https://localhost",
    ],
)
def test_any_other_address_stays_text(value):
    assert text.escape_except_urls(value) == text.escape(value)


@given(WORDS, WORDS)
@example("![", "](x)")
@example("<!--", "-->")
@settings(max_examples=200, deadline=None)
def test_text_around_a_url_is_shown_and_nothing_else(before, after):
    value = f"{before} https://a.bc/d {after}"
    rendered = RENDERER.render(text.escape_except_urls(value)).strip()
    assert shown(rendered) == seen(value)
    assert set(re.findall(r"<[^>]*>", rendered)) <= {"<p>", "</p>", '<a href="https://a.bc/d">', "</a>"}


def test_long_text_is_cut_before_it_is_escaped():
    assert text.escape("|" * 10, limit=4) == "\\|\\|\\|…"
    assert text.escape("abcd", limit=4) == "abcd"


def test_an_empty_cell_is_an_error():
    with pytest.raises(ValueError, match="write the reason"):
        text.table([{"A": "1", "B": "2"}, {"A": "3"}])


def test_the_padding_does_not_depend_on_wide_characters():
    assert text.table([{"A": "人"}, {"A": "ab"}]).splitlines()[2] == "| 人   |"


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (text.percent(0.85149), "85.1"),
        (text.percent(None), "not recorded"),
        (text.spread(0.5, None), "50.0"),
        (text.spread(0.5, 0.0123), "50.0 ± 1.2"),
        (text.signed(0.04), "0.0"),
        (text.signed(-0.04), "0.0"),
        (text.signed(-1.26), "-1.3"),
        (text.signed(2.0), "+2.0"),
        (text.interval([0.1, 0.25]), "[10.0, 25.0]"),
        (text.interval(None), "not recorded"),
        (text.millions(32_434_176), "32.43"),
        (text.giga(4.1e9), "4.10"),
        (text.gibibytes(3 * 2**30), "3.00"),
        (text.rate(1234.5), "1,234"),
        (text.rate(12.345), "12.3"),
        (text.rate(None), "not recorded"),
        (text.count(1, "query"), "1 query"),
        (text.count(2000, "query"), "2,000 queries"),
        (text.count(0, "run"), "0 runs"),
        (text.size((256, 128)), "256 × 128"),
        (text.address("a b/(c).png"), "a%20b/%28c%29.png"),
    ],
)
def test_formats(made, wanted):
    assert made == wanted
