"""Claims that compare a backbone with others: pairs under equal conditions, and every verdict."""

from __future__ import annotations

from typing import Any

import pytest

from harness import registry
from tests.harness.reporting.claims.conftest import STEADY, Lab

SHARED = {**STEADY, "others_cores": 1.2, "notes": ["other work used 1.2 cores during the measurement"]}
GOOD = [0.8, 0.9, 0.7, 0.8, 0.85, 0.75, 0.8, 0.9] * 4
BAD = [value - 0.1 for value in GOOD]


def verdict(lab: Lab, metric: str) -> tuple[str, str]:
    relation = lab.claim(metric)
    return relation.verdict, relation.reason


def test_without_records_of_both_nothing_is_said(lab: Lab) -> None:
    lab.cell("ours")
    lab.cell("bot", batch_size=8)
    for metric in ("memory", "speed", "mAP"):
        assert verdict(lab, metric) == ("not run", "no records of both under equal conditions")


@pytest.mark.parametrize(("ours", "expected"), [(9_000_000, "supported"), (9_100_000, "not supported")])
def test_parameters_are_held_against_the_factor(lab: Lab, ours: int, expected: str) -> None:
    lab.cell("ours", parameters=ours)
    lab.cell("bot", parameters=25_000_000)  # 0.36 of it are 9 million
    lab.cell("bot", parameters=25_000_001, batch_size=8)  # does not depend on the batch
    assert verdict(lab, "parameters")[0] == expected
    (pair,) = lab.claim("parameters").pairs
    assert pair.ratio == pytest.approx(ours / 25e6, rel=1e-6) and pair.where == "256 × 128"


def test_an_equal_value_is_not_below(lab: Lab) -> None:
    for name in ("ours", "bot"):
        lab.cell(name, parameters=9_000_000, device="cuda", peak_memory_bytes=2**30)
    assert verdict(lab, "memory") == ("not supported", "in 0 of 1 pair")


def test_memory_on_another_device_decides_nothing(lab: Lab) -> None:
    lab.cell("ours", peak_memory_bytes=1)
    lab.cell("bot", peak_memory_bytes=2)
    assert verdict(lab, "memory") == ("not comparable", "measured on cpu, and the claim is about cuda")
    lab.cell("ours", device="cuda", peak_memory_bytes=1, conditions=SHARED)  # does not depend on other work
    lab.cell("bot", device="cuda", peak_memory_bytes=2)
    assert verdict(lab, "memory") == (
        "supported",
        "in 1 of 1 pair; 1 undecided: measured on cpu, and the claim is about cuda",
    )


def test_speed_is_held_against_equal_conditions(lab: Lab) -> None:
    lab.cell("ours", latency_ms=50.0)
    lab.cell("bot", latency_ms=100.0)
    assert verdict(lab, "speed") == ("supported", "in 1 of 1 pair")
    (pair,) = lab.claim("speed").pairs
    assert (pair.ratio, pair.ours, pair.theirs) == (2.0, 1280.0, 640.0)  # 64 images
    lab.cell("ours", latency_ms=50.0, batch_size=8)
    lab.cell("bot", latency_ms=40.0, batch_size=8)
    assert verdict(lab, "speed") == ("supported in part", "in 1 of 2 pairs")


@pytest.mark.parametrize("conditions", [SHARED, {**STEADY, "fixed_work_ms": [10.0, 14.0]}, {**STEADY, "drift": 1.2}])
def test_times_of_a_shared_or_unsteady_device_decide_nothing(lab: Lab, conditions: dict[str, Any]) -> None:
    lab.cell("ours", latency_ms=50.0)
    lab.cell("bot", latency_ms=100.0, conditions=conditions)
    assert verdict(lab, "speed") == ("not comparable", "the device was not equally fast or not steady")


def test_on_one_thread_processor_time_leaves_other_work_out(lab: Lab) -> None:
    lab.cell("ours", latency_ms=400.0, latency_cpu_ms=50.0, threads=1, conditions=SHARED)
    lab.cell("bot", latency_ms=100.0, latency_cpu_ms=75.0, threads=1)
    assert verdict(lab, "speed")[0] == "supported"
    assert lab.claim("speed").pairs[0].ratio == pytest.approx(1.5)


@pytest.mark.parametrize(("ours", "expected"), [(103.0, "not comparable"), (110.0, "not supported")])
def test_a_difference_within_its_error_decides_nothing(lab: Lab, ours: float, expected: str) -> None:
    lab.cell("ours", latency_ms=ours, relative_error=0.02)
    lab.cell("bot", latency_ms=100.0, relative_error=0.02)
    assert verdict(lab, "speed")[0] == expected


def test_a_build_with_other_options_is_another_network(lab: Lab) -> None:
    lab.cell("ours", parameters=9_000_000)
    lab.run(50.0, backbone="ours", options={"stride": 8})
    lab.cell("bot", parameters=25_000_000)
    assert len(lab.claim("parameters").pairs) == 1


def two(lab: Lab, backbone: str, mAP: float, values: list[float], **changes: Any) -> None:
    for seed in (0, 1):
        lab.run(mAP + 0.1 * seed, backbone=backbone, per_query=values, seed=seed, **changes)


def test_the_best_score_needs_queries_and_seeds(lab: Lab) -> None:
    two(lab, "ours", 80.0, GOOD)
    two(lab, "bot", 70.0, BAD)
    assert verdict(lab, "mAP") == ("supported", "in 1 of 1 pair")
    (pair,) = lab.claim("mAP").pairs
    assert (pair.comparator, pair.where, pair.holds) == ("bot", "recipe native, plain", True)
    two(lab, "transreid", 85.0, [value + 0.1 for value in GOOD])
    assert verdict(lab, "mAP") == ("supported in part", "in 1 of 2 pairs")


def test_a_worse_score_refutes_it(lab: Lab) -> None:
    two(lab, "ours", 70.0, BAD)
    two(lab, "bot", 80.0, GOOD)
    assert verdict(lab, "mAP") == ("not supported", "in 0 of 1 pair")


def test_one_seed_decides_no_claim(lab: Lab) -> None:
    two(lab, "ours", 80.0, GOOD)
    lab.run(70.0, backbone="bot", per_query=BAD)
    assert verdict(lab, "mAP") == ("not comparable", "one seed says nothing about training")


def test_a_difference_within_the_seeds_is_undecided(lab: Lab) -> None:
    two(lab, "ours", 80.0, GOOD)
    two(lab, "bot", 79.9, BAD)
    assert verdict(lab, "mAP") == ("not comparable", "+0.1 points to bot, which the seeds cannot tell from 0")


def test_a_difference_that_only_the_seeds_show_is_undecided(lab: Lab) -> None:
    two(lab, "ours", 80.0, GOOD)
    two(lab, "bot", 79.0, GOOD[::-1])
    assert verdict(lab, "mAP") == ("not comparable", "+1.0 points to bot, which the queries cannot tell from 0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"generated": {"seed": 1}}, "the images are generated"),
        ({"notes": {"image_sizes": "a resized copy"}}, "the images are resized"),
        ({"count_mismatch": ["query has 3 images"]}, "image counts differ from the card"),
    ],
)
def test_other_images_decide_no_claim(lab: Lab, data: dict[str, Any], reason: str) -> None:
    two(lab, "ours", 80.0, GOOD, data=data)
    two(lab, "bot", 70.0, BAD, data=data)
    assert verdict(lab, "mAP") == ("not comparable", reason)


def test_missing_values_per_query_are_a_reason(lab: Lab) -> None:
    two(lab, "ours", 80.0, GOOD)
    for seed in (0, 1):
        lab.run(70.0 + seed / 10, backbone="bot", seed=seed)
    assert verdict(lab, "mAP")[0] == "not comparable" and "has no per-query values" in verdict(lab, "mAP")[1]


def test_an_unknown_comparator_is_named(lab: Lab) -> None:
    card = lab.plugins / "ours" / "card.toml"
    card.write_text(card.read_text().replace('comparator = "bot"', 'comparator = "bott"', 1))
    registry.lookup._scan.cache_clear()  # as in a new process
    assert verdict(lab, "parameters") == (
        "not comparable",
        "no backbone 'bott' is registered. Did you mean 'bot'?",
    )


def test_reidmambas_claims_are_on_its_card() -> None:
    claims = registry.backbone("reidmamba").card.claims
    datasets = {entry.name for entry in registry.datasets()}
    assert [c.metric for c in claims] == ["parameters", "memory", "memory", "speed", "mAP"]
    assert {c.comparator for c in claims} == {"transreid", "all"}
    assert all(c.source and c.text and datasets.issuperset(c.datasets) for c in claims)
