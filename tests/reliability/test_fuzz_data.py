"""Damaged or odd files of datasets, archives, weights and caches: each is read, or refused by a documented error.

The test suite uses a few fixed examples. To use new examples for some seconds per target, run

    HARNESS_FUZZ_SECONDS=20 python -m pytest tests/reliability/test_fuzz_data.py -s
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.io
from hypothesis import strategies as st

from datasets import fingerprint_cache
from datasets.preparation import builders
from datasets.preparation.unpack import Limits, is_archive, top_folders, unpack
from datasets.readers import READERS, cuhk03, folders, market, msmt17, table
from datasets.readers.source import Source
from harness import registry, weights
from harness.data import feature_files
from harness.figures import pictures
from harness.registry import dataset_checks
from tests.support import small_datasets as small
from tests.support.mutations import SECONDS, changed, changed_json, damaged, fuzz, only_documented, told

pytestmark = pytest.mark.timeout(max(300, 2 * SECONDS + 300))
LAYOUTS = {
    (layout.options.get("pattern", market.PATTERN), layout.options.get("example", "0002_c1s1_000451_03.jpg"))
    for entry in registry.datasets()
    for layout in entry.card.layouts
    if layout.reader == "market"
}


@pytest.mark.parametrize(("pattern", "example"), sorted(LAYOUTS))
def test_file_names_of_every_layout(tmp_path: Path, pattern: str, example: str) -> None:
    names = damaged(example.encode()).map(lambda n: n.replace(b"/", b"_").replace(b"\0", b"_") + b".jpg")

    def check(found: list[bytes]) -> None:
        for sub in ("bounding_box_train", "query", "bounding_box_test"):
            folder = tmp_path / sub
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            for name in found:
                with contextlib.suppress(OSError):
                    open(bytes(folder) + b"/" + name, "w").close()
        with only_documented():
            splits = market.read(Source(tmp_path), pattern=pattern, example=example)
            assert all(item.pid >= 0 and item.camid >= 0 for items in splits.values() for item in items)

    told(f"names like {example}", fuzz(st.lists(names, min_size=1, max_size=3), check))


def test_folders_of_identities(tmp_path: Path) -> None:
    names = damaged(b"0001/0001C1T0001F001").map(lambda n: n.replace(b"\0", b"_") + b".jpg")

    def check(found: list[bytes]) -> None:
        builders.shutil.rmtree(tmp_path / "data", ignore_errors=True)
        for sub in ("train", "query", "gallery"):
            (tmp_path / "data" / sub).mkdir(parents=True)
            for name in found:
                path = os.path.join(os.fsencode(tmp_path / "data" / sub), *name.split(b"/"))
                with contextlib.suppress(OSError):
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    open(path, "w").close()
        with only_documented():
            splits = folders.read(Source(tmp_path / "data"), pattern=r"C(?P<camid>\d+)T\d+F\d+")
            assert all(item.pid >= 0 and item.camid >= 0 for items in splits.values() for item in items)

    safe = names.filter(lambda n: b".." not in n and not n.startswith(b"/"))
    told("folders of identities", fuzz(st.lists(safe, min_size=1, max_size=3), check))


@pytest.mark.parametrize("name", ["list_train.txt", "list_query.txt"])
def test_lists(tmp_path: Path, name: str) -> None:
    folder = small.msmt17(tmp_path / "MSMT17_V1")
    good = (folder / name).read_bytes()

    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        with only_documented():
            for items in msmt17.read(Source(folder)).values():
                assert all(item.path.resolve().is_relative_to(folder) and item.pid >= 0 for item in items)

    told(name, fuzz(damaged(good), check))


def test_tables(tmp_path: Path) -> None:
    small.picture(tmp_path / "a.jpg")
    good = b"path,pid,camid,split\na.jpg,1,0,train\na.jpg,1,1,query\na.jpg,2,1,gallery\n"

    def check(content: bytes) -> None:
        (tmp_path / "items.csv").write_bytes(content)
        with only_documented():
            table.read(Source(tmp_path))

    told("items.csv", fuzz(damaged(good), check))


@pytest.mark.parametrize("compressed", [False, True])
def test_protocol_files(put: Callable[..., Path], compressed: bool) -> None:
    import scipy.io

    names = np.array([[f"1_00{i}_1_0{i}.png"] for i in range(1, 7)], dtype=object)
    table = {"filelist": names, "labels": np.arange(6)[:, None], "camId": np.array([[1, 2] * 3]).T}
    parts = {"train_idx": [[1], [2]], "query_idx": [[3], [4]], "gallery_idx": [[5], [6]]}
    file = io.BytesIO()
    scipy.io.savemat(file, {**table, **parts}, do_compression=compressed)
    assert len(cuhk03.protocol(put(file.getvalue()))["filelist"]) == 6

    def check(content: bytes) -> None:
        with only_documented():
            cuhk03.protocol(put(content))

    told(f"protocol .mat, compressed {compressed}", fuzz(damaged(file.getvalue()) | st.binary(max_size=500), check))


def test_json_of_datasets(tmp_path: Path) -> None:
    folder = small.market(tmp_path / "Market-1501-v15.09.15")
    row = {"images": 2, "identities": 2, "cameras": 2}
    good = {"generated": True, "layout": "market1501", "counts": {"train": row, "query": row, "gallery": row}}
    entry = registry.dataset("market1501")

    def check(content: str) -> None:
        (folder / "stand-in.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        with only_documented():
            splits = entry.load(tmp_path)
            json.dumps(splits.generated, allow_nan=False)
            dataset_checks.check_counts(entry, splits)
            dataset_checks.check_labels(splits)

    told("stand-in.json", fuzz(changed_json(good), check))


def test_test_sets() -> None:
    def check(content: str) -> None:
        with only_documented():
            cuhk03.testsets(content, Path("x.json"))

    told("test sets", fuzz(changed_json({"testsets": [[[1, 3], [2, 4]], [[1, 5], [5, 6]]]}), check))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images(put: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    from PIL import Image

    from harness.data.transforms import decode

    file = io.BytesIO()
    Image.fromarray(np.arange(24 * 12 * 3, dtype=np.uint8).reshape(24, 12, 3)).save(file, kind)

    def check(content: bytes) -> None:
        path = put(content)
        with only_documented():
            assert decode(path, (16, 8), "bicubic").shape == (3, 16, 8)
        assert dataset_checks._open(path)
        line = {"path": path, "pid": 1, "camid": 0}
        pictures.ranked_sheet([{**line, "ap": 0.5, "results": [line]}], tmp_path / "sheet.png")

    told(kind, fuzz(damaged(file.getvalue()), check))


def test_remembered_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[..., Path]) -> None:
    """A damaged cache counts as empty."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    file = put(b"weights", "net.pth")
    digest = weights.checksum(file)
    sums = json.loads((tmp_path / "cache" / "checksums.json").read_text())
    facts = fingerprint_cache.Facts("0" * 64, 9, 3, 2, 2, ())
    remembered = {"facts": msgspec.to_builtins(facts), "stamps": {".": [tmp_path.stat().st_mtime_ns, 0]}}
    (tmp_path / "cache" / "fingerprints").mkdir(parents=True)

    def checksum(content: dict[str, Any]) -> None:
        (tmp_path / "cache" / "checksums.json").write_text(json.dumps(content))
        assert isinstance(weights.checksum(file), str)

    def fingerprint(text: str) -> None:
        fingerprint_cache._file("key").write_text(text, encoding="utf-8", errors="surrogatepass")
        found = fingerprint_cache.recall("key", tmp_path)
        assert found is None or found.fingerprint == "0" * 64

    assert digest
    told("checksums.json", fuzz(changed(sums), checksum))
    told("fingerprints", fuzz(changed_json(remembered), fingerprint))


@contextlib.contextmanager
def written(kind: str) -> Iterator[bytes]:
    members = {"a/b.jpg": bytes(range(256)) * 4, "a/c.jpg": b"x" * 700}
    file = io.BytesIO()
    if kind.startswith("zip"):
        how = {"zip": 0, "zip deflated": 8, "zip bzip2": 12, "zip lzma": 14}[kind]
        with zipfile.ZipFile(file, "w", how) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    pack = {"tar.gz": lambda b: gzip.compress(b, mtime=0), "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
    yield pack.get(kind, bytes)(file.getvalue())


@pytest.mark.parametrize("kind", ["zip", "zip deflated", "zip bzip2", "zip lzma", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives(tmp_path: Path, kind: str) -> None:
    limits = Limits(bytes=1 << 20, files=20, ratio=1000, ratio_from=1 << 19)
    archive, room = tmp_path / "archive", tmp_path / "room"

    def check(content: bytes) -> None:
        archive.write_bytes(content)
        is_archive(archive)
        top_folders(archive)
        with only_documented():
            unpack(archive, room / "target", limits=limits)
        builders.shutil.rmtree(room, ignore_errors=True)
        assert {path.name for path in tmp_path.iterdir()} == {"archive"}

    with written(kind) as good:
        told(kind, fuzz(damaged(good), check))


def checkpoints() -> dict[str, tuple[str, bytes]]:
    import torch
    from safetensors.torch import save

    found = {}
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
    whole = {"run_id": "x", "epoch": 3, "module": tensors, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    for name, new in (("torch.save", True), ("torch.save, old form", False)):
        file = io.BytesIO()
        torch.save(whole, file, _use_new_zipfile_serialization=new)
        found[name] = ("checkpoint.pt", file.getvalue())
    file = io.BytesIO()
    with warnings.catch_warnings():  # TorchScript is deprecated, but files of it are not
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)), file)
    found["TorchScript"] = ("net.pt", file.getvalue())
    found["safetensors"] = ("net.safetensors", save(tensors))
    file = io.BytesIO()
    np.savez(file, query=np.ones((2, 3), np.float32), gallery=np.ones((3, 3), np.float32))
    found["npz"] = ("features.npz", file.getvalue())
    file = io.BytesIO()
    scipy.io.savemat(file, {"query_f": np.ones((2, 3)), "gallery_f": np.ones((3, 3)), "query_path": ["a.jpg", "b.jpg"]})
    found["mat"] = ("features.mat", file.getvalue())
    return found


@pytest.mark.parametrize("kind", ["torch.save", "torch.save, old form", "TorchScript", "safetensors", "npz", "mat"])
def test_checkpoints_and_features(tmp_path: Path, put: Callable[..., Path], kind: str) -> None:
    import torch

    from harness.training import checkpoint

    name, good = checkpoints()[kind]
    weight = torch.arange(6.0).view(2, 3)

    def check(content: bytes) -> None:
        path = put(content, name)
        with only_documented():
            assert all(isinstance(value, torch.Tensor) for value in weights.load_state(path).values())
        with only_documented():
            query, gallery = feature_files.read(path)
            assert query.features.ndim == gallery.features.ndim == 2
        state = checkpoint.load(tmp_path, "x", lambda text: None)
        assert state is None or (state["run_id"] == "x" and torch.equal(state["module"]["a.weight"], weight))

    told(kind, fuzz(damaged(good), check))


def test_cached_images(tmp_path: Path) -> None:
    """A cache with a damaged header is built again."""
    from harness.data.cache import open_images

    paths = [small.picture(tmp_path / f"{i}.png", i) for i in range(2)]
    shape = (2, 3, 16, 8)
    good = np.asarray(open_images(paths, (16, 8), "bicubic", folder=tmp_path / "cache")).copy()
    (cache,) = (tmp_path / "cache").glob("*.npy")
    head, body = cache.read_bytes()[:128], cache.read_bytes()[128:]

    def check(content: bytes) -> None:
        cache.write_bytes(content + body)
        found = open_images(paths, (16, 8), "bicubic", folder=tmp_path / "cache")
        assert np.asarray(found).shape == shape
        if content != head and len(content) == 128 and np.array_equal(found, good):
            return
        cache.unlink()

    told("cached images", fuzz(damaged(head), check))


def test_a_layout_of_every_kind_is_fuzzed() -> None:
    assert set(READERS) == {"market", "msmt17", "cuhk03", "cuhk03-classic", "csv", "folders"} and len(LAYOUTS) >= 5
