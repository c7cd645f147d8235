"""Batches are identical in every bit, independent of threads and of the iteration at which an epoch resumes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from harness.contracts import Item
from harness.data.buffers import Buffers
from harness.data.copies import copied_ahead
from harness.data.loader import Batch, EvaluationData, TrainingData
from harness.errors import DataError, UsageError
from harness.spec.recipe import Augmentation, Erasing, Recipe, Sampler
from harness.system.paths import REPOSITORY

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RECIPE = Recipe("test", augmentation=Augmentation(image_size=(32, 16), pad=3), sampler=Sampler(4, 2, "fixed", 6))


def write_items(folder: Path) -> list[Item]:
    """Twelve identities, 901 down to 890, with five images each, from cameras 0, 2 and 4."""
    rng, items = np.random.default_rng(0), []
    for number in range(60):
        path = folder / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(path)
        items.append(Item(path, 901 - number // 5, number % 3 * 2))
    return items


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[Item]:
    return write_items(tmp_path_factory.mktemp("images"))


def training(items: list[Item], seed: int = 5, **options) -> TrainingData:
    return TrainingData(items, options.pop("recipe", RECIPE), seed=seed, **NORMAL, **options)


def digest(batches) -> list[str]:
    return [hashlib.sha256(b"".join(t.numpy().tobytes() for t in batch)).hexdigest() for batch in batches]


def test_batches_are_in_pk_order_with_labels_by_sorted_pid(items):
    data = training(items)
    assert (data.num_classes, data.num_cameras, data.batch_size, data.iterations(0)) == (12, 3, 8, 6)
    assert data.labels == {pid: label for label, pid in enumerate(range(890, 902))}
    for batch in data.epoch(0):
        assert batch.images.shape == (8, 3, 32, 16)
        assert [t.dtype for t in batch] == [torch.float32, torch.int64, torch.int64]
        blocks = batch.labels.reshape(4, 2)
        assert torch.equal(blocks[:, 0], blocks[:, 1])
        assert len(blocks[:, 0].unique()) == 4


def test_cameras_are_numbered_by_order_for_the_embedding(items):
    """Camera numbers may be arbitrary: camera 20230001 must not need 20 million rows."""
    data = training(items)
    assert data.cameras == {0: 0, 2: 1, 4: 2}
    assert {row for batch in data.epoch(0) for row in batch.camera_ids.tolist()} == {0, 1, 2}
    renumbered = [item._replace(camid=20230001 + item.camid) for item in items]
    assert digest(training(renumbered).epoch(0)) == digest(data.epoch(0))
    (batch,) = evaluation(renumbered, 60, cameras=training(renumbered).cameras)
    assert batch.camera_ids.tolist() == [item.camid // 2 for item in items]


def test_a_label_and_a_camera_belong_to_their_image(tmp_path):
    items = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (16, 32), (number * 5, number // 10 * 50, number % 10 * 20)).save(path)
        items.append(Item(path, number // 10, number % 10))
    little = Augmentation((32, 16), pad=0, erasing=Erasing(area=(0.02, 0.1)))
    mean, std = torch.tensor(NORMAL["mean"]), torch.tensor(NORMAL["std"])
    for batch in training(items, recipe=replace(RECIPE, augmentation=little)).epoch(1):
        levels = ((batch.images.flatten(2).median(dim=2).values * std + mean) * 255).round().long()
        assert torch.equal(levels[:, 1] // 50, batch.labels)
        assert torch.equal(levels[:, 2] // 20, batch.camera_ids)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(items, tmp_path, workers):
    expected = digest(training(items).epoch(3))
    assert digest(training(items, workers=workers).epoch(3)) == expected
    assert digest(training(items, workers=workers, cache=tmp_path).epoch(3)) == expected


def test_a_resumed_epoch_gives_the_same_rest(items):
    expected = digest(training(items).epoch(2))
    for start in range(7):
        assert digest(training(items, workers=2).epoch(2, start)) == expected[start:]


def test_a_batch_can_be_made_by_itself(items):
    expected = digest(training(items).epoch(2))
    data = training(items)
    for iteration in (5, 0, 3):
        assert digest([data.batch(2, iteration)]) == [expected[iteration]]


def test_threads_of_torch_and_its_global_seed_change_nothing(items):
    expected, threads = digest(training(items).epoch(0)), torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        torch.manual_seed(99)
        np.random.seed(99)
        state = torch.get_rng_state()
        assert digest(training(items).epoch(0)) == expected
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(threads)


CHILD = """
import json, sys
from pathlib import Path
from tests.harness.data.test_loader import Item, digest, training
items = [Item(Path(path), pid, camid) for path, pid, camid in json.loads(sys.argv[1])]
print(json.dumps(digest(training(items, workers=2, cache=Path(sys.argv[2])).epoch(4))))
"""


def test_another_process_makes_the_same_batches(items, tmp_path):
    plain = json.dumps([(str(path), pid, camid) for path, pid, camid in items])
    command = [sys.executable, "-c", CHILD, plain, str(tmp_path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == digest(training(items).epoch(4))


@pytest.mark.slow
def test_ray_processes_make_the_same_batches(items, tmp_path):
    import ray

    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:

        @ray.remote
        def work(workers: int) -> list[str]:
            import tests.harness.data.test_loader as here

            return here.digest(here.training(items, workers=workers, cache=tmp_path).epoch(4))

        expected = digest(training(items).epoch(4))
        assert ray.get([work.remote(0), work.remote(2)]) == [expected, expected]
    finally:
        ray.shutdown()


def test_seed_epoch_and_iteration_all_matter(items):
    digests = [d for seed in (0, 1) for epoch in (0, 1) for d in digest(training(items, seed=seed).epoch(epoch))]
    assert len(set(digests)) == 24


def test_augmentation_differs_from_batch_to_batch(items, tmp_path):
    """All images are white, so that batches differ only by augmentation."""
    path = tmp_path / "white.png"
    Image.new("RGB", (16, 32), "white").save(path)
    data = training([item._replace(path=path) for item in items])
    images = [batch.images for epoch in (0, 1) for batch in data.epoch(epoch)]
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_memory_of_a_held_batch_is_not_reused():
    buffers = Buffers((2, 3))
    first, second = buffers.take(), buffers.take()
    view = first.fill_(1)[1]
    second.fill_(2)
    places = {first.data_ptr(), second.data_ptr()}
    del first, second
    third, fourth = buffers.take(), buffers.take()
    assert third.data_ptr() in places
    assert fourth.data_ptr() not in places
    third.fill_(3), fourth.fill_(4)
    assert view.tolist() == [1, 1, 1]
    del view
    assert buffers.take().data_ptr() in places


@pytest.mark.gpu
def test_images_arrive_on_a_gpu_while_it_works(items):
    """No batch changes, although its images are copied while the work on earlier ones goes on."""
    device = torch.device("cuda")
    made = training(items, pin_memory=True)
    expected, found = list(made.epoch(0)), []
    matrix = torch.randn(4096, 4096, device=device)
    for batch in copied_ahead(made.epoch(0), device):
        assert batch.images.is_cuda and not batch.labels.is_cuda
        for _ in range(20):
            matrix = matrix @ matrix / 4096
        found.append((batch.images + 0 * matrix[0, 0], batch.labels))
    assert len(found) == len(expected)
    for (images, labels), whole in zip(found, expected, strict=True):
        assert torch.equal(images.cpu(), whole.images) and torch.equal(labels, whole.labels)


def test_without_a_gpu_batches_are_left_alone(items):
    batches = list(training(items).epoch(0))
    first = next(iter(copied_ahead(batches, torch.device("cpu"))))
    assert first is batches[0]


def test_stopping_early_leaves_no_thread_behind(items):
    before = threading.active_count()
    batches = training(items, workers=3).epoch(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_an_unreadable_image_is_an_error_that_names_it(items, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    bad = [Item(broken, item.pid, item.camid) if i % 5 == 0 else item for i, item in enumerate(items)]
    with pytest.raises(DataError, match=r"broken\.png"):
        list(training(bad, workers=2).epoch(0))


def test_no_images_or_too_few_identities_are_errors(items):
    with pytest.raises(DataError, match="no training images"):
        training([])
    with pytest.raises(UsageError, match=r"4 identities.*only 2"):
        training(items[:10])


def evaluation(items, batch_size, **options) -> EvaluationData:
    size = {"image_size": (32, 16), "interpolation": "bilinear"}
    return EvaluationData(items, batch_size=batch_size, **size, **NORMAL, **options)


@pytest.mark.parametrize("batch_size", [1, 7, 60, 100])
def test_evaluation_keeps_order_at_any_batch_size(items, tmp_path, batch_size):
    whole = next(iter(evaluation(items, 60)))
    data = evaluation(items, batch_size, workers=2, cache=tmp_path)
    batches = list(data)
    assert len(batches) == len(data)
    joined = Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(joined, whole, strict=True))
    assert joined.labels.tolist() == [item.pid for item in items]
    assert joined.camera_ids.tolist() == [item.camid for item in items]
    assert len(list(data)) == len(data)  # a second time


def test_an_empty_split_has_no_batches(tmp_path):
    assert list(evaluation([], 8, cache=tmp_path)) == []
