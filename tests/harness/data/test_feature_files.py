"""Features of other programs: file formats and the order of rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contracts import Item
from harness.data import feature_files
from harness.data.feature_rows import LABELS, PATHS, UNCHECKED, arrange
from harness.errors import WeightsError

QUERY = [Item(Path(f"/data/Market/query/{pid:04d}_c{cam + 1}s1_0.jpg"), pid, cam) for pid in (2, 3) for cam in (0, 1)]
GALLERY = [
    Item(Path(f"/data/Market/test/{pid:04d}_c{cam + 1}s1_{n}.jpg"), pid, cam)
    for pid in (0, 2, 3)
    for cam in (0, 1, 2)
    for n in (1, 2)
]


def features(items: list[Item], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(items), 5)).astype(np.float32)


def shuffled(items: list[Item], seed: int = 1) -> list[int]:
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    return order


def labelled(first_camera: int = 1, names: str = "layumi", junk: int = 0) -> tuple[dict[str, Any], Any, Any]:
    """Arrays in a shuffled order, with identities and cameras; and the features in the right order."""
    arrays: dict[str, Any] = {}
    right = features(QUERY), features(GALLERY, 2)
    suffixes = {"layumi": ("_f", "_label", "_cam"), "ours": ("", "_pids", "_camids")}[names]
    for side, items, rows in (("query", QUERY, right[0]), ("gallery", GALLERY, right[1])):
        order = shuffled(items)
        values = (
            rows[order],
            np.array([items[i].pid for i in order]),
            np.array([items[i].camid + first_camera for i in order]),
        )
        if side == "gallery":
            extra = (features(GALLERY[:1], 9).repeat(junk, 0), np.full(junk, -1), np.full(junk, 1))
            values = tuple(np.concatenate([e, v]) for e, v in zip(extra, values, strict=True))
        arrays |= {side + suffix: value for suffix, value in zip(suffixes, values, strict=True)}
    return arrays, *right


def same_up_to_equal_labels(found: np.ndarray, right: np.ndarray, items: list[Item]) -> bool:
    """Rows of the same identity and camera may have changed places, but no others."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, item in enumerate(items):
        groups.setdefault((item.pid, item.camid), []).append(row)
    return all(sorted(found[rows].tolist()) == sorted(right[rows].tolist()) for rows in groups.values())


def write(arrays: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch.save({name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}, path)
    else:
        path.mkdir()
        for name, value in arrays.items():
            np.save(path / f"{name}.npy", value)
    return path


@pytest.mark.parametrize("name", ["result.mat", "f.npz", "f.pt", "folder"])
@pytest.mark.parametrize("first_camera", [0, 1])
def test_rows_with_identities_and_cameras_are_put_in_order(tmp_path: Path, name: str, first_camera: int):
    arrays, query, gallery = labelled(first_camera, junk=4)
    found = arrange(write({**arrays, "mquery_f": query[:1]}, tmp_path / name), QUERY, GALLERY)
    assert found.order == LABELS
    assert np.array_equal(found.query, query)
    assert same_up_to_equal_labels(found.gallery, gallery, GALLERY)
    assert "may be swapped" in found.notes["row_order"] and "4 of junk images" in found.notes["rows_left_out"]


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30),
    seed=st.integers(0, 99),
    offset=st.sampled_from([0, 1, 7]),
)
def test_any_order_gives_rows_of_the_right_identity_and_camera(
    tmp_path_factory: pytest.TempPathFactory, labels: list[tuple[int, int]], seed: int, offset: int
):
    items = [Item(Path(f"{n}.jpg"), pid, cam) for n, (pid, cam) in enumerate(labels)]
    order = shuffled(items, seed)
    rows = np.array([[item.pid + 1, item.camid + 1, 1] for item in items], dtype=np.float32)
    arrays = {}
    for side in ("query", "gallery"):
        arrays[side] = rows[order]
        arrays[f"{side}_pids"] = np.array([f"{items[i].pid:04d}" for i in order])
        arrays[f"{side}_camids"] = np.array([items[i].camid + offset for i in order])
    found = arrange(write(arrays, tmp_path_factory.mktemp("f") / "f.npz"), items, items)
    assert np.array_equal(found.query, rows) and np.array_equal(found.gallery, rows)


@pytest.mark.parametrize("form", ["same", "elsewhere", "windows", "bare"])
@pytest.mark.parametrize("name", ["f.npz", "f.mat", "f.pt"])
def test_rows_with_paths_are_put_in_order(tmp_path: Path, form: str, name: str):
    forms = {
        "same": str,
        "elsewhere": lambda p: f"/home/other/{p.parent.name}/{p.name}",
        "windows": lambda p: f"D:\\reid\\{p.parent.name}\\{p.name}",
        "bare": lambda p: p.name,
    }
    right = {"query": features(QUERY), "gallery": features(GALLERY, 2)}
    arrays: dict[str, Any] = {}
    for side, items in (("query", QUERY), ("gallery", GALLERY)):
        order = shuffled(items)
        arrays[side] = right[side][order]
        arrays[f"{side}_paths"] = [forms[form](items[i].path) for i in order]
        arrays[f"{side}_pids"] = np.array([items[i].pid + 100 for i in order])  # another numbering of the same people
    if name == "f.pt":
        torch.save(
            {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}, tmp_path / name
        )
    else:
        write(arrays, tmp_path / name)
    found = arrange(tmp_path / name, QUERY, GALLERY)
    assert found.order == PATHS
    assert np.array_equal(found.query, right["query"]) and np.array_equal(found.gallery, right["gallery"])


def test_equal_names_in_folders_are_told_apart_by_the_rest_of_the_path(tmp_path: Path):
    items = [Item(Path(f"/data/{person}/{n}.jpg"), person, n) for person in (1, 2) for n in (0, 1)]
    rows, order = features(items), [2, 0, 3, 1]
    paths = [f"elsewhere/{items[i].path.parent.name}/{items[i].path.name}" for i in order]
    write({"features": rows[order], "paths": paths}, tmp_path / "f.npz")
    found = arrange(tmp_path / "f.npz", items, items[:2])  # one table serves both splits
    assert np.array_equal(found.query, rows) and np.array_equal(found.gallery, rows[:2])
    assert "2 of other images" in found.notes["rows_left_out"]
    write({"features": rows, "paths": [item.path.name for item in items]}, tmp_path / "bare.npz")
    with pytest.raises(WeightsError, match="4 of 4 query images match several rows"):
        arrange(tmp_path / "bare.npz", items, items)


def test_without_labels_the_order_is_not_checked(tmp_path: Path):
    arrays = {"qf": features(QUERY), "gf": features(GALLERY)}
    found = arrange(write(arrays, tmp_path / "f.npz"), QUERY, GALLERY)
    assert found.order == UNCHECKED and "could not be checked" in found.notes["row_order"]
    assert np.array_equal(found.gallery, arrays["gf"])


def wrong(**changes: Any) -> dict[str, Any]:
    arrays, *_ = labelled(names="ours")
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            wrong(gallery_camids=None, gallery_pids=None, gallery=features(GALLERY)[1:]),
            "17 gallery features, but the dataset has 18 images",
        ),
        (wrong(query_pids=np.array([2, 2, 3, 9])), "the counts differ for 2 pairs of identity and camera"),
        (wrong(query_pids=np.array([2, 3])), "2 query_pids but 4 rows of query"),
        (wrong(query_pids=np.array([2.5, 2, 3, 3])), "identities and cameras must be whole numbers"),
        (wrong(query_camids=None), "but the dataset says"),
        (wrong(query=features(QUERY)[:, :3]), "3 dimensions and gallery features 5"),
        (wrong(query=np.full((4, 5), np.nan)), "NaN"),
        (wrong(query=np.zeros((4, 5))), "zero norm"),
        (wrong(query=np.ones((4, 5, 2))), "4x5x2 float64"),
        (wrong(query=None, feats=np.ones((4, 5))), "feats (4x5 float64)"),
        (wrong(query_f=np.ones((4, 5))), "both query and query_f"),
        (wrong(query_paths=["a.jpg"] * 4), "4 of 4 query images match no row by path"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], says: str):
    path = write(arrays, tmp_path / "f.npz")
    with pytest.raises(WeightsError) as caught:
        arrange(path, QUERY, GALLERY)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_files_of_other_kinds_are_named_with_what_is_expected(tmp_path: Path):
    np.save(tmp_path / "f.npy", features(QUERY))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pth")
    (tmp_path / "page.npz").write_text("<html>")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "objects.npz", query=np.array([[Path("x")]], dtype=object), gallery=features(GALLERY))
    for name, says in (
        ("f.npy", "folder with query.npy and gallery.npy"),
        ("net.pth", "torch.nn.modules.linear.Linear"),
        ("page.npz", "an HTML page"),
        ("empty", "Found: no arrays"),
        ("objects.npz", "stores query as Python objects, which are not read"),
        ("absent.npz", "No such file"),
    ):
        with pytest.raises(WeightsError) as caught:
            feature_files.read(tmp_path / name)
        assert says in str(caught.value) and "Traceback" not in str(caught.value)


def test_tables_in_tables_and_half_precision_are_read(tmp_path: Path):
    sides = {"query": QUERY, "gallery": GALLERY}
    table = {
        side: {"features": torch.from_numpy(features(items)).bfloat16(), "pids": [i.pid for i in items]}
        for side, items in sides.items()
    }
    torch.save(table, tmp_path / "f.pth")
    query, _ = feature_files.read(tmp_path / "f.pth")
    assert query.features.dtype == np.float32 and query.pids is not None and query.pids.tolist() == [2, 2, 3, 3]


def test_paths_that_are_python_objects_are_not_ignored(tmp_path: Path):
    """Without them, rows would be used in the order of the file, which may be any order."""
    paths = np.array([str(item.path) for item in GALLERY], dtype=object)
    np.savez(tmp_path / "f.npz", query=features(QUERY), gallery=features(GALLERY), gallery_paths=paths)
    with pytest.raises(WeightsError, match=r"gallery_paths as Python objects.*dtype=str"):
        arrange(tmp_path / "f.npz", QUERY, GALLERY)


def test_a_torch_file_may_hold_identities_as_numpy_arrays(tmp_path: Path):
    arrays = {"qf": torch.from_numpy(features(QUERY)), "gf": torch.from_numpy(features(GALLERY))}
    for side, items in (("q", QUERY), ("g", GALLERY)):
        arrays[f"{side}_pids"] = np.array([item.pid for item in items])
        arrays[f"{side}_camids"] = np.array([item.camid for item in items])
    torch.save(arrays, tmp_path / "f.pth")
    found = arrange(tmp_path / "f.pth", QUERY, GALLERY)
    assert found.order == LABELS and np.array_equal(found.query, features(QUERY))
