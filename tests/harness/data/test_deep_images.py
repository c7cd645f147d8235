"""Images of modes other than 8-bit RGB, mainly gray of more than 8 bits, are converted correctly or refused."""

from __future__ import annotations

import csv
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import registry
from harness.data.cache import FileImages, key
from harness.data.images import to_rgb8
from harness.data.transforms import decode
from harness.errors import DataError, UsageError
from harness.records import store
from harness.registry import dataset_checks, lookup

RAMP = np.linspace(0, 4095, 16 * 8).round().reshape(16, 8)
TYPES = {"uint16": "tif", ">u2": "tif", "int32": "tif", "float32": "tif", "png": "png", "pgm": "pgm", "jp2": "jp2"}


def write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_gray_values_are_scaled_by_the_range_of_the_dataset(kind: str, tmp_path: Path) -> None:
    dtype = kind if TYPES[kind] == "tif" else "uint16"
    path = write(tmp_path / f"a.{TYPES[kind]}", RAMP.astype(dtype))
    pixels = decode(path, (16, 8), "bicubic", (0, 4095))
    assert (pixels == np.rint(RAMP * 255 / 4095)).all() and pixels.min() == 0 and pixels.max() == 255
    part = decode(path, (16, 8), "bicubic", (1000, 3000))
    assert (part == np.rint(np.clip((RAMP - 1000) * 255 / 2000, 0, 255))).all()
    with pytest.raises(
        DataError, match=r"Cannot read the image .* gray image with more than 8 bits .* convert it to 8 bits"
    ) as e:
        decode(path, (16, 8), "bicubic")
    assert "archive" not in str(e.value)


def test_a_dark_image_stays_darker_than_a_bright_one(tmp_path: Path) -> None:
    dark, bright = (write(tmp_path / f"{n}.png", (RAMP / n).astype("uint16")) for n in (4, 1))
    means = [decode(path, (16, 8), "bilinear", (0, 4095)).mean() for path in (dark, bright)]
    assert means[1] / means[0] == pytest.approx(4, rel=0.02)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.where(RAMP > 4000, np.nan, RAMP).astype("float32"))
    with pytest.raises(DataError, match="gray values that are not finite"):
        decode(path, (16, 8), "bicubic", (0, 4095))
    assert dataset_checks._open(path) == "it contains gray values that are not finite"


COLOUR = np.zeros((16, 8, 3), np.uint8)
COLOUR[:8], COLOUR[8:, :4], COLOUR[8:, 4:] = (200, 30, 60), (0, 0, 0), (255, 255, 255)
MODES = {"RGB": 0, "RGBA": 0, "P": 2, "CMYK": 1, "YCbCr": 2, "HSV": 3, "LAB": 4, "L": 0, "LA": 0, "1": 0}
"""Returns the allowed error of a level, given the precision of the mode."""


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    source = Image.fromarray(COLOUR)
    wanted = COLOUR
    if mode in ("L", "LA", "1"):
        source = source.convert("L") if mode != "1" else source.convert("L").point(lambda v: 255 * (v > 100))
        wanted = np.stack([np.asarray(source)] * 3, axis=-1)
    image = source.quantize(8) if mode == "P" else source.convert(mode)
    suffix = {"CMYK": "tif", "YCbCr": "tif", "LAB": "tif"}.get(mode, "png")
    if mode != "HSV":  # no file format stores it
        image.save(tmp_path / f"a.{suffix}")
        with Image.open(tmp_path / f"a.{suffix}") as opened:
            assert opened.mode == mode
        pixels = decode(tmp_path / f"a.{suffix}", (16, 8), "bilinear").transpose(1, 2, 0)
        assert isinstance(dataset_checks._open(tmp_path / f"a.{suffix}"), dataset_checks._Opened)
    else:
        pixels = np.asarray(to_rgb8(image))
    assert abs(pixels.astype(int) - wanted).max() <= MODES[mode]


def test_transparent_palettes_and_inverted_cmyk(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(3)
    palette.save(tmp_path / "p.png", transparency=bytes([255, 128, 0]))
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.jpg", quality=100, subsampling=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, limit in (("p.png", 2), ("c.jpg", 12)):
            pixels = decode(tmp_path / name, (16, 8), "bilinear").transpose(1, 2, 0)
            assert abs(pixels.astype(int) - COLOUR).max() <= limit, name


def test_a_cache_belongs_to_a_range(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.png", RAMP.astype("uint16"))]
    keys = {key(FileImages(paths, (16, 8), "bicubic", r)) for r in (None, (0, 4095), (0, 65535))}
    assert len(keys) == 3


def card(tmp_path: Path, options: str = "", name: str = "thermal") -> registry.DatasetEntry:
    folder = tmp_path / "plugins" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.toml").write_text(
        f'kind = "dataset"\nname = "{name}"\ntitle = "{name}"\n[[layouts]]\nname = "{name}"\nreader = "csv"\n'
        f'folders = ["{name}"]\n[layouts.options]\n{options}\n'
    )
    lookup._scan.cache_clear()
    return registry.dataset(name, tmp_path / "plugins")


def thermal(folder: Path, scale: float, dtype: str) -> Path:
    """Six identities by two cameras, gray; another scale and depth show the same."""
    rows = []
    for pid in range(6):
        for camid in range(2):
            rng = np.random.default_rng([pid])
            levels = rng.integers(0, 256, (16, 8)) // 2 + np.random.default_rng([pid, camid]).integers(0, 128, (16, 8))
            levels[0, 0], levels[0, 1] = 0, 255
            write(folder / f"{pid}_{camid}.png", (levels * scale).astype(dtype))
            part = "train" if pid < 3 else ("query", "gallery")[camid]
            rows.append([f"{pid}_{camid}.png", pid, camid, part])
    with (folder / "items.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "pid", "camid", "split"], *rows])
    return folder


def sentences(entry: registry.DatasetEntry, root: Path, level: str) -> list[str]:
    return [str(f) for f in dataset_checks.validate_dataset(entry, root) if f.level == level]


def test_validate_measures_the_range_and_checks_the_cards(tmp_path: Path) -> None:
    thermal(tmp_path / "thermal", 16, "uint16")
    [error] = sentences(card(tmp_path), tmp_path, "error")
    assert error.startswith("12 gray image(s) have more than 8 bits, with values from 0 to 4080.")
    assert "in the layout's options: value_range = [0, 4080]" in error
    assert sentences(card(tmp_path, "value_range = [0, 4080]"), tmp_path, "error") == []
    assert any(
        "value_range = [0, 4080] is scaled to 8 bits" in s
        for s in sentences(card(tmp_path, "value_range = [0, 4080]"), tmp_path, "info")
    )
    [warning] = sentences(card(tmp_path, "value_range = [0.0, 2000.5]"), tmp_path, "warning")
    assert "values outside it are clipped in 12 image(s)" in warning


def test_16_bits_a_channel_are_told_with_their_brightness(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    thermal(tmp_path / "thermal", 1, "uint8")
    rows = b"".join(b"\0" + np.stack([RAMP[y]] * 3, -1).astype(">u2").tobytes() for y in range(16))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 16, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "thermal" / "0_0.png").write_bytes(png)
    [warning] = sentences(card(tmp_path), tmp_path, "warning")
    assert (
        "1 image(s) have 16 bits per channel, of which the upper 8 are used; their largest value is then 15" in warning
    )


@pytest.mark.parametrize("text", ["[4095, 0]", "[1, 1]", "[0]", "[0, 1, 2]", '["0", "1"]', "4095", "[false, true]"])
def test_a_range_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    thermal(tmp_path / "thermal", 16, "uint16")
    with pytest.raises(UsageError, match="value_range must be"):
        card(tmp_path, f"value_range = {text}").load(tmp_path)


def test_another_range_is_another_dataset_for_the_run_id(tmp_path: Path) -> None:
    thermal(tmp_path / "thermal", 16, "uint16")
    prints = [
        card(tmp_path, options).fingerprint(tmp_path)
        for options in ("", "value_range = [0, 4080]", "value_range = [0, 65535]")
    ]
    assert len(set(prints)) == 3


@pytest.mark.slow
def test_run_on_16_bits_scores_as_on_8_and_needs_a_range(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, scale, dtype in (("thermal", 257, "uint16"), ("gray", 1, "uint8"), ("unranged", 257, "uint16")):
        thermal(tmp_path / name, scale, dtype)
        card(tmp_path, "value_range = [0, 65535]" if name == "thermal" else "", name)
    common = ["--plugins", tmp_path / "plugins", "--data-root", tmp_path, "--recipe", "smoke", "--from-scratch"]
    common += ["--device", "cpu", "--results", tmp_path / "results", "--cache", tmp_path / "cache", "--no-mlflow"]
    common += ["--report", tmp_path / "B.md", "--debug", "--set", "sampler.identities=3"]
    code, out, err = cli("run", "--backbones", "dummy", "--datasets", "gray,thermal,unranged", *common)
    assert code == 1, out + err
    records = {record["spec"]["dataset"]: record for record in store.records(tmp_path / "results")}
    scores = [records[name]["evaluations"][0]["cmc"] for name in ("gray", "thermal")]
    assert scores[0] == scores[1]
    maps = [records[name]["evaluations"][0]["mAP"] for name in ("gray", "thermal")]
    assert maps[0] == maps[1]
    assert records["thermal"]["data"]["notes"]["value_range"] == [0, 65535]
    assert records["unranged"]["status"] == "failed" and records["unranged"]["stage"] == "data"
    assert "6 images cannot be read" in records["unranged"]["error"]["message"]
    assert "Gray values from 0 (black) to 65535 (white) are scaled to 8 bits" in (tmp_path / "B.md").read_text()
    sheets = [next((tmp_path / "results" / name).rglob("ranked_lists.png")) for name in ("gray", "thermal")]
    first, second = (np.asarray(Image.open(sheet))[80:] for sheet in sheets)  # below the titles
    assert (first == second).all()
