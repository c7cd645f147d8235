"""The check of foreign results: honest records pass, and each kind of forgery is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import metrics, stats
from harness.errors import UsageError
from harness.records import store
from harness.reporting.others.checks import scores as checks
from harness.spec.run_spec import RunSpec
from harness.system.paths import REPOSITORY
from harness.system.version import PROTOCOL_VERSION
from tests.support import record_samples as samples

Forge = Callable[[dict[str, Any], list[dict[str, Any]]], object]


def scored(seed: int = 0, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An honest record of features with noise, and the values of its queries."""
    draw = np.random.default_rng(seed)
    people = np.repeat(np.arange(12), 5)
    features = draw.normal(size=(12, 8))[people] + draw.normal(size=(60, 8))
    cameras, query = np.tile(np.arange(5), 12), np.tile([True, False, False, False, False], 12)
    found = metrics.evaluate_ranking(
        features[query], features[~query], people[query], people[~query], cameras[query], cameras[~query]
    )
    ap, first = found.average_precision, found.first_match_rank
    intervals = {"mAP": stats.bootstrap_interval(ap, people[query])}
    intervals["rank-1"] = stats.bootstrap_interval((first == 1).astype(float), people[query])
    evaluation = samples.evaluation(
        mAP=float(found.mAP),
        mINP=float(found.mINP),
        **{f"rank-{k}": float(found.cmc[k - 1]) for k in (1, 5, 10)},
        cmc=[round(float(value), 6) for value in found.cmc],
        **{"n_query": 12, "n_valid": 12, "n_gallery": 48, "per_query": "per_query.csv"},
        interval={name: list(pair) for name, pair in intervals.items()},
    )
    rows = [
        {**{"query": i, "pid": i, "camid": 0, "AP": float(ap[i]), "first_match_rank": int(first[i]), "positives": 4},
         "INP": float(found.inverse_negative_penalty[i])}
        for i in range(12)
    ]  # fmt: skip
    record = samples.ok(samples.spec("bot", seed=seed, protocol=PROTOCOL_VERSION, **changes), evaluation)
    record["environment"]["cores"] = 8
    return record, rows


def keep(folder: Path, record: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    return store.write(store.folder_of(folder, record), record, {"per_query.csv": rows})


def findings(folder: Path, **more: Any) -> list[str]:
    (run,) = harness.check_results(folder, **{"results": folder / "none", **more}).runs
    return [f"{finding.weight}: {finding.words}" for finding in run.findings if finding.weight != "unchecked"]


def test_an_honest_record_is_ok(tmp_path: Path) -> None:
    keep(tmp_path, *scored())
    found = harness.check_results(tmp_path, results=tmp_path / "none")
    assert [run.verdict for run in found.runs] == ["ok"], found.runs
    assert found.counts == {"ok": 1, "doubtful": 0, "wrong": 0}
    assert len(found.not_checked) == 4 and json.loads(json.dumps(found.to_dict()))["counts"]["ok"] == 1


FORGERIES: dict[str, tuple[Forge, str]] = {
    "a better mAP": (lambda r, q: r["evaluations"][0].update(mAP=0.9), "wrong: plain: mAP is 0.900000, but the values"),
    "a better rank-1": (lambda r, q: r["evaluations"][0].update({"rank-1": 1.0}), "wrong: plain: rank-1 is 1.000000"),
    "a better curve": (lambda r, q: r["evaluations"][0].update(cmc=[1.0] * 10), "wrong: plain: cmc[0] is 1.0"),
    "a narrower interval": (
        lambda r, q: r["evaluations"][0]["interval"].update(mAP=[0.5, 0.51]),
        "doubtful: plain: the interval of mAP is [0.5000, 0.5100]",
    ),
    "AP above what its rank allows": (
        lambda r, q: [row.update(AP=0.99, first_match_rank=7) for row in q],
        "wrong: plain: 12 of 12 queries have an AP or INP that their ranks do not allow.",
    ),
    "INP above what its rank allows": (
        lambda r, q: q[0].update(INP=1.0, first_match_rank=3, AP=0.3),
        "wrong: plain: 1 of 12 queries have an AP or INP",
    ),
    "a rank beyond any gallery": (
        lambda r, q: q[0].update(first_match_rank=2**62, positives=2**62),
        "wrong: plain: 1 of 12 queries have an AP or INP",
    ),
    "fewer queries": (lambda r, q: q.pop(), "wrong: plain: n_query is 12, but the file has 11; n_valid is 12"),
    "more gallery than images": (
        lambda r, q: r["data"].update(splits={"gallery": {"images": 47, "identities": 12, "cameras": 5}}),
        "wrong: market1501: n_gallery is 48, but the gallery split has 47 images.",
    ),
    "a part of the dataset": (
        lambda r, q: r["data"].update(splits={"train": {"images": 10, "identities": 751, "cameras": 6}}),
        "doubtful: market1501: train has 10 images, the card expects 12,936.",
    ),
    "impossible speed": (
        lambda r, q: r["efficiency"].update(inference_images_per_second=1e6),
        "doubtful: inference_images_per_second 1,000,000 means 4.1e+15 operations per second",
    ),
    "impossible speed of training": (
        lambda r, q: r["efficiency"].update(train_images_per_second=1e6),
        "doubtful: train_images_per_second 1,000,000 means 1.2e+16 operations per second",
    ),
    "training speed without time": (
        lambda r, q: r["efficiency"].update(train_step_ms=1.0, train_images_per_second=50.0),
        "wrong: 64 images in 1 ms are not 50 images per second.",
    ),
    "speed without time": (
        lambda r, q: r["efficiency"].update(latency_ms=1.0),
        "wrong: 64 images in 1 ms are not 120 images per second.",
    ),
    "fewer parameters than at test": (
        lambda r, q: r["efficiency"].update(parameters=1),
        "wrong: 23,500,000 parameters at test are more than all 1.",
    ),
    "memory below the weights": (lambda r, q: r["efficiency"].update(peak_memory_bytes=1e6), "doubtful: A peak memory"),
    "training in no time": (
        lambda r, q: (
            r["efficiency"].update(epochs=120, train_images_per_second=100.0),
            r["data"].update(splits={"train": {"images": 12936, "identities": 751, "cameras": 6}}),
        ),
        "doubtful: Training took 60 s, but 120 epochs of 12,936 images take 15,523 s",
    ),
    "the end before the start": (
        lambda r, q: r["timing"].update(ended="2024-12-31T00:00:00+00:00"),
        "wrong: The run ended before it started.",
    ),
    "the future": (lambda r, q: r["timing"].update(started="2999-01-01T00:00:00+00:00"), "doubtful: The run started"),
    "no time": (lambda r, q: r["timing"].update(started="yesterday"), "wrong: The start or end of the run is not"),
    "no query with a match": (
        lambda r, q: (
            r["evaluations"][0].update(n_valid=0),
            [row.update(AP=None, INP=None, first_match_rank=None, positives=0) for row in q],
        ),
        "wrong: plain: no query has a match",
    ),
    "hard queries without values": (
        lambda r, q: q[0].update(AP=None, INP=None, first_match_rank=None),
        "wrong: plain: 1 of 12 queries have matches without values",
    ),
    "INP of some queries alone": (
        lambda r, q: q[0].update(INP=None),
        "wrong: plain: 1 of 12 queries have matches without",
    ),
    "one query several times": (
        lambda r, q: [row.update(query=0) for row in q],
        "wrong: plain: the queries of the file are not numbered",
    ),
    "other identities": (
        lambda r, q: r["data"].update(splits={"query": {"images": 12, "identities": 11}}),
        "wrong: plain: the file has 12 identities, but the query split has 11.",
    ),
    "an easier protocol": (
        lambda r, q: r["evaluations"][0].update(protocol="cuhk03-classic"),
        "doubtful: plain: the protocol is cuhk03-classic, but the card of market1501 has standard.",
    ),
    "AP above 1 under a protocol with drawn galleries": (
        lambda r, q: (r["evaluations"][0].update(protocol="cuhk03-classic"), q[0].update(AP=7.0)),
        "wrong: plain: an AP or INP is not between 0 and 1.",
    ),
    "a second result": (
        lambda r, q: r["evaluations"].append({**r["evaluations"][0], "mAP": 0.95, "per_query": None}),
        "wrong: plain: the record has two results of this test.",
    ),
    "a dataset that was not asked for": (
        lambda r, q: r["evaluations"].append({**r["evaluations"][0], "dataset": "msmt17", "per_query": None}),
        "wrong: plain on msmt17: the spec does not score msmt17.",
    ),
    "no values": (
        lambda r, q: r["evaluations"][0].update(per_query=None),
        "doubtful: plain: its values per query are missing",
    ),
    "no interval": (
        lambda r, q: r["evaluations"][0].update(interval={}),
        "doubtful: plain: the interval of mAP is miss",
    ),
    "few operations": (
        lambda r, q: r["efficiency"].update(flops=1),
        "doubtful: 1 operations for an image are fewer than the 23,500,000 parameters at test.",
    ),
    "many cores": (lambda r, q: r["environment"].update(cores=10**9), "doubtful: The machine has 1,000,000,000 cores."),
    "resumed after the end": (
        lambda r, q: (
            r["efficiency"].update(epochs=120, train_images_per_second=100.0, resumed_at_epoch=121),
            r["data"].update(splits={"train": {"images": 12936, "identities": 751, "cameras": 6}}),
        ),
        "wrong: Training resumed at epoch 121 of 120.",
    ),
    "changed code": (lambda r, q: r["environment"].update(git_dirty=True), "doubtful: The checkout of commit abc had"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_named(tmp_path: Path, name: str) -> None:
    record, rows = scored()
    forge, words = FORGERIES[name]
    forge(record, rows)
    keep(tmp_path, record, rows)
    assert any(found.startswith(words) for found in findings(tmp_path)), findings(tmp_path)


@given(st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
def test_the_limits_of_ap_and_inp_hold_for_every_ranking(matches: list[bool]) -> None:
    ranks = np.flatnonzero(matches) + 1
    number = len(ranks)
    values = {"AP": np.mean(np.arange(1, number + 1) / ranks), "INP": number / ranks[-1]}
    values |= {"first_match_rank": ranks[0], "positives": number}
    rows = {name: np.array([value]) for name, value in values.items()}
    assert checks.impossible(rows, np.array([True]), len(matches)) == 0
    best = number / (ranks[0] + number - 1)
    assert checks.impossible({**rows, "INP": np.array([best + 0.01])}, np.array([True]), len(matches)) == 1
    assert checks.impossible(rows, np.array([True]), ranks[0] + number - 2) == 1


def test_what_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    """An edited spec, a missing file of queries, and a record in another folder."""
    for seed in range(3):
        keep(tmp_path, *scored(seed=seed))
    first, second, third = sorted(tmp_path.rglob("record.json"))
    first.write_text(first.read_text().replace('"seed": ', '"seed": 1'))
    (second.parent / "per_query.csv").unlink()
    third.parent.rename(third.parent.with_name("0" * 12))
    found = harness.check_results(tmp_path, results=tmp_path / "none")
    words = sorted(finding.words for run in found.runs for finding in run.findings if finding.weight == "wrong")
    assert found.counts == {"ok": 0, "doubtful": 0, "wrong": 3} and len(words) == 3
    assert "run_id is not the hash of spec" in words[1] and "belongs in" in words[0] and "cannot be read" in words[2]
    assert str(tmp_path) not in str(found.to_dict())


def test_a_pipe_instead_of_values_is_not_read(tmp_path: Path) -> None:
    folder = keep(tmp_path, *scored()).parent
    (folder / "per_query.csv").unlink()
    os.mkfifo(folder / "per_query.csv")
    assert any("is not a regular file" in words for words in findings(tmp_path))


def test_a_short_training_is_not_compared_with_its_speed(tmp_path: Path) -> None:
    """A sampler may leave out half of a small set."""
    record, rows = scored()
    record["efficiency"] |= {"epochs": 2, "train_images_per_second": 150.0}
    record["data"]["splits"] = {"train": {"images": 72}}
    record["timing"]["seconds"]["train"] = 0.4
    keep(tmp_path, record, rows)
    assert not any("Training took" in words for words in findings(tmp_path))


def test_the_protocol_and_the_files_are_compared_with_yours(tmp_path: Path) -> None:
    theirs, rows = scored(fingerprint="a" * 64)
    spec = {**theirs["spec"], "protocol": "0.9"}
    theirs |= {"spec": spec, "protocol_version": "0.9", "run_id": RunSpec(**spec).run_id}
    keep(tmp_path / "theirs", theirs, rows)
    keep(tmp_path / "mine", *scored())
    said = findings(tmp_path / "theirs", results=tmp_path / "mine")
    assert said[0] == "doubtful: market1501: the files differ from yours; fingerprint aaaaaaaaaaaa, yours ffffffffffff."
    assert said[1].startswith("doubtful: It was scored under protocol 0.9")


def test_queries_left_out_are_found_with_your_records_of_the_same_files(tmp_path: Path) -> None:
    keep(tmp_path / "mine", *scored())
    record, rows = scored(seed=1)
    keep(tmp_path / "theirs", record, rows)
    assert findings(tmp_path / "theirs", results=tmp_path / "mine") == []
    rows[0].update(AP=None, INP=None, first_match_rank=None, positives=0)
    record["evaluations"][0]["n_valid"] = 11
    keep(tmp_path / "theirs", record, rows)
    said = findings(tmp_path / "theirs", results=tmp_path / "mine")
    assert any(
        "n_valid 11, n_gallery 48, but your records of the same files have n_query 12" in words for words in said
    )


def test_runs_that_both_have_are_duplicates_or_contradictions(tmp_path: Path) -> None:
    same, rows = scored()
    other, others = scored(seed=1)
    for name in ("mine", "theirs"):
        keep(tmp_path / name, same, rows)
        keep(tmp_path / name, other, others)
        other["evaluations"][0]["mAP"] = 0.5
    found = harness.check_results(tmp_path / "theirs", results=tmp_path / "mine")
    kinds = sorted(words.partition(":")[0] for words in found.repeated)
    assert kinds == ["Contradiction", "Duplicate"]


def test_a_committed_run_is_ok(tmp_path: Path) -> None:
    run = "cuhk03-detected/transreid"
    shutil.copytree(REPOSITORY / "results" / run, tmp_path / run)
    found = harness.check_results(tmp_path, results=tmp_path / "none").runs
    weights = {finding.weight for one in found for finding in one.findings}
    assert weights == {"unchecked"}, "a trial has fewer images than the card, and may have been stopped"
    assert {store.read(REPOSITORY / "results" / run / one.run_id[:12])["source"] for one in found} == {
        "trained", "search"
    }  # fmt: skip


def test_a_trial_that_lost_images_is_found(tmp_path: Path) -> None:
    record, rows = scored(purpose="search", holdout={"seed": 0, "share": 0.3})
    record["source"] = "search"
    parts = {"train": (9000, 500), "query": (12, 12), "gallery": (48, 251)}
    record["data"]["splits"] = {name: {"images": n, "identities": k} for name, (n, k) in parts.items()}
    keep(tmp_path, record, rows)
    assert [words for words in findings(tmp_path) if "card" in words] == [
        "doubtful: market1501: train has 9,060 images, the card expects 12,936."
    ]


def test_the_command(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    record, rows = scored()
    keep(tmp_path, record, rows)
    code, out, _ = cli("results", "check", tmp_path, "--results", tmp_path / "none")
    assert code == 0 and "1 ok, 0 doubtful, 0 wrong." in out and "What no check of records can find:" in out
    record["evaluations"][0]["mAP"] = 0.99
    keep(tmp_path, record, rows)
    code, out, _ = cli("results", "check", tmp_path, "--results", tmp_path / "none", "--format", "json")
    assert code == 1 and json.loads(out)["runs"][0]["verdict"] == "wrong"
    with pytest.raises(UsageError, match="There are no records"):
        harness.check_results(tmp_path / "market1501")
    assert cli("results", "check", tmp_path / "no")[0] == 2
