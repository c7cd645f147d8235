"""What would fail in every run is refused by the plan, in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.execution.options import Execution
from harness.registry import timm_names
from harness.spec import recipe
from harness.spec.condition import Condition
from harness.system import gpu
from harness.system.paths import REPOSITORY
from tests.support import small_csv

Cli = Callable[..., tuple[int, str, str]]
UNIFIED = recipe.FOLDER / "unified.toml"

REFUSED = {
    "augmentation.image_size": ([0, 64], [64], [-64, 32], [256, 128, 3]),
    "augmentation.pad": (-1,),
    "augmentation.flip": (-0.1, 1.5),
    "augmentation.interpolation_train": ("nearest",),
    "augmentation.erasing.probability": (2.0, -1.0),
    "augmentation.erasing.area": ([0.02, 1.4], [0.4, 0.02], [-0.1, 0.3], [0.4]),
    "augmentation.erasing.aspect": ([3.3, 0.3], [0.0, 3.3], [0.3]),
    "augmentation.erasing.attempts": (0, -3),
    "augmentation.erasing.value": ([0.5],),
    "sampler.identities": (0, 1, -4),
    "sampler.instances": (0, -1),
    "sampler.epoch": ("two-pass", "fixed"),
    "sampler.iterations": (-5,),
    "loss.identity": (-1.0,),
    "loss.triplet": (-1.0,),
    "loss.label_smoothing": (-0.1, 1.1),
    "loss.center": (-0.1,),
    "loss.center_lr": (-0.5,),
    "loss.ratr_intra": (-1.0,),
    "loss.ratr_temperature": (0.0, -1.0),
    "loss.branches": ("last",),
    "optimizer.name": ("lion",),
    "optimizer.lr": (0.0, -0.1),
    "optimizer.momentum": (-0.9,),
    "optimizer.weight_decay": (-1e-4,),
    "optimizer.bias_lr_factor": (-2.0,),
    "schedule.kind": ("linear",),
    "schedule.warmup_epochs": (-1.0,),
    "schedule.warmup_iterations": (-1,),
    "schedule.warmup_factor": (-0.1,),
    "schedule.final_factor": (-0.1,),
    "schedule.milestones": ([70, 40], [0, 40], [-1]),
    "schedule.gamma": (0.0, -0.1),
    "schedule.period": (-1,),
    "training.epochs": (-1,),
    "training.grad_clip": (-1.0,),
    "training.precision": ("fp8",),
    "training.loss_scale": (0.0,),
    "evaluation.metric": ("manhattan",),
    "evaluation.batch_size": (0, -1),
    "evaluation.max_rank": (0,),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values])
def test_a_recipe_value_that_would_fail_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        recipe.load(UNIFIED, overrides={key: value})


@pytest.mark.parametrize("key", ["loss.ratr_intra", "loss.ratr_inter"])
@pytest.mark.parametrize(("p", "k"), [(2, 4), (4, 2), (16, 1)])
def test_ratr_needs_three_identities_and_three_images(key: str, p: int, k: int) -> None:
    batch = {"sampler.identities": p, "sampler.instances": k}
    assert recipe.load(UNIFIED, overrides=batch)
    with pytest.raises(UsageError, match=rf"at least 3, found {p} and {k}"):
        recipe.load(UNIFIED, overrides={**batch, key: 0.5})


def test_without_any_loss_there_is_nothing_to_train() -> None:
    with pytest.raises(UsageError, match="every loss has weight 0"):
        recipe.load(UNIFIED, overrides={"loss.identity": 0.0, "loss.triplet": 0.0})


@pytest.mark.parametrize("batch", [2, 3, 4, 8, 64])
def test_a_profiled_training_batch_holds_two_identities(batch: int) -> None:
    sampler = Condition("training", (64, 32), batch).values("cpu")["recipe"]["sampler"]
    assert sampler["identities"] >= 2 and sampler["identities"] * sampler["instances"] == batch


@pytest.fixture
def plan(cli: Cli, plugin_folder: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Plans runs of `pixels` on the dataset `office`, unless the words say otherwise."""
    small_csv.card(plugin_folder)
    small_csv.card(plugin_folder, "alone")
    small_csv.views(plugin_folder)

    def call(*words: object, command: str = "plan", table: list[small_csv.Row] | None = None) -> tuple[int, str, str]:
        small_csv.write(tmp_path / "data", small_csv.rows() if table is None else table)
        fixed = ["--recipe", "smoke", "--from-scratch", "--plugins", plugin_folder, "--data-root", tmp_path / "data"]
        fixed += ["--results", tmp_path / "results", *([] if "--device" in words else ["--device", "cpu"])]
        names = ("--backbones", "--datasets") if command == "plan" else ("--backbone", "--dataset")
        for name, value in zip(names, ("pixels", "office"), strict=True):
            fixed += [] if name in words else [name, value]
        return cli(command, *fixed, *words)

    return call


@pytest.mark.parametrize("seeds", ["-1", "0,9223372036854775808", "1" * 400])
def test_a_seed_out_of_range(plan: Cli, seeds: str) -> None:
    code, _, err = plan("--seeds", seeds)
    assert code == 2 and "from 0 to 2^63 - 1" in err and len(err) < 200
    assert plan("--seeds", "9223372036854775807")[0] == 0


def test_a_gpu_that_is_not_there(plan: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "usable", lambda: False)
    code, _, err = plan("--device", "cuda")
    assert code == 2 and "shows no GPU" in err and "--address" in err
    assert plan("--device", "cuda", "--address", "head:6379")[0] == 0, "the cluster may have one"
    monkeypatch.setattr(gpu, "usable", lambda: True)
    assert plan("--device", "cuda")[0] == 0


def test_more_gpus_per_run_than_there_are(plan: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "usable", lambda: True)
    monkeypatch.setattr(gpu, "names", lambda: ["0", "1"])
    assert plan("--device", "cuda", "--gpus-per-run", "2")[0] == 0
    code, _, err = plan("--device", "cuda", "--gpus-per-run", "4")
    assert code == 2 and "--gpus-per-run 4 was passed, but this machine shows 2 GPUs" in err
    assert plan("--device", "cuda", "--gpus-per-run", "4", "--address", "head:6379")[0] == 0
    code, _, err = plan("--gpus-per-run", "1.5")
    assert code == 2 and "a fraction below 1 or a whole number, found 1.5" in err


def test_several_processes_need_a_device_that_they_can_share() -> None:
    with pytest.raises(UsageError, match="need --device cuda or cpu, found mps"):
        Execution(gpus_per_run=2).check_gpus("mps")
    with pytest.raises(UsageError, match="--debug runs in one process"):
        Execution.of({"debug": True, "gpus_per_run": 2})


def test_a_batch_that_processes_cannot_share(plan: Cli) -> None:
    assert "1 to do" in plan("--gpus-per-run", "4")[1]
    out = plan("--gpus-per-run", "3")[1]
    assert "1 blocked" in out and "A batch of 8 images cannot be divided equally over 3 processes" in " ".join(
        out.split()
    )
    assert "1 to do" in plan("--gpus-per-run", "2", "--set", "training.micro_batch=4")[1]
    out = plan("--gpus-per-run", "4", "--set", "training.micro_batch=4")[1]
    assert "1 blocked" in out and "training.micro_batch 4 does not divide the 2 images" in " ".join(out.split())
    out = plan("--gpus-per-run", "2", "--set", "training.compile=default")[1]
    assert "1 blocked" in out and "training.compile works with one GPU per run" in " ".join(out.split())


def test_half_precision_on_a_cpu(plan: Cli) -> None:
    assert "1 blocked" in (out := plan("--set", "training.precision=fp16")[1]) and "needs a GPU" in out


def test_more_identities_than_there_are(plan: Cli) -> None:
    assert "1 to do" in plan("--set", "sampler.identities=8")[1]
    out = plan("--set", "sampler.identities=9")[1]
    assert "1 blocked" in out and "needs 9 identities" in out and "show only 8" in out


def test_a_trial_has_fewer_identities(plan: Cli) -> None:
    code, _, err = plan("--space", "training", "--set", "sampler.identities=7", command="tune")
    assert code == 2 and "show only 6 without those held out" in err


def test_ratr_with_one_branch(plan: Cli) -> None:
    more = ["--set", "sampler.instances=3", "--set", "loss.ratr_intra=1.0"]
    out = plan("--backbones", "bot", *more)[1]
    assert "1 blocked" in out and "RATR compares branches" in out
    out = plan("--backbones", "reidmamba", *more, "--camera-embedding", "off")[1]
    assert "1 to do" in out
    out = plan("--backbones", "reidmamba", *more, "--option", "reidmamba.branches=1")[1]
    assert "RATR compares branches" in out


def test_ratr_in_a_search(plan: Cli) -> None:
    code, _, err = plan("--space", "ratr", command="tune")
    assert code == 2 and "RATR" in err and "at least 3, found 4 and 2" in err
    code, _, err = plan("--space", "ratr", "--backbone", "bot", "--set", "sampler.instances=3", command="tune")
    assert code == 2 and "RATR compares branches" in err


def test_labels_and_cameras_are_known_to_the_plan(plan: Cli, tmp_path: Path) -> None:
    out = plan(table=small_csv.rows((0, 0)))[1]
    assert "1 blocked" in out and "none of its 6 queries has a match" in out
    small_csv.write(tmp_path / "data", small_csv.rows((0, 0)), "alone")
    out = plan("--eval-datasets", "alone")[1]
    assert "1 to do" in out and "alone cannot be scored" in out, "it costs its own scores alone"
    unseen = small_csv.rows((0, 1), test_cameras=(1, 4))
    out = plan("--backbones", "views", table=unseen)[1]
    assert "1 blocked" in out and "has no training image" in out and "--camera-embedding off" in out
    assert "1 to do" in plan("--backbones", "views", "--camera-embedding", "off", table=unseen)[1]
    assert "1 to do" in plan("--backbones", "views")[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "convnext_tiny_in22ft1k",
            "timm renamed the model 'convnext_tiny_in22ft1k'. Use timm:convnext_tiny.fb_in22k_ft_in1k.",
        ),
        ("ResNet50", "Did you mean 'resnet50'?"),
        ("resnet5O", "Did you mean 'resnet50'?"),
        ("hf_hub:timm/resnet50.a1_in1k", "Use timm:resnet50.a1_in1k."),
        ("hf-hub:timm/resnet50.a1_in1k", "Use timm:resnet50.a1_in1k."),
        ("../resnet50", "Use timm:resnet50."),
        ("../../secret", "not a valid timm name"),
        ("resnet50.a1_in2k", "Did you mean 'a1_in1k'?"),
        ("r" * 300, "timm has no model"),
    ],
)
def test_a_name_that_timm_does_not_know(plan: Cli, name: str, message: str) -> None:
    code, _, err = plan("--backbones", f"timm:{name}")
    assert code == 2 and message in err and err.count("\n") == 1 and len(err) < 400


@pytest.mark.slow
def test_every_current_timm_name_is_accepted() -> None:
    import timm
    from timm.models import get_deprecated_models

    names = [*timm.list_models(), *timm.list_pretrained()]
    assert len(names) > 1000 and [name for name in names if timm_names.problem(name)] == []
    old = get_deprecated_models()
    assert old and [name for name, new in old.items() if f"Use timm:{new}." not in timm_names.problem(name)] == []


def test_a_known_name_is_told_without_importing_timm() -> None:
    code = (
        "import sys, time; from harness.registry import timm_names; start = time.perf_counter(); "
        "assert not timm_names.problem('resnet50.a1_in1k'); print(time.perf_counter() - start); "
        "assert not {'timm', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.0


@pytest.mark.parametrize("flag", ["--backbones", "--datasets", "--recipe", "--preset", "--plugins", "--data-root"])
def test_a_name_of_300_letters_gets_a_sentence(cli: Cli, tmp_path: Path, flag: str) -> None:
    given = {"--results": tmp_path, "--data-root": tmp_path, flag: "n" * 300}
    code, out, err = cli("plan", *(word for pair in given.items() for word in pair))
    assert code == 2 or "blocked" in out
    assert "Traceback" not in err and err.count("\n") <= 1


@pytest.mark.parametrize("kind", ["dataset", "variant"])
def test_a_card_with_a_long_name_is_refused(cli: Cli, plugin_folder: Path, tmp_path: Path, kind: str) -> None:
    name = "n" * 150
    if kind == "dataset":
        small_csv.card(plugin_folder, name)
        words = ["--datasets", name]
    else:
        path = plugin_folder / "pixels" / "card.toml"
        path.write_text(path.read_text() + f'\n[variants.{name}]\nabout = "long"\n')
        words = ["--backbones", f"pixels:{name}"]
    code, _, err = cli("plan", "--plugins", plugin_folder, "--results", tmp_path, *words)
    assert code == 2 and "150 bytes; use at most 100" in err
