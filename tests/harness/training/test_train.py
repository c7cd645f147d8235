"""Resumed training equals uninterrupted training in every bit, and no step waits for a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness import registry
from harness.contracts import Item
from harness.data.loader import TrainingData
from harness.spec import recipe
from harness.system.device import place
from harness.system.seeding import seed_torch
from harness.training import checkpoint
from harness.training.group import Group
from harness.training.recomputation import blocks
from harness.training.trainer import Trainer
from tests.support.processes import in_processes
from tests.support.small_datasets import picture

SIZE = (64, 32)
IDENTITIES, IMAGES, CAMERAS = 4, 3, 2
NATIVE = {
    "augmentation.image_size": list(SIZE),
    "augmentation.pad": 3,
    "sampler.identities": 3,
    "sampler.instances": 3,
    "training.precision": "fp32",
    "training.epochs": 4,
}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("bot:demo", {"loss.center": 0.0005, "schedule.milestones": [2, 4]}, {}),
    ("reidmamba:tiny", {"loss.ratr_intra": 1.0, "loss.ratr_inter": 1.0}, {"drop_path": 0.3}),
    ("transreid:demo", {}, {"camera_embedding": True}),
]
"""Each with its native recipe: what this one adds to it, and the options of its model."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("people")
    numbers = range(IDENTITIES * IMAGES)
    return [Item(picture(folder / f"{n}.png", 40 * n), n // IMAGES, n % CAMERAS) for n in numbers]


class Stopped(Exception):
    """What ends the first attempt, once the checkpoint of its second epoch is written."""


def train(
    name: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    items: list[Item],
    folder: Path,
    *,
    stop: int = 0,
    start: int = 0,
    device: str = "cpu",
    group: Group | None = None,
) -> tuple[Trainer, int]:
    """Trains four epochs from what `folder` holds, or until the end of epoch `stop`; returns the first epoch.

    Weights are random from the seed `start`, so that anything missing in a checkpoint changes a resumed training.
    """
    entry = registry.backbone(name)
    chosen = recipe.load(entry.native_recipe, "market1501", {**NATIVE, **settings})
    mean, std = entry.card.input.mean, entry.card.input.std
    group = group or Group()
    data = TrainingData(items, chosen, mean=mean, std=std, seed=0, pin_memory=device == "cuda", part=group.part)
    seed_torch(start, "build")
    module = entry.build(num_classes=data.num_classes, num_cameras=data.num_cameras, image_size=SIZE, **options)

    def emit(event: str, **values: Any) -> None:
        assert event != "warning", values
        if event == "epoch" and values["epoch"] == stop:
            raise Stopped

    on = torch.device(device)
    trainer = Trainer(
        place(module, on, entry.card.input),
        data,
        chosen,
        device=on,
        seed=0,
        run_id=name,
        folder=folder,
        emit=emit,
        group=group,
    )
    try:
        return trainer, trainer.fit().resumed_at
    except Stopped:
        return trainer, 0


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that training changes."""
    parts: dict[str, Any] = {"module": trainer.module, "optimizer": trainer.optimizer, "criterion": trainer.criterion}
    return {**{name: part.state_dict() for name, part in parts.items()}, "iteration": trainer.iteration}


def unequal(a: Any, b: Any, where: str = "") -> list[str]:
    """Returns the paths in two trees whose values differ in any bit."""
    if isinstance(a, torch.Tensor):
        return [] if isinstance(b, torch.Tensor) and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for key in a for place in unequal(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [place for i, pair in enumerate(zip(a, b, strict=True)) for place in unequal(*pair, f"{where}/{i}")]
    return [] if a == b else [where]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings", "options"), CASES, ids=[case[0] for case in CASES])
def test_resumed_training_equals_uninterrupted_bit_for_bit(
    items: list[Item], tmp_path: Path, name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    straight, began = train(name, settings, options, items, whole)
    assert began == 0
    stopped, _ = train(name, settings, options, items, broken, stop=2)
    assert 0 < stopped.iteration < straight.iteration and unequal(state_of(stopped), state_of(straight))
    resumed, began = train(name, settings, options, items, broken, start=1)
    assert began == 2
    assert unequal(state_of(resumed), state_of(straight)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings", "options"), CASES, ids=[case[0] for case in CASES])
def test_activations_that_are_computed_again_change_only_rounding(
    items: list[Item], tmp_path: Path, name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    for kind in ("kept", "again"):
        (tmp_path / kind).mkdir()
    kept, _ = train(name, {**settings, "training.epochs": 1}, options, items, tmp_path / "kept")
    changed = {**settings, "training.epochs": 1, "training.gradient_checkpointing": True}
    again, _ = train(name, changed, options, items, tmp_path / "again")
    assert len(blocks(again.module)) >= 2, "it has blocks"
    torch.testing.assert_close(again.module.state_dict(), kept.module.state_dict(), atol=1e-5, rtol=0)


def compiled_and_not(group: Group, items: list[Item], folder: Path) -> dict[str, dict[str, Any]]:
    """Weights after an epoch without and with `torch.compile`."""
    name, settings, options = CASES[2]
    changed, found = {**settings, "training.epochs": 1, "optimizer.name": "sgd", "optimizer.lr": 1e-3}, {}
    for how in ("no", "default"):
        (folder / how).mkdir()
        made = {**changed, "training.compile": how}
        trainer, _ = train(name, made, {**options, "drop_path": 0.0}, items, folder / how, group=group)
        found[how] = {key: value.numpy() for key, value in trainer.module.state_dict().items()}
    return found


@pytest.mark.slow
def test_compiled_training_differs_only_by_rounding(items: list[Item], tmp_path: Path) -> None:
    """In a process of its own, because the compiler cannot be loaded after some packages that other tests import."""
    (found,) = in_processes(1, compiled_and_not, items, tmp_path)
    differences = [abs(found["default"][key] - value).max() for key, value in found["no"].items()]
    assert 0 < max(differences) < 1e-5, "it was compiled"


def weights_of_all(group: Group, items: list[Item], folder: Path) -> list[dict[str, Any]]:
    """Trains each backbone for some steps, alone or as one of several processes; returns its weights."""
    changed = {"sampler.identities": 4, "optimizer.name": "sgd", "optimizer.lr": 1e-4, "schedule.kind": "constant"}
    found = []
    for name, settings, options in CASES:
        if group.is_first:
            (folder / name).mkdir()
        trainer, _ = train(name, {**settings, **changed}, options, items, folder / name, group=group)
        found.append({key: value.numpy() for key, value in trainer.module.state_dict().items()})
    return found


@pytest.mark.slow
def test_two_processes_train_a_backbone_as_one_does(items: list[Item], tmp_path: Path) -> None:
    """In float32, where training amplifies rounding; wrong random numbers would give differences of 0.1."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = weights_of_all(Group(), items, tmp_path / "one")
    for two in in_processes(2, weights_of_all, items, tmp_path / "two"):
        for (name, *_), here, there in zip(CASES, two, one, strict=True):
            assert max(abs(here[key].astype(float) - there[key]).max() for key in there) < 1e-4, name


@pytest.mark.gpu
def test_training_with_centers_resumes_on_a_gpu(items: list[Item], tmp_path: Path) -> None:
    """Not bit for bit: sums on a GPU may have another order each time."""
    device = "cuda"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    name, settings, options = CASES[0]
    straight, _ = train(name, settings, options, items, whole, device=device)
    train(name, settings, options, items, broken, stop=2, device=device)
    resumed, began = train(name, settings, options, items, broken, start=1, device=device)
    assert began == 2 and resumed.iteration == straight.iteration
    found, expected = (trainer.criterion.state_dict() for trainer in (resumed, straight))
    assert found.keys() == expected.keys() and any("center" in key for key in found)
    for key, value in found.items():
        assert value.device.type == device
        torch.testing.assert_close(value, expected[key], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("part", ["module", "optimizer", "criterion"])
def test_every_part_of_the_checkpoint_counts(items: list[Item], tmp_path: Path, part: str) -> None:
    """So that the test above can fail: BoT with its centers, one tensor of its checkpoint changed."""
    name, settings, options = CASES[0]
    (tmp_path / "whole").mkdir()
    straight, _ = train(name, settings, options, items, tmp_path / "whole")
    train(name, settings, options, items, tmp_path, stop=2)
    state = torch.load(tmp_path / checkpoint.NEWEST, weights_only=True)
    last_tensor(state[part]).add_(0.5)
    checkpoint.save(tmp_path, state)
    resumed, _ = train(name, settings, options, items, tmp_path)
    assert unequal(state_of(resumed), state_of(straight))


def last_tensor(tree: Any) -> torch.Tensor:
    """The last tensor of floats in a tree."""
    if isinstance(tree, torch.Tensor):
        return tree
    inner = [value for value in (tree.values() if isinstance(tree, dict) else tree) if holds_floats(value)]
    return last_tensor(inner[-1])


def holds_floats(tree: Any) -> bool:
    if isinstance(tree, dict | list | tuple):
        return any(map(holds_floats, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, torch.Tensor) and tree.is_floating_point() and tree.ndim > 0


class Waits(TorchDispatchMode):
    """Notes operations for which a program waits for its GPU: their result decides what it does next.

    Whole numbers do not count: labels and cameras are on the CPU when they are looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("nonzero", "masked_select", "_unique2", "unique_dim"):
            self.seen.append(name)
        if name in ("_local_scalar_dense", "is_nonzero", "equal") and args[0].dtype != torch.int64:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "settings", "options"), CASES, ids=[name for name, _, _ in CASES])
def test_no_operation_of_a_step_makes_it_wait_for_the_device(
    items: list[Item],
    tmp_path: Path,
    name: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, _ = train(name, {**settings, "training.epochs": 1, "training.grad_clip": 5.0}, options, items, tmp_path)
    batch = next(iter(trainer.data.epoch(1)))
    monkeypatch.setattr(trainer.criterion, "check", lambda *_: None)  # of labels, before they are copied
    with Waits() as waits:
        loss = trainer.step(batch)["loss"]
        assert waits.seen == []
        float(loss)
    assert waits.seen == ["_local_scalar_dense"], "a look at the loss is one"


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "settings", "options"), CASES, ids=[name for name, _, _ in CASES])
def test_torch_sees_no_wait_in_a_step_on_a_gpu(
    items: list[Item], tmp_path: Path, name: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    changed = {**settings, "training.epochs": 1, "training.precision": "fp16"}
    trainer, _ = train(name, changed, options, items, tmp_path, device="cuda")
    batch = next(iter(trainer.data.epoch(1)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
