"""Untrusted input: files with code, names that are commands, plug-ins that no command names, and secrets."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.errors import HarnessError
from harness.records import store
from harness.registry import lookup
from harness.system.paths import REPOSITORY
from tests.support import small_datasets as small

Cli = Callable[..., tuple[int, str, str]]


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "went-off")


def saved(bomb: Bomb, path: Path) -> Path:
    """A bomb in the form that goes with the file's name."""
    import torch

    if path.name.endswith(".npy"):
        np.save(path, np.array([bomb], dtype=object), allow_pickle=True)
    elif path.name.endswith(".npz"):
        np.savez(path, query=np.array([[bomb]], dtype=object), gallery=np.array([[bomb]], dtype=object))
    elif path.name.endswith((".pickle.pth", ".safetensors", ".mat")):
        path.write_bytes(pickle.dumps({"state_dict": bomb}))
    elif path.name.endswith(".old.pth"):
        torch.save({"run_id": "x", "module": bomb}, path, _use_new_zipfile_serialization=False)
    elif path.name.endswith(".script.pt"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", pickle.dumps(bomb))
            archive.writestr("net/constants.pkl", b"")
    else:
        torch.save({"run_id": "x", "module": bomb, "state_dict": {"a": torch.ones(1)}}, path)
    return path


def test_a_bomb_goes_off_where_pickles_are_trusted(bomb: Bomb, tmp_path: Path) -> None:
    """Shows that the tests below can fail."""
    import torch

    for name in ("net.pth", "net.old.pth"):
        torch.load(saved(bomb, tmp_path / name), weights_only=False)
        assert bomb.marker.exists()
        bomb.marker.unlink()
    np.load(saved(bomb, tmp_path / "a.npz"), allow_pickle=True)["query"]
    assert bomb.marker.exists()


@pytest.mark.parametrize(
    "name",
    ["net.pth", "net.old.pth", "net.pickle.pth", "net.script.pt", "net.safetensors", "net.npz", "net.npy", "net.mat"],
)
def test_code_in_published_weights_does_not_run(bomb: Bomb, tmp_path: Path, name: str) -> None:
    from harness import weights
    from harness.data import feature_files

    path = saved(bomb, tmp_path / name)
    for read in (weights.load_state, feature_files.read):
        with pytest.raises(HarnessError) as error:
            read(path)
        assert path.name in str(error.value) and not bomb.marker.exists()


@pytest.mark.parametrize("backbone", ["bot", "transreid", "reidmamba"])
def test_code_in_starting_weights_does_not_run(bomb: Bomb, tmp_path: Path, backbone: str) -> None:
    path = saved(bomb, tmp_path / "start.pth")
    small_build = {"transreid": {"width": "tiny"}, "reidmamba": {"width": "tiny"}}.get(backbone, {})
    options = {k: v for k, v in small_build.items() if k in registry.backbone(backbone).card.options}
    with pytest.raises(HarnessError, match=r"trust-pickle|more than tensors"):
        registry.backbone(backbone).build(num_classes=2, num_cameras=1, image_size=(64, 32), pretrained=path, **options)
    assert not bomb.marker.exists()


def test_code_in_a_checkpoint_of_a_run_does_not_run(bomb: Bomb, tmp_path: Path) -> None:
    from harness.training import checkpoint

    said: list[str] = []
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        saved(bomb, tmp_path / name)
    assert checkpoint.load(tmp_path, "x", said.append) is None
    assert len(said) == 2 and not bomb.marker.exists()


def test_code_in_the_cache_of_images_does_not_run(bomb: Bomb, tmp_path: Path) -> None:
    from harness.data.cache import open_images

    images = [small.picture(tmp_path / "a.png", 7)]
    good = np.asarray(open_images(images, (16, 8), "bicubic", folder=tmp_path / "cache")).copy()
    (cache,) = (tmp_path / "cache").glob("*.npy")
    saved(bomb, cache)
    assert np.array_equal(np.asarray(open_images(images, (16, 8), "bicubic", folder=tmp_path / "cache")), good)
    assert not bomb.marker.exists()


def test_code_in_dataset_files_does_not_run(bomb: Bomb, tmp_path: Path) -> None:
    from datasets.preparation import builders
    from datasets.readers import cuhk03

    path = saved(bomb, tmp_path / "cuhk-03.mat")
    for read in (
        lambda: cuhk03.protocol(path),
        lambda: builders.extract_cuhk03(path, tmp_path / "out", "detected"),
        lambda: builders.extract_testsets(path, tmp_path / "sets.json"),
    ):
        with pytest.raises(HarnessError):
            read()
    assert not bomb.marker.exists()


@pytest.mark.parametrize("kind", ["checkpoint", "features"])
def test_evaluate_refuses_code_in_one_sentence(cli: Cli, world: Path, bomb: Bomb, tmp_path: Path, kind: str) -> None:
    stored = saved(bomb, tmp_path / {"checkpoint": "net.pth", "features": "features.npz"}[kind])
    words = ["--backbone", "bot", "--dataset", "market1501", "--device", "cpu", "--results", tmp_path / "results"]
    code, _, err = cli("evaluate", *words, f"--{kind}", stored, "--data-root", world)
    assert code == 2 and not (tmp_path / "results").exists() and "Traceback" not in err and err.count("Error:") == 1
    assert ("--trust-pickle" if kind == "checkpoint" else "features.npz") in err
    assert not bomb.marker.exists()


def test_no_source_file_names_a_reader_that_runs_code() -> None:
    """Nothing is evaluated, no shell is started, no YAML is read. Unpickling is in two places.

    One is behind `trust_pickle`. The other reads TorchScript, and its pickle may only name tensors and modules.
    """
    found = {f"{path.relative_to(REPOSITORY)}: {use}" for path in sources() for use in dangerous(path)}
    assert found == {
        "harness/weights/state_dicts.py: import pickle",
        "harness/weights/state_dicts.py: torch.load(weights_only=False)",
        "harness/weights/torchscript.py: import pickle",
    }


def sources() -> list[Path]:
    return [path for top in ("harness", "datasets", "backbones") for path in (REPOSITORY / top).rglob("*.py")]


def dangerous(path: Path) -> list[str]:
    """Calls and imports that can run code out of data."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
            found += [f"import {name}" for name in names if name.split(".")[0] in bad]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            passed = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (
                name in ("eval", "exec", "os.system", "os.popen", "__import__")
                or passed.get("shell", "False") != "False"
            ):
                found.append(f"{name}()")
            if name == "torch.load" and passed.get("weights_only") != "True":
                found.append(f"torch.load(weights_only={passed.get('weights_only')})")
            if name in ("np.load", "numpy.load") and passed.get("allow_pickle") != "False":
                found.append(f"np.load(allow_pickle={passed.get('allow_pickle')})")
    return sorted(set(found))


# Plug-ins

CARD = """
kind = "backbone"
name = "uninvited"
title = "<script>alert(1)</script> [x](javascript:y) | `z`"
feature_dim = 4
[[requires]]
module = "uninvited_package.inner"
distribution = "uninvited"
optional = true
[input]
image_size = [64, 32]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""
DATA_CARD = """
kind = "dataset"
name = "uninvited-data"
title = "Data of a stranger"
[[layouts]]
name = "own"
reader = "read.py:read"
folders = ["Market-1501-v15.09.15"]
"""


@pytest.fixture
def uninvited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder of plug-ins, and a distribution with entry points, whose code leaves a marker; and the marker."""
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'a').close()\n"
    for name, card, file in (("uninvited", CARD, "model.py"), ("uninvited_data", DATA_CARD, "read.py")):
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(card)
        (folder / file).write_text(code)
        (folder / "__init__.py").write_text(code)
    inner = tmp_path / "site" / "uninvited_package" / "invited"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text(code)
    (inner / "__init__.py").write_text(code)
    (inner / "model.py").write_text(code)
    (inner / "card.toml").write_text(CARD.replace('"uninvited"', '"invited"', 1))
    info = tmp_path / "site" / "uninvited_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: uninvited-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.backbones]\ninvited = uninvited_package.invited\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    lookup._scan.cache_clear()
    yield tmp_path / "plugins", marker
    lookup._scan.cache_clear()


@pytest.mark.usefixtures("quick_runs")
def test_plugins_run_only_when_they_are_named(
    cli: Cli, world: Path, tmp_path: Path, uninvited: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins, marker = uninvited
    monkeypatch.chdir(tmp_path)
    place = ["--data-root", world, "--plugins", plugins]
    small.market(tmp_path / "data" / "Market-1501-v15.09.15")
    of_a_stranger = ["--data-root", tmp_path / "data", "--plugins", plugins]
    small_run = ["--datasets", "market1501", "--recipe", "smoke", "--from-scratch", "--device", "cpu", *place]
    code, out, _ = cli("list", "backbones", "--plugins", plugins)
    assert code == 0 and {"uninvited", "invited"} <= set(out.split()) and not marker.exists()
    for words in (
        ["list", "datasets", *of_a_stranger],
        ["plan", "--backbones", "bot", *small_run],
        ["run", "--backbones", "dummy", *small_run, "--scheduler", "inline", "--no-mlflow"],
        ["validate", "market1501", "--no-images", *place],
        ["report"],
        ["status"],
    ):
        code, out, err = cli(*words)
        assert code == 0, out + err
        assert not marker.exists(), words
    for name in ("uninvited", "invited", "uninvited-data"):
        marker.unlink(missing_ok=True)
        cli("validate", name, *of_a_stranger)
        assert marker.exists(), f"the code of {name} runs when it is named"


# Names

NAME = "0001_c1s1_000005_01$(touch ran);`touch ran`<script>alert(1)<|[x](javascript:y)*_$x$\x1b[2J\x07.jpg"


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """A dataset with images whose names are commands, tags, links, terminal codes and no Unicode."""
    folder = small.market(tmp_path / "data" / "Market-1501-v15.09.15")
    small.picture(folder / "query" / NAME, 77)
    (folder / "query" / NAME.replace("_01$", "_02$")).write_bytes(b"not an image")
    (folder / "query" / NAME.replace("_01$", "_03$")).mkdir()
    small.picture(
        Path(os.fsdecode(os.path.join(os.fsencode(folder / "bounding_box_test"), b"0001_c3s1_01_\xff\xfe.jpg")))
    )
    return tmp_path / "data"


@pytest.mark.slow
def test_names_of_images_are_text_wherever_they_are_shown(
    cli: Cli, odd_names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="comes with rich; renders Markdown for this test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_PICTURES", "1")
    code, shown, _ = cli("validate", "market1501", "--data-root", odd_names)
    assert code == 1 and "cannot be read" in shown and "$(touch ran)" in shown
    assert shown.isprintable() or not {"\x1b", "\x07"} & set(shown), "no terminal codes"
    damaged = odd_names / "Market-1501-v15.09.15" / "query" / NAME.replace("_01$", "_02$")
    small.picture(damaged, 78)
    words = ["--backbones", "dummy", "--datasets", "market1501", "--recipe", "smoke", "--device", "cpu"]
    words += ["--from-scratch", "--scheduler", "inline", "--no-mlflow", "--allow-count-mismatch"]
    code, out, err = cli("run", *words, "--data-root", odd_names)
    assert code == 0, out + err
    (record,) = store.records(tmp_path / "results")
    assert len(record["pictures"]) == 2 and "touch ran" in str(record["data"])  # type: ignore[typeddict-item]
    page = (tmp_path / "results" / "BENCHMARKS.md").read_text()
    assert "touch ran" in page, "the page tells of it"
    html = markdown_it.MarkdownIt("commonmark").enable("table").render(page)
    assert "<script" not in html and "javascript:" not in attributes(html)
    assert not list(tmp_path.rglob("ran")) and not (REPOSITORY / "ran").exists()


def attributes(html: str) -> str:
    """Everything inside of tags."""
    return " ".join(part.split(">")[0] for part in html.split("<")[1:])


# Secrets

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cret-of-aws",
    "MLFLOW_TRACKING_PASSWORD": "s3cret-of-mlflow",
    "HF_TOKEN": "s3cret-of-the-hub",
    "SOME_SERVICE": "https://user:s3cret-in-a-url@127.0.0.1:9/x?token=s3cret-in-a-query",
}
TELLTALE = """
    if fault == "tell":
        told = ' '.join(os.environ[name] for name in ('AWS_SECRET_ACCESS_KEY', 'HF_TOKEN', 'SOME_SERVICE'))
        raise OSError('cannot reach ' + told)
"""


@pytest.mark.usefixtures("quick_runs")
def test_no_secret_of_the_environment_is_kept(world: Path, pixels: Path, tmp_path: Path) -> None:
    """Neither by a run that goes well, tracked in sqlite, nor by one whose error names them."""
    plugin = tmp_path / "plugins" / "pixels"
    plugin.mkdir(parents=True)
    (plugin / "card.toml").write_text((pixels / "pixels" / "card.toml").read_text())
    model = (pixels / "pixels" / "model.py").read_text()
    (plugin / "model.py").write_text(model.replace('    if fault == "build":', TELLTALE + '    if fault == "build":'))
    told = b""
    for fault, tracked in (("", f"sqlite:///{tmp_path}/mlflow.db"), ("tell", SECRETS["SOME_SERVICE"])):
        words = ["run", "--backbones", "pixels", "--datasets", "market1501", "--recipe", "smoke", "--device", "cpu"]
        words += ["--from-scratch", "--data-root", world, "--plugins", plugin.parent, "--scheduler", "inline"]
        words += ["--results", tmp_path / "results", "--report", tmp_path / "BENCHMARKS.md", "--mlflow-uri", tracked]
        words += ["--option", f"pixels.fault={fault}", "--cache", tmp_path / "cache"]
        done = subprocess.run(
            [sys.executable, "-m", "harness", *map(str, words)],
            cwd=REPOSITORY, env={**os.environ, **SECRETS}, capture_output=True, timeout=240,
        )  # fmt: skip
        told += done.stdout + done.stderr
        assert done.returncode == (1 if fault else 0), told
    statuses = sorted(record["status"] for record in store.records(tmp_path / "results"))
    assert statuses == ["failed", "ok"], told
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(kept) > 15 and b"cannot reach" in b"".join(kept.values())
    assert [str(path) for path, content in kept.items() if b"s3cret" in content] == []
    assert b"s3cret" not in told


# Servers


def listening(root: int) -> list[str]:
    """Addresses on which a process and those below it accept connections, as `/proc/net` writes them."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppressed():
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    family, size = {root}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    sockets = set()
    for pid in family:
        with suppressed():
            sockets |= {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]


def suppressed() -> Any:
    import contextlib

    return contextlib.suppress(OSError)


LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")


@pytest.mark.usefixtures("quick_runs")
def test_a_ray_of_our_own_listens_on_loopback_alone(world: Path, pixels: Path, tmp_path: Path) -> None:
    words = ["run", "--backbones", "pixels", "--datasets", "market1501", "--recipe", "smoke", "--device", "cpu"]
    words += ["--from-scratch", "--data-root", world, "--plugins", pixels, "--scheduler", "ray", "--no-mlflow"]
    words += ["--results", tmp_path / "results", "--report", tmp_path / "B.md", "--option", "pixels.fault=hang"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, words)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.rglob("job.json")):  # a run has started, so all of Ray is running
            assert driver.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        found = listening(driver.pid)
    finally:
        driver.terminate()
        time.sleep(1)
        driver.terminate()
        driver.wait(60)
    assert len(found) >= 4, "the head, the node and the workers listen"
    assert [address for address in found if not address.startswith(LOOPBACK)] == []


def test_an_archive_with_a_pickle_in_it_is_only_unpacked(bomb: Bomb, tmp_path: Path) -> None:
    from datasets.preparation.unpack import unpack

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(bomb))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "data.pkl").exists() and not bomb.marker.exists()
