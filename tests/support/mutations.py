"""Mutations of valid files: bytes removed, changed and duplicated, and values replaced by unexpected ones."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError

FEW = 8
"""Number of examples per target in the test suite; they are always the same."""

SECONDS = float(os.environ.get("HARNESS_FUZZ_SECONDS", "0"))
"""Seconds to fuzz each target with new examples; 0 uses only the examples of the test suite."""

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, "", "x", "nan", "../x", "a|b<script>",
    "\ud800", "\0", "é" * 300, [], [1], [[]], ["x", None], [0.5] * 3, {}, {"x": 1}, {"": {}}, "{model.__class__}",
    "{}", "{x}",
]  # fmt: skip
NUMBERS_JSON = ["NaN", "Infinity", "1e999", "-1e999", "9" * 5000, "1e400", "-0"]
NASTY_TOML = [
    "nan", "inf", "-inf", "1e999", "-1", "0", "9" * 30, "9" * 5000, "true", '""', '"x"', "[]", "[[1]]", "[1, 2, 3]",
    '["x"]', "{}", "{x = 1}", "1979-05-27", "07:32:00", "[" * 3000, '"{model.__class__}"', '"{x}"', '"a/b"',
    '"\\u0000"',
]  # fmt: skip


def fuzz(what: st.SearchStrategy[Any], check: Callable[[Any], object]) -> int:
    """Checks a few examples, or new ones until the time is over; returns their number."""
    count = 0
    quiet = settings(
        max_examples=300 if SECONDS else FEW,
        derandomize=not SECONDS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @quiet
    @given(what)
    def once(value: Any) -> None:
        nonlocal count
        count += 1
        check(value)

    end = time.monotonic() + SECONDS
    once()
    while time.monotonic() < end:
        once()
    return count


def told(what: str, count: int) -> None:
    """Prints the number of examples of a target."""
    print(f"\n{what}: {count:,} examples", end="")


@contextlib.contextmanager
def only_documented() -> Iterator[None]:
    """Checks that only errors of the harness are raised, and that each can be printed."""
    try:
        yield
    except HarnessError as error:
        assert str(error).strip() and str(error).encode("utf-8", "backslashreplace")


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, most: int = 4) -> bytes:
    """Draws a valid file with a few damages."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["cut", "flip", "flip", "set", "set", "drop", "double", "insert"]))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "cut":
            del data[at:]
        elif kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at : at + 4] = draw(
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
            )
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, valid: Any, most: int = 2) -> Any:
    """Draws plain data with a few values replaced, removed or added."""
    data = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(data))
        if not places:
            return draw(st.sampled_from(NASTY))
        inside, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["replace"] * 4 + ["remove", "add"]))
        value = copy.deepcopy(draw(st.sampled_from(NASTY)))
        if kind == "remove":
            del inside[key]
        elif kind == "add" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["", "x", "name", "a.b"]))] = value
        else:
            inside[key] = value
    return data


@st.composite
def changed_json(draw: st.DrawFn, valid: Any) -> str:
    """Draws JSON text of changed data, sometimes with invalid numbers or damaged text."""
    text = json.dumps(draw(changed(valid)))
    kind = draw(st.sampled_from(["whole"] * 6 + ["number", "text"]))
    if kind == "number":
        parts = text.split("1")
        at = draw(st.integers(0, len(parts) - 1))
        text = "1".join(parts[:at]) + draw(st.sampled_from(NUMBERS_JSON)) + "1".join(parts[at:])
    if kind == "text":
        return draw(damaged(text.encode())).decode("utf-8", "replace")
    return text


@st.composite
def changed_toml(draw: st.DrawFn, valid: str) -> str:
    """Draws TOML text with values replaced, lines removed or duplicated, sometimes with damaged text."""
    lines = valid.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["value"] * 4 + ["remove", "double", "add"]))
        key, equals, _ = lines[at].partition("=")
        if kind == "value" and equals:
            lines[at] = f"{key}= {draw(st.sampled_from(NASTY_TOML))}"
        elif kind == "remove" and len(lines) > 1:
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        else:
            name = draw(st.sampled_from(["dataset", "name", "loss", "x", "options", "kind", "requires", "[x]", "a.b"]))
            lines.insert(at, f"{name} = {draw(st.sampled_from(NASTY_TOML))}")
    text = "\n".join(lines) + "\n"
    if draw(st.integers(0, 9)) == 0:
        return draw(damaged(text.encode())).decode("utf-8", "replace")
    return text


def _places(data: Any) -> Any:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key
        yield from _places(value)
