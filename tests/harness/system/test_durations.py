"""Durations: one text for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.system import durations


@pytest.mark.parametrize(
    ("written", "text"), [("30m", "30m"), ("1800", "30m"), (1800, "30m"), ("0.5h", "30m"), ("90s", "90s"), ("2d", "2d")]
)
def test_equal_durations_have_one_text(written: float | str, text: str) -> None:
    assert durations.text(durations.seconds(written)) == text


@given(st.integers(1, 10**7).map(lambda tenths: tenths / 10))
def test_a_text_is_read_as_it_was(seconds: float) -> None:
    assert durations.seconds(durations.text(seconds)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("written", ["m", "-1s", "1 hour", "nan", "inf"])
def test_others_are_refused(written: str) -> None:
    with pytest.raises(UsageError, match="30m"):
        durations.seconds(written)


def test_nothing_is_no_limit() -> None:
    assert durations.seconds("") == durations.seconds(0) == 0
