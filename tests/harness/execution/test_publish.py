"""A published network loads back and scores as its run; nothing is sent without consent."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import harness
from harness import registry, weights
from harness.errors import HarnessError, RunError, UsageError
from harness.execution import model_card
from harness.execution import publish as publishing
from harness.records import store
from harness.weights import published
from harness.worker.deploy import source
from tests.conftest import PIXELS_CARD, PIXELS_MODEL
from tests.support.hub import Hub, hub
from tests.support.runs import arguments

Cli = Callable[..., tuple[int, str, str]]
TOKEN = "hf_" + "x" * 34

ADDRESSES = ("", "hf://no-name", "hf://a/b/c", "hf://a/..", "hf://a/b/", "hf:/a/b", "HF://a/b", "https://hub/a/b")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone `pixels`, which cannot tell its options from a checkpoint."""
    folder = tmp_path_factory.mktemp("plugins") / "pixels"
    folder.mkdir()
    (folder / "card.toml").write_text(PIXELS_CARD)
    (folder / "model.py").write_text(PIXELS_MODEL)
    return folder.parent


@pytest.fixture(scope="module")
def trained(
    world: Path, plugins: Path, tmp_path_factory: pytest.TempPathFactory, quick_runs: None
) -> dict[str, store.Record]:
    """Records of trained runs by backbone, with `results` below `folder`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        words = arguments(world, folder, "--plugins", plugins, backbones="bot:demo,pixels")
        patch.setattr("sys.argv", ["harness", *words])
        from harness.cli import main

        assert main() == 0
    return {record["spec"]["backbone"]: record for record in store.records(folder / "results")} | {"folder": folder}  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def package(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published folder of the run of BoT."""
    place = tmp_path_factory.mktemp("published") / "net"
    run = trained["bot:demo"]["run_id"][:12]
    assert harness.publish(run, place, results=trained["folder"] / "results") == str(place)
    return place


def test_the_folder_has_card_weights_and_record(trained: dict[str, Any], package: Path) -> None:
    assert {path.name for path in package.iterdir()} == {"README.md", "model.safetensors", "record.json"}
    record, card = trained["bot:demo"], (package / "README.md").read_text()
    assert store.read(package)["evaluations"] == record["evaluations"]
    (plain, *_) = [one for one in record["evaluations"] if one["trained"]]
    low, high = (100 * bound for bound in plain["interval"]["mAP"])
    assert f"| market1501 | plain | {100 * plain['mAP']:.1f} ({low:.1f} to {high:.1f}) |" in card
    network = "Network: `bot:demo` with its default options."
    origin = ("generated stand-in", "Starting weights: random", "MIT (original code)", record["run_id"])
    for words in (*origin, network, "No audit was made."):
        assert words in card, words


def test_the_header_is_what_the_hub_reads(package: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(package / "README.md").data
    assert data.license == "other" and data.library_name == "reid-harness"
    assert {result.metric_type for result in data.eval_results} == {"mAP", "rank-1"}


def test_the_weights_are_those_of_the_checkpoint(trained: dict[str, Any], package: Path) -> None:
    run = trained["bot:demo"]["run_id"]
    here = harness.load_backbone("bot:demo", checkpoint=package / "model.safetensors", device="cpu")
    there = harness.load_backbone(run=run, results=trained["folder"] / "results", device="cpu")
    assert here.image_size == there.image_size
    images = torch.randint(0, 255, (3, 3, *here.image_size), dtype=torch.uint8)
    assert torch.equal(here.embed(images), there.embed(images))
    with pytest.raises(UsageError, match=r"was published as bot:demo, not transreid"):
        harness.load_backbone("transreid", checkpoint=package / "model.safetensors")


def test_the_commands_of_the_card_work(
    trained: dict[str, Any], package: Path, world: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (package / "README.md").read_text()
    (python,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(package)
    names: dict[str, Any] = {}
    exec("\n".join(line for line in python.splitlines() if "embed" not in line), names)
    assert names["network"].image_size == (64, 32)
    (command,) = re.findall(r"```bash\n(.*?)\n```", card, re.DOTALL)
    words = shlex.split(command.replace("DATA_ROOT", str(world)))[3:]
    code, _, err = cli(*words, "--results", tmp_path / "results", "--no-mlflow", "--device", "cpu")
    assert code == 0, err
    (again,) = store.records(tmp_path / "results")
    for kind in ("mAP", "rank-1", "mINP"):
        expected = [one[kind] for one in trained["bot:demo"]["evaluations"] if one["trained"]]
        assert [one[kind] for one in again["evaluations"]] == pytest.approx(expected, abs=1e-6), kind


def test_a_network_that_cannot_tell_its_options_loads_too(
    trained: dict[str, Any], plugins: Path, tmp_path: Path
) -> None:
    place = tmp_path / "new" / "net"
    harness.publish(trained["pixels"]["run_id"], place, results=trained["folder"] / "results", plugins=plugins)
    network = harness.load_backbone("pixels", checkpoint=place / "model.safetensors", plugins=plugins, device="cpu")
    assert network.embed(torch.zeros(2, 3, 64, 32)).shape == (2, 24)
    card = (place / "README.md").read_text()
    assert 'model.safetensors", plugins="PLUGINS")' in card and "--data-root DATA_ROOT --plugins PLUGINS" in card
    assert list(tmp_path.iterdir()) == [tmp_path / "new"] and list(place.parent.iterdir()) == [place]


def test_what_cannot_be_published_is_said(
    trained: dict[str, Any], package: Path, cli: Cli, tmp_path: Path, plugins: Path
) -> None:
    results, run = trained["folder"] / "results", trained["bot:demo"]["run_id"][:12]
    for target, words in (
        (package, "exists and is not an empty folder"),
        (package / "record.json" / "net", "Cannot write"),
        *((target, "must be a folder, or hf://user/name") for target in ADDRESSES),
    ):
        code, _, err = cli("publish", run, "--to", target, "--results", results)
        assert code == 2 and words in err and "Traceback" not in err
    code, _, err = cli("publish", run, "--to", tmp_path / "x", "--results", results, "--public")
    assert code == 2 and "--public is for a repository" in err
    code, _, err = cli("publish", "ffffffff", "--to", tmp_path / "x", "--results", results)
    assert code == 2 and "No run in" in err
    folder = store.find_run(results, trained["pixels"]["run_id"])
    (folder / "checkpoint.pt").rename(folder / "away.pt")
    with pytest.raises(UsageError, match="has no checkpoint"):
        harness.publish(trained["pixels"]["run_id"], tmp_path / "x", results=results, plugins=plugins)
    (folder / "away.pt").rename(folder / "checkpoint.pt")
    assert not (tmp_path / "x").exists()


def test_the_card_names_what_the_run_changed(trained: dict[str, Any]) -> None:
    record = json.loads(json.dumps(trained["bot:demo"]))
    record["spec"] |= {"dataset_options": {"market1501": {"junk": True}}}
    record["spec"]["options"]["neck_feature"] = "before"
    record["environment"] |= {"git_commit": "abc", "git_dirty": True}
    rows = [{"name": "mAP", "setting": {"cameras": "off"}, "value": 0.25, "interval": [0.2, 0.3], "queries": 9}]
    block = {"check": "camera", "dataset": "market1501", "about": "Cameras?", "rows": rows, "notes": ["So."]}
    record["audits"] = [block]
    card = model_card.text(record, registry.backbone("bot:demo"), registry.dataset("market1501"))
    assert "camera on market1501: Cameras?" in card and "- So.\n" in card
    assert "| mAP | cameras off | 0.2500 (0.2000 to 0.3000) |" in card
    assert "--data-option market1501.junk=true" in card and "commit abc, with local changes" in card
    assert 'Network: `bot:demo` with `neck_feature = "before"`.' in card


def test_a_hub_that_is_away_is_said(trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "an address")  # refused by the HTTP library itself, and so without retries
    with pytest.raises(RunError, match="someone/net could not be uploaded: "):
        harness.publish(
            trained["bot:demo"]["run_id"], "hf://someone/net", upload=True, results=trained["folder"] / "results"
        )


@pytest.mark.parametrize("damage", ["status", "checkpoint"])
def test_a_network_that_is_not_whole_is_not_published(trained: dict[str, Any], tmp_path: Path, damage: str) -> None:
    record = trained["bot:demo"]
    run = store.folder_of(trained["folder"] / "results", record)
    folder = shutil.copytree(run, tmp_path / "results" / run.relative_to(trained["folder"] / "results"))
    if damage == "status":
        store.write(folder, {**record, "status": "failed", "error": {"message": "It failed."}})
    else:
        state = weights.load_state(folder / "checkpoint.pt")
        torch.save(dict(list(state.items())[3:]), folder / "checkpoint.pt")
    with pytest.raises(HarnessError, match="status is failed" if damage == "status" else "conv1|missing|fit"):
        harness.publish(record["run_id"], tmp_path / "net", results=tmp_path / "results")
    assert not (tmp_path / "net").exists()


def test_published_records_have_no_folders_of_the_user(trained: dict[str, Any]) -> None:
    record = {**trained["bot:demo"], "request": {"recipe": "/home/someone/mine.toml"}}
    assert publishing._without_paths(record)["request"] == {"recipe": "mine.toml"}  # type: ignore[arg-type]


def test_published_weights_know_how_images_are_resized(package: Path, tmp_path: Path) -> None:
    facts = published.facts(package / "model.safetensors")
    assert facts is not None
    other = msgspec.structs.replace(facts, interpolation="bilinear")
    published.save(tmp_path / "net.safetensors", weights.load_state(package / "model.safetensors"), other)
    assert source.find("bot:demo", checkpoint=tmp_path / "net.safetensors").interpolation == "bilinear"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the stand-in knows plain LFS
    with hub() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.address)
        yield here


def test_nothing_is_sent_unasked(trained: dict[str, Any], server: Hub, cli: Cli) -> None:
    results, run = trained["folder"] / "results", trained["bot:demo"]["run_id"][:12]
    code, out, err = cli("publish", run, "--to", "hf://someone/net", "--results", results)
    assert code == 2 and "Nothing was sent. Pass --yes" in err and "model.safetensors" in out
    with pytest.raises(UsageError, match="Nothing was sent"):
        harness.publish(run, "hf://someone/net", results=results)
    assert server.requests == []


def test_an_upload_sends_the_files_of_the_folder(trained: dict[str, Any], package: Path, server: Hub, cli: Cli) -> None:
    results, run = trained["folder"] / "results", trained["bot:demo"]["run_id"][:12]
    code, out, err = cli("publish", run, "--to", "hf://someone/net", "--results", results, "--yes")
    assert code == 0, err
    assert f"Published: {server.address}/someone/net" in out and TOKEN not in out + err
    assert server.created[0]["name"] == "net" and server.created[0]["visibility"] == "private"
    assert server.tokens == {f"Bearer {TOKEN}", None}, "the address for the weights is signed, and needs none"
    for name in ("model.safetensors", "record.json"):
        assert server.files[name] == (package / name).read_bytes()
    assert 'snapshot_download("someone/net")' in server.files["README.md"].decode()


def test_a_refused_upload_is_a_sentence(trained: dict[str, Any], server: Hub) -> None:
    server.refuses = 403
    with pytest.raises(RunError, match=r"someone/net could not be uploaded: .*403") as raised:
        harness.publish(
            trained["bot:demo"]["run_id"], "hf://someone/net", upload=True, results=trained["folder"] / "results"
        )
    assert TOKEN not in str(raised.value)


def test_facts_of_other_files_are_none(package: Path, tmp_path: Path) -> None:
    facts = published.facts(package / "model.safetensors")
    assert facts is not None and (facts.backbone, facts.image_size) == ("bot:demo", (64, 32))
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors", {published.KEY: json.dumps({"backbone": 1})})
    (tmp_path / "text").write_text("text")
    for name in ("plain.safetensors", "wrong.safetensors", "text", "missing"):
        assert published.facts(tmp_path / name) is None
    assert weights.load_state(package / "model.safetensors").keys()
