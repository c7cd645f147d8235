"""Plug-ins are found by their cards, and their code runs only on demand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import registry
from harness.errors import UsageError
from harness.registry import lookup
from harness.registry.source import source_files
from harness.system.paths import REPOSITORY


def test_the_repository_brings_its_plug_ins() -> None:
    assert {"reidmamba", "transreid", "bot", "timm", "dummy"} <= {e.name for e in registry.backbones()}
    wanted = {"market1501", "dukemtmc", "msmt17", "msmt17-train", "cuhk03-detected", "cuhk03-labeled", "occluded-duke"}
    assert wanted <= {e.name for e in registry.datasets()}
    assert registry.broken() == {}


def test_all_is_the_benchmark_and_a_group_is_its_members() -> None:
    every = [e.name for e in registry.resolve_datasets("all")]
    assert sorted(every) == sorted(
        ["market1501", "dukemtmc", "msmt17", "cuhk03-detected", "cuhk03-labeled", "occluded-duke"]
    )
    assert [e.name for e in registry.resolve_datasets("cuhk03")] == ["cuhk03-detected", "cuhk03-labeled"]
    assert [e.name for e in registry.resolve_datasets("occluded_duke,occluded-duke")] == ["occluded-duke"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("transried", "transreid"), ("reidmanba", "reidmamba"), ("transreid:vit-basline", "vit-baseline")],
)
def test_a_wrong_letter_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{hint}'"):
        registry.backbone(name)


def test_an_adapter_wants_a_model() -> None:
    with pytest.raises(UsageError, match="Add a model name"):
        registry.backbone("timm")
    assert registry.backbone("timm:resnet18").options()["model"] == "resnet18"


def test_options_are_declared_typed_and_suggested() -> None:
    entry = registry.backbone("transreid")
    assert entry.options({"stride": "12"})["stride"] == 12
    with pytest.raises(UsageError, match="Did you mean 'stride'"):
        entry.options({"strid": 12})
    with pytest.raises(UsageError, match=r"transreid\.stride must have the type of its default"):
        entry.options({"stride": "wide"})


def test_a_plug_in_folder_is_found_and_only_run_when_built(plugin_folder: Path) -> None:
    model = plugin_folder / "pixels" / "model.py"
    model.write_text("raise SystemExit('imported')\n")
    lookup._scan.cache_clear()
    assert registry.backbone("pixels", plugin_folder).card.feature_dim == 24
    with pytest.raises(SystemExit, match="imported"):
        registry.backbone("pixels", plugin_folder).build(num_classes=2, num_cameras=1, image_size=(64, 32))


def test_plug_ins_of_one_name_in_two_folders_are_two(plugin_folder: Path, tmp_path: Path) -> None:
    build = registry.backbone("pixels", plugin_folder).build
    build(num_classes=2, num_cameras=1, image_size=(64, 32))
    other = tmp_path / "other" / "pixels"
    other.mkdir(parents=True)
    (other / "card.toml").write_text((plugin_folder / "pixels" / "card.toml").read_text())
    (other / "model.py").write_text("raise SystemExit('the other one')\n")
    with pytest.raises(SystemExit, match="the other one"):
        registry.backbone("pixels", other.parent).build(num_classes=2, num_cameras=1, image_size=(64, 32))


def test_a_broken_card_is_a_reason_not_a_crash(plugin_folder: Path) -> None:
    (plugin_folder / "pixels" / "card.toml").write_text('kind = "backbone"\nname = "pixels"\ntitel = "x"\n')
    lookup._scan.cache_clear()
    assert "Did you mean 'title'" in next(iter(registry.broken(plugin_folder).values()))
    with pytest.raises(UsageError, match="cannot be used"):
        registry.backbone("pixels", plugin_folder)


def test_a_taken_name_is_refused(plugin_folder: Path) -> None:
    card = plugin_folder / "pixels" / "card.toml"
    card.write_text(card.read_text().replace('title = "', 'aliases = ["bot"]\ntitle = "'))
    lookup._scan.cache_clear()
    with pytest.raises(UsageError, match="already in use"):
        registry.backbones(plugin_folder)


def test_the_source_hash_follows_what_the_model_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {p.relative_to(REPOSITORY).as_posix() for p in source_files(registry.backbone("bot").folder)}
    assert {"backbones/bot/model.py", "backbones/layers.py"} <= files
    assert not any(file.startswith("harness/") for file in files)


def test_listing_and_planning_import_no_heavy_library() -> None:
    code = (
        "import sys; from harness import registry, reporting, tracking; from harness.planning import plan;"
        "from harness.planning.request import Request;"
        "from harness.records import store; registry.backbones();"
        "registry.datasets(); plan.build(Request(from_scratch=True));"
        "print([m for m in ('torch', 'ray', 'mlflow', 'timm', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
