"""Audits of whole runs: during a run, of a finished one, of a file of features; and what they leave untouched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness import registry, reporting, tracking
from harness.errors import UsageError
from harness.records import store
from harness.tracking import content
from tests.harness.worker.deploy.conftest import Shop, Trained
from tests.support.runs import arguments, only_record

Cli = Callable[..., tuple[int, str, str]]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_runs")]


def places(world: Path, run: Trained) -> dict[str, Any]:
    return {"run": run.run_id, "results": run.results, "data_root": world, "device": "cpu", "mlflow": False}


def by_setting(blocks: list[dict[str, Any]], check: str, dataset: str = "market1501") -> dict[str, float]:
    (block,) = [b for b in blocks if (b["check"], b["dataset"]) == (check, dataset)]
    assert block["error"] is None, block["error"]
    return {f"{row['name']} {row['setting']}": row["value"] for row in block["rows"]}


@pytest.fixture
def transreid(trained: Shop) -> Trained:
    return trained("transreid", options={"transreid": {"camera_embedding": "on"}})


def test_a_finished_run_is_audited_from_its_checkpoint(
    cli: Cli, world: Path, transreid: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.read(transreid.folder)
    found = harness.audit(checks="camera,average-precision", **places(world, transreid))
    camera = by_setting(found, "camera")
    (plain,) = [e for e in before["evaluations"] if e["trained"] and not e["flip"] and not e["rerank"]]
    assert camera["mAP {'cameras': 'as evaluated'}"] == plain["mAP"]
    assert len({camera[f"mAP {{'cameras': '{how}'}}"] for how in ("off", "mean", "shuffled")}) == 3
    after = store.read(transreid.folder)
    assert [block["check"] for block in after["audits"]] == ["average-precision", "camera"]
    assert {**after, "audits": None} == {**before, "audits": None}
    words = ["--results", transreid.results, "--data-root", world, "--device", "cpu", "--no-mlflow"]
    code, out, err = cli("audit", "--run", transreid.run_id[:8], "--checks", "camera", "--format", "json", *words)
    assert code == 0, err
    shown = json.loads(out[out.index("[\n") :])
    assert by_setting(shown, "camera") == camera and len(store.read(transreid.folder)["audits"]) == 2
    code, out, _ = cli("audit", "--run", transreid.run_id[:8], "--checks", "average-precision,open-set", *words)
    assert code == 0 and "TPIR" in out and "Record:" in out
    data = reporting.collect(transreid.results)
    page = transreid.folder.parent / "page.md"
    reporting.build(data, page)
    text = page.read_text()
    assert "## Audits" in text and "mAP of camera pairs" in text
    assert list((page.parent / "figures").glob("audit.camera.*.png"))


def test_thresholds_pass_from_one_dataset_to_another(world: Path, transreid: Trained) -> None:
    found = harness.audit(dataset="market1501,msmt17", checks=["open-set"], **places(world, transreid))
    assert any(name.startswith("TPIR at a threshold") for name in by_setting(found, "open-set", "msmt17"))


def test_audits_of_a_run_change_neither_its_id_nor_its_scores(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    def run(name: str, *more: str) -> tuple[int, str, str]:
        own = ["--plugins", plugin_folder, "--set", "training.epochs=1"]
        return cli(*arguments(world, tmp_path / name, *own, *more, backbones="pixels"))

    for name, more in (("without", ()), ("with", ("--audit", "camera,breakdown"))):
        code, out, err = run(name, *more)
        assert code == 0, out + err
    plain, audited = (only_record(tmp_path / name) for name in ("without", "with"))
    assert "audits" not in plain and plain["run_id"] == audited["run_id"]
    assert plain["evaluations"] == audited["evaluations"] and "audit" in audited["timing"]["seconds"]
    first = {b["check"]: b for b in audited["audits"]}
    assert first["camera"]["notes"][0] == "The backbone does not embed cameras."
    assert (store.folder_of(tmp_path / "with/results", audited) / "matches.market1501.csv").is_file()
    code, out, err = run("without", "--audit", "camera,breakdown")
    assert code == 0, out + err
    later = only_record(tmp_path / "without")
    assert later["attempts"] == 1, "it is not trained again"
    for block in later["audits"]:
        assert block == first[block["check"]]


def test_stored_features_are_audited_as_far_as_they_go(cli: Cli, world: Path, tmp_path: Path) -> None:
    splits = registry.dataset("market1501").load(world)
    draw, sides = np.random.default_rng(0), {"query": splits.query, "gallery": splits.gallery}
    np.savez(tmp_path / "f.npz", **{name: draw.normal(size=(len(items), 8)) for name, items in sides.items()})
    words = ["evaluate", "--backbone", "mine", "--dataset", "market1501", "--features", tmp_path / "f.npz"]
    words += ["--data-root", world, "--results", tmp_path / "results", "--no-mlflow", "--debug", "--device", "cpu"]
    assert cli(*words)[0] == 0 and "audits" not in only_record(tmp_path)
    code, out, err = cli(*words, "--audit", "average-precision")
    assert code == 0, out + err
    record = only_record(tmp_path)
    assert by_setting(record["audits"], "average-precision")["mAP {'AP': 'mean of precisions'}"] == pytest.approx(
        record["evaluations"][0]["mAP"]
    )
    code, out, err = cli(*words, "--audit", "camera")
    assert [block["check"] for block in only_record(tmp_path)["audits"]] == ["average-precision", "camera"]
    assert "Already scored" in cli(*words, "--audit", "camera")[1]


def test_a_checkpoint_is_scored_and_audited(world: Path, transreid: Trained, tmp_path: Path) -> None:
    settings = {"results": tmp_path / "results", "data_root": world, "device": "cpu", "mlflow": False, "debug": True}
    found = harness.audit(
        "transreid",
        "market1501",
        checkpoint=transreid.folder / "checkpoint.pt",
        checks="average-precision",
        image_size=transreid.record["spec"]["values"]["augmentation"]["image_size"],
        **settings,
    )
    assert [block["check"] for block in found] == ["average-precision"]
    assert only_record(tmp_path)["source"] == "published-checkpoint"


def test_mistakes_are_one_sentence_before_any_work(cli: Cli, world: Path, transreid: Trained, tmp_path: Path) -> None:
    words = ["--data-root", world, "--results", transreid.results]
    for more, sentence in (
        (["--run", transreid.run_id, "--checks", "camra"], "Unknown audit 'camra'. Did you mean 'camera'?"),
        (["--run", "nothing"], "No run in"),
        (["--backbone", "bot"], "Name a trained network"),
        (["--run", transreid.run_id, "--option", "stride=3"], "Unknown setting of an audit of a run 'options'"),
        (["--run", transreid.run_id, "--trust-pickle"], "holds no code"),
        (["--backbone", "bot", "--checkpoint", transreid.folder / "checkpoint.pt"], "needs its backbone"),
    ):
        code, out, err = cli("audit", *more, *words)
        assert (code, out) == (2, "") and sentence in err, (more, err)
    code, _, err = cli(*arguments(world, tmp_path, "--audit", "camra"))
    assert code == 2 and "camra" in err and not (tmp_path / "results").exists()
    with pytest.raises(UsageError, match="either --run ID or --checkpoint"):
        harness.audit("bot", "market1501")


def test_mlflow_gets_the_values_and_notices_a_later_audit(world: Path, transreid: Trained) -> None:
    record: Any = store.read(transreid.folder)
    uri = "sqlite:///x.db"
    sidecar = {"uri": uri, "run": "r", **content._sent_of({**record, "audits": []})}
    (transreid.folder / content.SIDECAR).write_text(json.dumps(sidecar))
    found = harness.audit(checks="open-set", **places(world, transreid))
    assert not content.is_sent(transreid.folder, uri), "the audit has to be sent"
    metrics = tracking.metrics_of(store.read(transreid.folder))
    assert metrics["audit/open-set/TPIR/FPIR 0.1"] == by_setting(found, "open-set")["TPIR {'FPIR': 0.1}"]
    assert not any(content.NOT_ALLOWED.search(name) for name in metrics)
    (transreid.folder / content.SIDECAR).unlink()
