"""Transforms: the pixels of PIL and torchvision, and the distributions of the original augmentations."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image
from torchvision import transforms as T

from harness.data.rng import generator
from harness.data.transforms import Normalization, augment, decode, draw, draw_boxes, erase, shift
from harness.errors import DataError
from harness.spec.recipe import Augmentation, Erasing

DRAWS = 20_000
SIZE = (256, 128)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Augmentation(SIZE, pad=0, flip=0.0, erasing=Erasing(probability=0.0))


def picture(seed: int, height: int = 128, width: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def augmented(images, rows: list[int], recipe: Augmentation, seed: int) -> torch.Tensor:
    batch = torch.full((len(rows), 3, *recipe.image_size), torch.nan)
    augment(images, np.array(rows), recipe, Normalization.of(MEAN, STD), generator(seed), batch)
    return batch


def same_mean(found: np.ndarray, original: np.ndarray, what: str) -> None:
    """Two samples have the same mean within three standard errors of their difference."""
    error = math.sqrt(found.var() / len(found) + original.var() / len(original))
    assert abs(found.mean() - original.mean()) <= 3 * error, what


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("source", [(128, 64), (300, 170), (256, 128)])
def test_test_pixels_are_those_of_the_original_pipeline(tmp_path, interpolation, source):
    picture(1, *source).save(tmp_path / "a.jpg")
    mode = T.InterpolationMode(interpolation)
    original = T.Compose([T.Resize(SIZE, interpolation=mode), T.ToTensor(), T.Normalize(MEAN, STD)])
    with Image.open(tmp_path / "a.jpg") as image:
        expected = original(image.convert("RGB"))
    images = [decode(tmp_path / "a.jpg", SIZE, interpolation)]
    found = augmented(images, [0], PLAIN, seed=0)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / f"a.{'png' if mode in ('P', 'RGBA') else 'jpg'}"
    picture(2).convert(mode).save(path)
    pixels = decode(path, (32, 16), "bicubic")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((16, 32), Image.Resampling.BICUBIC))
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels.transpose(1, 2, 0), expected)


def test_an_unreadable_image_is_named(tmp_path):
    whole, cut, text = tmp_path / "whole.jpg", tmp_path / "cut.jpg", tmp_path / "text.jpg"
    picture(3).save(whole)
    cut.write_bytes(whole.read_bytes()[:700])
    text.write_text("not an image")
    for path in (cut, text, tmp_path / "missing.jpg"):
        with pytest.raises(DataError, match=path.name):
            decode(path, SIZE, "bicubic")


@given(st.integers(-12, 12), st.integers(-12, 12))
@settings(deadline=None, max_examples=60)
def test_a_shift_is_padding_and_cropping(down, right):
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 7), dtype=np.uint8)
    canvas = np.full_like(image, 77)
    shift(image, down, right, canvas)
    padded = F.pad(torch.from_numpy(image), [20])
    assert np.array_equal(canvas, F.crop(padded, 20 - down, 20 - right, 9, 7).numpy())


def test_augmented_pixels_are_those_of_the_original_functions():
    """With the same random numbers, pad, crop, flip and normalisation equal torchvision's."""
    images = np.stack([np.asarray(picture(i, *SIZE)).transpose(2, 0, 1) for i in range(8)])
    recipe = Augmentation(SIZE, erasing=Erasing(probability=0.0))
    rows = [3, 1, 7, 1]
    draws = draw(generator(4), 4, recipe)
    assert draws.flip.any() and not draws.flip.all()
    found = augmented(images, rows, recipe, seed=4)
    for image, row, down, right, flip in zip(found, rows, *draws[:3], strict=True):
        expected = F.crop(F.pad(torch.from_numpy(images[row]), [10]), 10 - down, 10 - right, *SIZE)
        expected = F.normalize((F.horizontal_flip(expected) if flip else expected) / 255, MEAN, STD)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=2e-6)


def test_padding_is_black_before_normalisation():
    recipe = Augmentation(SIZE, pad=10, flip=0.5, erasing=Erasing(probability=0.0))
    white = np.full((1, 3, *SIZE), 255, dtype=np.uint8)
    found = augmented(white, [0] * 64, recipe, seed=1)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    light = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    for channel in range(3):
        values = found[:, channel].unique()
        torch.testing.assert_close(values, torch.stack([black[channel], light[channel]]), rtol=1e-5, atol=1e-6)


def test_crop_offsets_and_flips_are_distributed_as_the_originals():
    draws = draw(generator(0), DRAWS, Augmentation(SIZE, pad=10, flip=0.5))
    torch.manual_seed(0)
    padded = torch.empty(1, 276, 148)
    original = np.array([T.RandomCrop.get_params(padded, SIZE)[:2] for _ in range(DRAWS)])
    for name, found, theirs in (("down", draws.down, original[:, 0]), ("right", draws.right, original[:, 1])):
        assert set(found.tolist()) == set(range(-10, 11))
        same_mean(10 - found, theirs, name)
        same_mean(found.astype(float) ** 2, (10.0 - theirs) ** 2, f"{name} squared")
        counts, expected = np.bincount(found + 10), DRAWS / 21
        assert ((counts - expected) ** 2 / expected).sum() < 20 + 3 * math.sqrt(2 * 20)
    assert abs(np.corrcoef(draws.down, draws.right)[0, 1]) < 3 / math.sqrt(DRAWS)
    assert abs(draws.flip.mean() - 0.5) < 3 * 0.5 / math.sqrt(DRAWS)


def torchvision_boxes(erasing: Erasing, count: int) -> np.ndarray:
    torch.manual_seed(0)
    image, boxes = torch.empty(3, *SIZE), []
    for _ in range(count):
        top, left, high, wide, _ = T.RandomErasing.get_params(image, erasing.area, erasing.aspect, [0.0])
        boxes.append((top, left, high, wide) if high < SIZE[0] else (0, 0, 0, 0))
    return np.array(boxes)


class Erased:
    """Replaces an image and stores the erased rectangle; 20,000 real images would take minutes."""

    dtype = torch.float32
    box = (0, 0, 0, 0)

    def size(self) -> tuple[int, int, int]:
        return (3, *SIZE)

    def __setitem__(self, place: tuple[slice, slice, slice], value: object) -> None:
        _, rows, columns = place
        self.box = (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)


def timm_boxes(erasing: Erasing, count: int) -> np.ndarray:
    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    low, high = erasing.area
    eraser = RandomErasing(1.0, low, high, min_aspect=erasing.aspect[0], mode="const", device="cpu")
    return np.array([eraser(Erased()).box for _ in range(count)])


def one_by_one(erasing: Erasing, count: int) -> np.ndarray:
    """Random erasing with a uniform aspect, as its paper describes it: try again until the rectangle fits."""
    rng, (height, width), boxes = random.Random(0), SIZE, []
    for _ in range(count):
        box = (0, 0, 0, 0)
        for _ in range(erasing.attempts):
            area, aspect = rng.uniform(*erasing.area) * height * width, rng.uniform(*erasing.aspect)
            high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if high < height and wide < width:
                box = (rng.randint(0, height - high), rng.randint(0, width - wide), high, wide)
                break
        boxes.append(box)
    return np.array(boxes)


@pytest.mark.parametrize(
    ("erasing", "original"),
    [
        (Erasing(area=(0.02, 0.4), aspect=(0.3, 3.33)), torchvision_boxes),
        (Erasing(area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3)), timm_boxes),
        (Erasing(area=(0.02, 0.4), aspect=(0.3, 1 / 0.3), aspect_draw="uniform", attempts=100), one_by_one),
        (Erasing(area=(0.5, 0.9), aspect=(0.3, 3.33), aspect_draw="uniform", attempts=2), one_by_one),
    ],
    ids=["reidmamba", "transreid", "bot", "rarely-fits"],
)
def test_erased_rectangles_are_distributed_as_the_originals(erasing, original):
    always = replace(erasing, probability=1.0)
    found = draw_boxes(generator(0), DRAWS, always, SIZE).astype(float)
    theirs = original(always, DRAWS).astype(float)
    for column, name in enumerate(("top", "left", "height", "width")):
        same_mean(found[:, column], theirs[:, column], name)
        same_mean(found[:, column] ** 2, theirs[:, column] ** 2, f"{name} squared")
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (found, theirs)]
    same_mean(*areas, "area")
    same_mean(areas[0] ** 2, areas[1] ** 2, "area squared")
    same_mean(areas[0] == 0, areas[1] == 0, "unchanged")


def test_half_of_the_images_are_erased_within_their_borders():
    boxes = draw_boxes(generator(0), DRAWS, Erasing(probability=0.5), SIZE)
    erased = boxes[:, 2] > 0
    assert abs(erased.mean() - 0.5) < 3 * 0.5 / math.sqrt(DRAWS)  # ten attempts almost never fail
    assert (boxes >= 0).all()
    assert ((boxes[:, :2] + boxes[:, 2:]) <= SIZE).all()
    assert not boxes[~erased].any()


def test_noise_is_standard_normal_and_stays_inside_its_rectangle():
    batch = torch.full((3, 3, *SIZE), 99.0)
    boxes = np.array([[10, 20, 100, 80], [0, 0, 0, 0], [56, 28, 200, 100]])
    erase(batch, boxes, Erasing(fill="noise"), seed=0)
    inside = torch.cat([batch[0, :, 10:110, 20:100].flatten(), batch[2, :, 56:, 28:].flatten()])
    assert int((batch != 99).sum()) == inside.numel() == 3 * (100 * 80 + 200 * 100)
    assert abs(float(inside.mean())) < 3 / math.sqrt(inside.numel())
    assert abs(float(inside.var()) - 1) < 3 * math.sqrt(2 / inside.numel())
    assert torch.equal(batch[1], torch.full((3, *SIZE), 99.0))


def test_a_value_is_written_in_normalised_space():
    batch = torch.full((1, 3, 8, 8), 5.0)
    erase(batch, np.array([[2, 3, 4, 5]]), Erasing(fill="mean", value=(0.485, 0.456, 0.406)), seed=0)
    assert batch[0, :, 2, 3].tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert int((batch != 5).sum()) == 3 * 4 * 5
