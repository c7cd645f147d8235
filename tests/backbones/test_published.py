"""Published results of the cards have the values of their sources and are shown on the page."""

from __future__ import annotations

import pytest

from harness import registry
from harness.cards import Published
from harness.reporting import published
from harness.reporting.report_data import ReportData
from harness.reporting.section import Context
from tests.support import record_samples as samples

SURVEY = {
    "market1501": (85.9, 94.5, 59.4),
    "dukemtmc": (76.4, 86.4, 40.7),
    "cuhk03-detected": (56.6, 58.0, 43.8),
    "msmt17": (45.1, 63.4, 12.4),
}


def rows(backbone: str) -> tuple[Published, ...]:
    return registry.backbone(backbone).card.published


def test_bot_has_the_numbers_of_the_survey() -> None:
    found = {r.dataset: (r.mAP, r.rank1, r.mINP) for r in rows("bot") if "ReID-Survey" in r.source}
    assert found == SURVEY
    assert all("survey" in r.setup for r in rows("bot") if "ReID-Survey" in r.source)


def test_bot_has_the_mINP_of_fast_reid() -> None:
    found = {r.dataset: r.mINP for r in rows("bot") if r.variant == "fast-reid"}
    assert found == {"market1501": 59.4, "dukemtmc": 42.1, "msmt17-train": 10.4}


def test_reidmamba_has_both_tests_of_its_log() -> None:
    found = {r.flip: (r.mAP, r.rank1, r.rank5, r.rank10, r.mINP) for r in rows("reidmamba")}
    assert found == {False: (89.58, 95.46, 98.31, 98.99, 70.70), True: (89.88, 95.52, 98.37, 99.05, 71.51)}
    assert {r.flip: "not the main result" in r.setup for r in rows("reidmamba")} == {False: True, True: False}
    assert all("main result" in r.setup for r in rows("reidmamba"))


def test_every_row_names_a_dataset_and_a_source() -> None:
    datasets = {entry.name for entry in registry.datasets()}
    for entry in registry.backbones():
        for row in entry.card.published:
            values = [row.mAP, row.rank1, *(v for v in (row.rank5, row.rank10, row.mINP) if v is not None)]
            assert row.dataset in datasets and row.source and all(0 < value < 100 for value in values), row


RUN = (("reidmamba", "market1501"), ("bot", "msmt17"))


@pytest.mark.parametrize(
    ("first", "expected"), [("89.9", ["95.5", "98.4", "99.0", "71.5"]), ("45.1", ["63.4", "none", "none", "12.4"])]
)
def test_the_page_shows_what_is_given_and_says_none_else(first: str, expected: list[str]) -> None:
    cards = {name: registry.backbone(name).card for name in ("bot", "reidmamba")}
    runs = [samples.ok(samples.spec(name, dataset=d), samples.evaluation(d)) for name, d in RUN]
    material = ReportData(runs, backbones=cards, datasets={e.name: e.card for e in registry.datasets()})
    page = published.build(Context(material, "figures")).markdown
    header, _, *lines = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    assert header[4:9] == ["mAP", "rank-1", "rank-5", "rank-10", "mINP"]
    assert [line[5:9] for line in lines if line[4] == first] == [expected]
