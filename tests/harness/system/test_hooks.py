"""Points at which tests inject faults."""

from __future__ import annotations

import re

import pytest

from harness.spec.names import STAGES
from harness.system import hooks
from harness.system.paths import REPOSITORY


def test_nothing_happens_without_a_fault() -> None:
    assert hooks.reached("epoch", epoch=1) is None


def test_fault_gets_the_facts_of_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_faults", {})
    seen: list[dict[str, int]] = []
    hooks.inject("epoch", lambda **facts: seen.append(facts))
    hooks.reached("save", epoch=1)
    hooks.reached("epoch", epoch=2)
    assert seen == [{"epoch": 2}]


def test_unknown_point_is_refused() -> None:
    with pytest.raises(KeyError, match=r"Unknown point 'epohc'\. Known: start, data"):
        hooks.inject("epohc", print)


def test_every_point_is_reached_somewhere() -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / "harness").rglob("*.py"))
    assert {*re.findall(r"hooks\.reached\(\"(\w+)\"", source), *STAGES} == hooks.POINTS.keys()
