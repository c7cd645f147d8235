"""Records are written atomically, refused if damaged, found by id, and listed fast."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import RecordError
from harness.records import schema, store
from harness.spec.job import run_folder
from harness.system import files
from harness.system.paths import REPOSITORY
from tests.support import record_samples as samples

WORDS = st.text(max_size=30)
FRACTIONS = st.floats(0, 1)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def keep(results: Path, run: dict[str, Any], per_query: Any = None) -> Path:
    return store.write(store.folder_of(results, run), run, per_query)


@given(
    name=WORDS,
    options=st.dictionaries(WORDS, JSON, max_size=3),
    mAP=st.floats(0, 0.7),
    cmc=st.lists(FRACTIONS, max_size=50).map(sorted),
    message=WORDS,
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, name, options, mAP, cmc, message):
    run = samples.spec(backbone=name, options=options)
    for one in (samples.ok(run, samples.evaluation(mAP=mAP, cmc=cmc)), samples.failed(run, message=message)):
        path = keep(tmp_path, one)
        assert store.read(path) == store.read(path.parent) == store.find(tmp_path, run) == one
        assert store.find(tmp_path, run.run_id) == one


def test_what_could_not_be_read_is_not_written(tmp_path):
    """JSON allows whole numbers of any size, but its readers do not."""
    with pytest.raises(RecordError, match="is invalid: run_id"):
        keep(tmp_path, samples.ok(samples.spec(options={"width": 2**70})))
    assert not list(tmp_path.rglob("record.json"))


@given(value=JSON)
def test_rendering_only_moves_white_space(value):
    assert json.loads(store.render({"value": value})) == {"value": value}


def test_a_list_of_numbers_is_one_line():
    assert '"cmc": [0.5, 1e-07]' in store.render({"cmc": [0.5, 1e-7]})


def test_folder_is_the_one_the_run_works_in(tmp_path):
    run = samples.spec(backbone="timm:a/b")
    assert store.folder_of(tmp_path, samples.ok(run)) == run_folder(tmp_path, run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "fine"}, "status must be one of diverged, failed, interrupted, ok, oom, timeout, found 'fine'"),
        (
            {"source": "hearsay"},
            "source must be one of features, profile, published-checkpoint, search, trained, found 'hearsay'",
        ),
        ({"error": {"message": "x"}}, "status is ok but there is an error"),
        ({"status": "failed"}, "error.message is missing"),
        ({"evaluations": []}, "no evaluation"),
        ({"evaluations": [3]}, "evaluations[0] must be a table, found 3"),
        ({"evaluations": [samples.evaluation(mAP=1.2)]}, "evaluations[0].mAP must be a number from 0 to 1, found 1.2"),
        ({"evaluations": [samples.evaluation(cmc=[0.5, 0.4])]}, "cmc decreases"),
        ({"evaluations": [samples.evaluation(cmc=["0.5"])]}, "cmc[0] must be a number from 0 to 1"),
        ({"evaluations": [samples.evaluation(n_valid=13)]}, "13 valid of 12 queries"),
        ({"evaluations": [samples.evaluation(flip=1)]}, "evaluations[0].flip must be true or false, found 1"),
        ({"run_id": "0" * 64}, "not the hash of spec"),
        ({"spec": {}}, "spec lacks backbone, dataset, device, options, protocol, recipe, seed, values"),
        ({"environment": None}, "environment must be a table, found None"),
        ({"environment": {"cpu": []}}, "environment.cpu must be text or true or false or a number or null, found []"),
        ({"efficiency": {"image_size": [64]}}, "efficiency.image_size must be a list of 2 values or null, found [64]"),
        (
            {"data": {"evaluated": {"a": {}, "b": {"splits": {"query": 3}}}}},
            "data.evaluated.b.splits.query must be a table",
        ),
        ({"schema_version": True}, "schema_version must be a whole number, found True"),
    ],
)
def test_invalid_records_are_refused(tmp_path, change, words):
    broken = {**samples.ok(samples.spec()), **change}
    assert any(words in problem for problem in schema.validate(broken))
    with pytest.raises(RecordError):
        store.write(tmp_path / "run", broken)
    assert not (tmp_path / "run").exists()


def test_not_a_number_is_refused(tmp_path):
    one = samples.ok(samples.spec(), inference_images_per_second=math.nan)
    with pytest.raises(RecordError, match="Use null for missing numbers"):
        keep(tmp_path, one)
    path = keep(tmp_path, samples.ok(samples.spec()))
    path.write_text(path.read_text().replace("120.0", "NaN"))
    with pytest.raises(RecordError, match="is not valid JSON"):
        store.read(path)


def test_every_truncation_is_noticed(tmp_path):
    path = keep(tmp_path, samples.ok(samples.spec()))
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=r"record\.json"):
            store.read(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "no schema_version"),
        (b'{"schema_version": "1"}', "no schema_version"),
        (b'{"schema_version": 999}', "Update the harness"),
        (b'{"schema_version": 0}', "cannot read"),
    ],
)
def test_damaged_text_is_one_clear_sentence(data, words):
    with pytest.raises(RecordError, match=words) as caught:
        store.parse(data, "here")
    assert str(caught.value).startswith("here ") and "\n" not in str(caught.value)


def test_older_schemas_are_migrated_when_read_and_left_on_disk(tmp_path, monkeypatch):
    path = keep(tmp_path, samples.ok(samples.spec()))
    old = json.loads(path.read_text())
    old["schema_version"] = store.SCHEMA_VERSION - 1
    old["origin"] = old.pop("source")
    path.write_text(json.dumps(old))
    before = path.read_bytes()
    rename = {store.SCHEMA_VERSION - 1: lambda r: {**r, "source": r.pop("origin")}}
    monkeypatch.setattr(store, "MIGRATIONS", rename)
    assert store.read(path)["source"] == "trained"
    assert store.read(path)["schema_version"] == store.SCHEMA_VERSION
    assert path.read_bytes() == before


def test_corrupt_records_are_reported_and_skipped(tmp_path):
    good, bad, lost = (samples.ok(samples.spec(seed=seed)) for seed in range(3))
    keep(tmp_path, good)
    keep(tmp_path, bad).write_text("{")
    store.write(tmp_path / "market1501" / "beta" / lost["run_id"][:12], lost)
    problems: list[RecordError] = []
    assert [r["run_id"] for r in store.records(tmp_path, problems.append)] == [good["run_id"]]
    assert list(store.index(tmp_path, problems.append)) == [good["run_id"]]
    assert sorted("belongs in" in str(p) for p in problems) == [False, False, True, True]


def test_full_disk_keeps_the_old_record(tmp_path, monkeypatch):
    one = samples.ok(samples.spec())
    path = keep(tmp_path, one)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        keep(tmp_path, samples.failed(samples.spec()))
    assert store.read(path) == one
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_index_follows_the_folder(tmp_path):
    runs = [samples.spec(seed=seed) for seed in range(3)]
    for run in runs:
        keep(tmp_path, samples.failed(run))
    first = store.index(tmp_path)
    assert {e.status for e in first.values()} == {"oom"} and first == store.index(tmp_path)
    keep(tmp_path, samples.ok(runs[0], samples.evaluation(mAP=0.25)))
    (run_folder(tmp_path, runs[1]) / "record.json").unlink()
    entries = store.index(tmp_path)
    assert set(entries) == {runs[0].run_id, runs[2].run_id}
    entry = entries[runs[0].run_id]
    assert (entry.status, entry.mAP, entry.seconds, entry.message) == ("ok", 0.25, 62.5, "")


def test_index_reads_only_what_is_new(tmp_path, monkeypatch):
    for seed in range(3):
        keep(tmp_path, samples.ok(samples.spec(seed=seed)))
    store.index(tmp_path)
    keep(tmp_path, samples.ok(samples.spec(seed=3)))
    seen: list[Path] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: seen.append(path) or read(path))
    assert len(store.index(tmp_path)) == 4 and len(seen) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": [0, 0, []], "entries": {}}', '{"version": 1}'])
def test_a_damaged_index_is_rebuilt(tmp_path, damage):
    keep(tmp_path, samples.ok(samples.spec()))
    entries = store.index(tmp_path)
    (tmp_path / store.INDEX).write_text(damage)
    assert store.index(tmp_path) == entries


def test_index_of_a_read_only_folder_works_without_a_cache(tmp_path, monkeypatch):
    keep(tmp_path, samples.ok(samples.spec()))

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(files, "replace", refuse)
    assert len(store.index(tmp_path)) == 1
    assert not (tmp_path / store.INDEX).exists()


def test_index_bears_concurrent_writers(tmp_path):
    problems: list[Any] = []

    def work(first: int) -> None:
        try:
            for seed in range(first, first + 10):
                keep(tmp_path, samples.ok(samples.spec(seed=seed)))
                store.index(tmp_path, problems.append)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(10 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(store.index(tmp_path)) == 40
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_empty_or_absent_folder_has_no_records(tmp_path):
    assert list(store.records(tmp_path / "absent")) == [] and store.index(tmp_path / "absent") == {}
    assert store.find(tmp_path / "absent", "0" * 64) is None and store.read_plan(tmp_path / "absent") == []


def test_a_replaced_plan_keeps_the_other_cells(tmp_path):
    cell = {
        "backbone": "alpha",
        "dataset": "market1501",
        "recipe": "unified",
        "state": "blocked",
        "reason": "no data",
    }
    other = {**cell, "dataset": "dukemtmc"}
    store.write_plan(tmp_path, [cell, cell, other])
    assert store.read_plan(tmp_path) == [other, cell]
    store.write_plan(tmp_path, [{**cell, "state": "cached"}])
    assert store.read_plan(tmp_path) == [other]
    (tmp_path / store.PLAN).write_text("[{}]")
    with pytest.raises(RecordError, match=r"plan\.json is damaged"):
        store.read_plan(tmp_path)


def test_two_drivers_do_not_lose_each_others_plan(tmp_path, monkeypatch):
    read = store.read_plan

    def slowly(results):
        cells = read(results)
        threading.Event().wait(0.02)
        return cells

    monkeypatch.setattr(store, "read_plan", slowly)
    cells = [{"backbone": str(n), "dataset": "d", "recipe": "r", "state": "to do", "reason": ""} for n in range(6)]
    drivers = [threading.Thread(target=store.write_plan, args=(tmp_path, [cell])) for cell in cells]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert read(tmp_path) == cells


def test_the_plain_evaluation_is_the_one_without_extras():
    rows = [
        samples.evaluation(trained=False, mAP=0.1),
        samples.evaluation("dukemtmc", mAP=0.2),
        samples.evaluation(rerank=True, mAP=0.6),
        samples.evaluation(flip=True, mAP=0.4),
        samples.evaluation(mAP=0.3),
    ]
    assert store.plain(samples.ok(samples.spec(), *rows))["mAP"] == 0.3
    assert store.plain(samples.ok(samples.spec(), *rows[:4]))["mAP"] == 0.4
    assert store.plain(samples.ok(samples.spec(), rows[1])) is None


def test_the_store_does_not_load_heavy_libraries():
    code = "import sys, harness.records.store; print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
