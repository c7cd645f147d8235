"""A batch in pieces, or over several processes, gives the losses and weights of the whole batch on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.contracts import Item
from harness.data.loader import TrainingData
from harness.errors import UsageError
from harness.spec import recipe
from harness.system.seeding import seed_torch
from harness.training.group import Group
from harness.training.part_of_batch import PartOfBatch
from harness.training.trainer import Trainer
from tests.support.part_networks import Network
from tests.support.processes import in_processes
from tests.support.small_datasets import picture

SIZE = (16, 8)
STEPS = 20
TOLERANCE = 1e-6
"""The networks compute in float64, the centers of the center loss in float32."""
BASE: dict[str, Any] = {
    "augmentation.image_size": list(SIZE),
    "augmentation.pad": 2,
    "sampler.identities": 4,
    "sampler.instances": 4,
    "sampler.epoch": "fixed",
    "sampler.iterations": STEPS // 2,
    "loss.ratr_intra": 1.0,
    "loss.ratr_inter": 1.0,
    "loss.center": 0.01,
    "optimizer.lr": 0.05,
    "schedule.kind": "constant",
    "training.epochs": 2,
    "training.precision": "fp32",
}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("people")
    return [Item(picture(folder / f"{n}.png", 11 * n), n // 4, n % 2) for n in range(24)]


CASES: dict[str, tuple[bool, dict[str, Any]]] = {
    "no batch norm": (False, {}),
    "batch norm": (True, {}),
    "pieces": (False, {"training.micro_batch": 4}),
    "pieces, batch norm": (True, {"training.micro_batch": 4}),
    "recomputed": (True, {"training.gradient_checkpointing": True}),
    "identity loss alone": (False, {f"loss.{name}": 0.0 for name in ("triplet", "ratr_intra", "ratr_inter", "center")}),
}
"""Whether the network has batch norm, and the settings."""

Trained = dict[str, Any]


def train(
    group: Group, items: list[Item], folder: Path, name: str, precise: bool = True, on: str = "cpu", **settings: Any
) -> Trained:
    """Trains 20 steps in two epochs; returns the losses of each step, the weights and the warnings.

    With `precise` the network computes in float64, where rounding cannot hide a mistake.
    """
    norm, changed = CASES[name]
    chosen = recipe.load(recipe.find("unified"), "", {**BASE, **changed, **settings})
    data = TrainingData(items, chosen, mean=[0.5] * 3, std=[0.25] * 3, seed=0, part=group.part)
    seed_torch(0, "build")
    module = Network(data.num_classes, norm)
    warnings: list[str] = []

    def emit(event: str, **values: Any) -> None:
        if event == "warning":
            warnings.append(values["text"])

    trainer = Trainer(
        (module.double() if precise else module).to(on),
        data,
        chosen,
        device=torch.device(on),
        seed=0,
        run_id="parts",
        folder=folder,
        emit=emit,
        group=group,
    )
    step, losses = trainer.step, []

    def noted(batch: Any) -> dict[str, torch.Tensor]:
        losses.append(step(batch))
        return losses[-1]

    trainer.step = noted  # type: ignore[method-assign]
    trainer.fit()
    seen = {name: torch.stack([parts[name] for parts in losses]).cpu().numpy() for name in losses[0]}
    state = {**module.state_dict(), **trainer.criterion.state_dict()}
    return {"losses": seen, "state": {name: value.cpu().numpy() for name, value in state.items()}, "warnings": warnings}


def train_all(group: Group, items: list[Item], folder: Path) -> dict[str, Trained]:
    """Every case, and one again that stopped after its first epoch; with four processes, the cases that need them."""
    cases = list(CASES) if group.size < 4 else ["no batch norm", "batch norm"]
    found = {name: train(group, items, new_folder(folder, group, name), name) for name in cases}
    found["float32"] = train(
        group, items, new_folder(folder, group, "float32"), "no batch norm", precise=False, **{"optimizer.lr": 0.002}
    )
    if group.size == 2:
        broken = new_folder(folder, group, "broken")
        train(group, items, broken, "batch norm", **{"training.epochs": 1})
        found["resumed"] = train(group, items, broken, "batch norm", **{"training.epochs": 2})
    return found


def new_folder(parent: Path, group: Group, name: str) -> Path:
    folder = parent / f"{group.size} {name}"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def one(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """All cases in one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = train_all(Group(), items, tmp_path_factory.mktemp("one"))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def two(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Trained]]:
    """All cases in two processes: what each of them found."""
    return in_processes(2, train_all, items, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Trained]]:
    """The main cases in four processes."""
    return in_processes(4, train_all, items, tmp_path_factory.mktemp("four"))


def difference(a: Trained, b: Trained) -> float:
    """The largest difference of any loss of any step, or of any weight or statistic at the end."""
    pairs = [(a[kind][name], b[kind][name]) for kind in ("losses", "state") for name in b[kind]]
    return max(float(abs(x.astype(float) - y.astype(float)).max()) for x, y in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(one: dict[str, Trained], two: list[dict[str, Trained]], name: str) -> None:
    assert max(difference(found[name], one[name]) for found in two) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no batch norm", "batch norm"])
def test_four_processes_equal_one(one: dict[str, Trained], four: list[dict[str, Trained]], name: str) -> None:
    assert max(difference(found[name], one[name]) for found in four) < TOLERANCE


@pytest.mark.slow
def test_in_float32_only_rounding_differs(
    one: dict[str, Trained], two: list[dict[str, Trained]], four: list[dict[str, Trained]]
) -> None:
    assert max(difference(found["float32"], one["float32"]) for found in two + four) < 1e-5


@pytest.mark.slow
def test_two_processes_resume(two: list[dict[str, Trained]]) -> None:
    for found in two:
        whole, resumed = found["batch norm"], found["resumed"]
        second_epoch = {name: values[STEPS // 2 :] for name, values in whole["losses"].items()}
        assert difference(resumed, {**whole, "losses": second_epoch}) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["no batch norm", "batch norm", "recomputed"])
def test_two_gpus_equal_one(items: list[Item], tmp_path: Path, name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs; there run: python -m pytest -m gpu tests/harness/training/test_parts.py")
    one = train(Group(), items, new_folder(tmp_path, Group(), "one"), name, on="cuda")
    folder = new_folder(tmp_path, Group(), "two")
    for found in in_processes(2, train, items, folder, name, device="cuda", on="cuda"):
        assert difference(found, one) < 1e-5


def test_pieces_equal_the_whole_batch_without_batch_norm(one: dict[str, Trained]) -> None:
    assert difference(one["pieces"], one["no batch norm"]) < TOLERANCE and not one["pieces"]["warnings"]


def test_pieces_with_batch_norm_differ_and_say_so(one: dict[str, Trained]) -> None:
    assert difference(one["pieces, batch norm"], one["batch norm"]) > 1e-3
    (text,) = one["pieces, batch norm"]["warnings"]
    assert "4 images at a time instead of 16" in text
    counted = [name for name in one["batch norm"]["state"] if name.endswith("num_batches_tracked")]
    assert {int(one["pieces, batch norm"]["state"][name]) for name in counted} == {STEPS}


def test_recomputed_activations_change_nothing(one: dict[str, Trained]) -> None:
    assert difference(one["recomputed"], one["batch norm"]) == 0


def test_a_micro_batch_must_divide_the_batch() -> None:
    with pytest.raises(UsageError, match=r"must divide the batch of 16 images .* found 5"):
        recipe.load(recipe.find("unified"), "", {**BASE, "training.micro_batch": 5})


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: torch.nn.functional.alpha_dropout(x, 0.5, training=True),
        lambda x: x.new_empty((len(x), 1, 1)).bernoulli_(0.5),
        lambda x: torch.rand(len(x), 2),
        lambda x: torch.randn((len(x), 2)),
        lambda x: torch.rand(size=(len(x), 2)),
        lambda x: torch.rand_like(x),
        lambda x: torch.bernoulli(x.sigmoid()),
    ],
)
def test_a_part_draws_the_numbers_of_the_whole_batch(draw: Any, rows: int) -> None:
    images = torch.randn(8 * rows, 5, 4)
    torch.manual_seed(0)
    whole, after = draw(images), torch.rand(1)
    for start in (0, 6):
        torch.manual_seed(0)
        with PartOfBatch(start, 2, 8):
            part = draw(images[start * rows : (start + 2) * rows])
        assert torch.equal(part, whole[start * rows : (start + 2) * rows])
        assert torch.equal(torch.rand(1), after), "and leaves the generator where the whole batch leaves it"


def test_draws_that_are_not_per_image_stay_as_they_are() -> None:
    for size in ((3,), ()):
        torch.manual_seed(0)
        expected = torch.rand(size=size)
        torch.manual_seed(0)
        with PartOfBatch(0, 2, 8):
            assert torch.equal(torch.rand(size=size), expected)
            assert torch.equal(torch.nn.functional.dropout(torch.ones(2), training=False), torch.ones(2))
