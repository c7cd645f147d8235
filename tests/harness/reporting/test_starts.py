"""The page shows what every row was trained from, and warns where rows of a table differ."""

from __future__ import annotations

from typing import Any

from harness import registry
from harness.reporting import accuracy
from harness.reporting.report_data import ReportData
from harness.reporting.section import Context
from tests.support import record_samples as samples

CARDS = {entry.name: entry.card for entry in registry.backbones()}


def page(*runs: dict[str, Any]) -> str:
    datasets = {e.name: e.card for e in registry.datasets()}
    return accuracy.build(Context(ReportData(runs, backbones=CARDS, datasets=datasets), "figures")).markdown


def run(backbone: str, **spec: Any) -> dict[str, Any]:
    return samples.ok(samples.spec(backbone, **spec), samples.evaluation("market1501"))


def test_a_table_of_several_kinds_is_marked() -> None:
    text = page(run("bot", pretrained="sha256:1"), run("luperson", pretrained="sha256:2"), run("dummy"))
    assert "| Start" in text and "| people: LUPerson |" in text.replace("  ", "")
    warning = next(line for line in text.splitlines() if "start from different weights" in line)
    assert "ImageNet-1k (bot)" in warning and "people: LUPerson (luperson)" in warning and "none (dummy)" in warning


def test_a_table_of_one_kind_says_it_once() -> None:
    for pretrained, said in (("sha256:1", "ImageNet-1k"), ("none", "random weights")):
        text = page(run("bot", pretrained=pretrained), run("agw", pretrained=pretrained))
        assert "different weights" not in text and "| Start" not in text
        assert f"Start of the training: {said}." in text


def test_the_record_counts_before_the_card() -> None:
    text = page({**run("bot", pretrained="sha256:1"), "start": "CLIP"}, run("luperson", pretrained="sha256:2"))
    assert "CLIP (bot)" in text
