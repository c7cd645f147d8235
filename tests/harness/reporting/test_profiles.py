"""The section of the study says what the records support, and no more."""

from __future__ import annotations

from typing import Any

from harness import registry
from harness.reporting import cells, profiles
from harness.reporting.report_data import ReportData
from harness.reporting.section import Context
from tests.support import record_samples as samples

STEADY = {"fixed_work_ms": [10.0, 10.0], "others_cores": 0.0, "notes": []}
SHARED = {
    "fixed_work_ms": [10.0, 10.0],
    "others_cores": 1.2,
    "notes": ["other work used 1.2 cores during the measurement"],
}


def cell(backbone: str, *, latency: float, cpu: float | None = None, **changes: Any) -> dict[str, Any]:
    run = samples.spec(backbone, purpose="profile", values={"cell": sorted(map(str, changes.items()))})
    numbers = {"measure": "inference", "threads": 2, "conditions": STEADY, "latency_ms": latency}
    numbers |= {"latency_cpu_ms": cpu or latency, "repeats": 5, "scan": None}
    record = samples.ok(run, source="profile", **{**numbers, **changes})
    return {**record, "evaluations": []}


def section(*records: dict[str, Any]) -> str:
    return profiles.build(Context(ReportData(list(records), backbones={}, datasets={}), "figures")).markdown


def test_training_has_its_own_table_and_doubts_are_told():
    parts = {"weights": 2**30, "gradients": 2**30, "optimizer_state": 2**31, "activations": 2**29}
    step = {"train_step_ms": 1234.5, "train_step_quartiles_ms": [1200.0, 1300.0], "train_images_per_second": 6.0}
    trained = cell("bot", latency=1.0, measure="training", memory_bytes=parts, **step)
    said = section(trained, cell("bot", latency=7.5, conditions=SHARED, latency_quartiles_ms=[7.0, 8.25]))
    assert "### Training step" in said and "1,234 (1,200 .. 1,300)" in said
    assert "7.5 (7 .. 8.25)" in said
    assert "In 1 of 2 cells, other processes used" in said


def test_build_with_other_options_is_a_row_of_its_own():
    usual = cell("reidmamba", latency=50.0)
    card = registry.backbone("reidmamba").card
    other = cell("reidmamba", latency=80.0)
    other["spec"] = {**other["spec"], "options": {**card.options, "stride": 12}}
    usual["spec"] = {**usual["spec"], "options": dict(card.options)}
    material = ReportData([usual, other], backbones={"reidmamba": card}, datasets={})
    said = profiles.build(Context(material, "figures")).markdown
    assert "reidmamba (stride=12)" in said and [cells.is_usual(material, r) for r in (usual, other)] == [True, False]


def test_a_newer_record_of_one_cell_takes_the_place_of_the_older():
    old, new = cell("bot", latency=9.0), cell("bot", latency=8.0)
    new["timing"] = {**new["timing"], "started": "2026-01-01T00:00:00+00:00"}
    assert cells.current([new, old]) == [new]


def test_compiled_and_eager_cells_are_different_lines():
    sizes = ([128, 64], [256, 128])
    records = [
        cell("bot", latency=1.0, image_size=size, compiled=compiled, precision="fp32", batch_size=1, device="cpu",
             inference_images_per_second=10.0 * (1 + compiled))
        for size in sizes for compiled in (False, True)
    ]  # fmt: skip
    made = profiles.build(Context(ReportData(records, backbones={}, datasets={}), "figures"))
    titles = {line for line in made.markdown.splitlines() if line.startswith("![Throughput")}
    assert len(titles) == 2 and sum("compiled" in title for title in titles) == 1


def test_conditions_may_be_missing():
    bare = {"fixed_work_ms": None, "others_cores": None, "drift": None, "notes": None, "foreign_gpu_bytes": None}
    said = section(cell("bot", latency=2.0, conditions=bare), cell("pcb", latency=3.0, conditions={}))
    assert "| bot" in said and "| pcb" in said
