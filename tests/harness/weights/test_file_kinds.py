"""Files are detected by content, not by name; unreadable kinds are named, and code is never run."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness import weights
from harness.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def varint_field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


ONNX = b"\x08\x08" + varint_field(2, b"pytorch") + varint_field(3, b"2.4") + varint_field(7, b"\n\x04node")
SAVED_MODEL = b"\x08\x01" + varint_field(2, b"\n\x02v1")
GRAPH = varint_field(1, varint_field(1, b"input") + varint_field(2, b"Placeholder"))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))


def zipped(**members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (ONNX, "an ONNX model"),
        (b"<!DOCTYPE html><html><head><title>Sign\n in</title>", "an HTML page ('Sign in')"),
        (b"\n <html>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b'{"error": "not found"}', 'a text file that starts with \'{"error"'),
        (gzip.compress(b"x", mtime=0), "a gzip archive"),
        (SAVED_MODEL, "a TensorFlow SavedModel"),
        (GRAPH, "a TensorFlow graph"),
        (b"x" * 40 + b"W\xfb\x80\x8b$uG\xdb", "a part of a TensorFlow checkpoint"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(9), "a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (zipped(**{"readme.txt": "", "net.pth": ""}), "a zip archive of other files (readme.txt, net.pth)"),
        (zipped(**{"net__data.pkl": "", "net__code__net.py": ""}), "cannot be read as a checkpoint (EOFError"),
        (b"PK\x03\x04 cut off", "a truncated or damaged zip archive"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
        (pickle.dumps({"a": 1}, protocol=0), "a pickle that torch.save did not write"),
        (bytes(range(200, 256)), "of an unknown kind"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    for trust in (False, True):
        with pytest.raises(WeightsError) as caught:
            weights.load_state(path, trust_pickle=trust)
        assert says in str(caught.value) and str(path) in str(caught.value)
        assert "--trust-pickle" not in str(caught.value)


def test_numpy_and_tar_files_are_named(tmp_path: Path):
    np.save(tmp_path / "net.npy", np.ones(3))
    (tmp_path / "net.npy").rename(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="a single numpy array"):
        weights.load_state(tmp_path / "net.pth")
    tar(tmp_path / "net.pth.tar")
    with pytest.raises(WeightsError, match="a tar archive"):
        weights.load_state(tmp_path / "net.pth.tar")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_exported_programs_are_named(tmp_path: Path):
    exported = torch.export.export(nn.Sequential(nn.Linear(3, 2)), (torch.ones(1, 3),))
    torch.export.save(exported, tmp_path / "exported.pt2")
    with pytest.raises(WeightsError, match=r"a program of torch\.export"):
        weights.load_state(tmp_path / "exported.pt2", trust_pickle=True)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_tensors_of_torchscript_are_read_without_running_it(tmp_path: Path):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).half().eval()
    torch.jit.trace(net, torch.ones(1, 3).half()).save(tmp_path / "script.pt")
    found = weights.load_state(tmp_path / "script.pt")
    assert found.keys() == net.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())


def test_torchscript_that_names_other_code_is_refused(tmp_path: Path):
    harmful = pickle.dumps(os.system, protocol=0).decode()
    (tmp_path / "script.pt").write_bytes(zipped(**{"net__data.pkl": harmful, "net__constants.pkl": ""}))
    with pytest.raises(WeightsError, match=r"names (posix|nt)\.system"):
        weights.load_state(tmp_path / "script.pt", trust_pickle=True)


def test_numbers_in_torchscript_do_not_reserve_memory(tmp_path: Path):
    put = b"r" + (1 << 22).to_bytes(4, "little")  # keeps the value below under a number, for which C makes a table
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"\x80\x02}" + put + b".")
    tracemalloc.start()
    with pytest.raises(WeightsError, match="a TorchScript program of a dict, not of a module"):
        weights.load_state(tmp_path / "script.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("name", ["net.pth", "net.npz", "net"])
def test_tensors_are_read_whatever_the_name(tmp_path: Path, name: str):
    for write in (
        lambda path: save_file(STATE, path),
        lambda path: torch.save(STATE, path),
        lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(npz()),
    ):
        write(tmp_path / name)
        found = weights.load_state(tmp_path / name)
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)
        (tmp_path / name).unlink()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **{key: value.numpy() for key, value in STATE.items()})
    return file.getvalue()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_a_pickle_would_run_is_named(tmp_path: Path, new: bool, protocol: int):
    net = nn.Sequential(nn.Linear(3, 2))
    torch.save(
        {"net": net, "place": Path("x")},
        tmp_path / "whole.pth",
        _use_new_zipfile_serialization=new,
        pickle_protocol=protocol,
    )
    with pytest.raises(WeightsError, match="--trust-pickle") as caught:
        weights.load_state(tmp_path / "whole.pth")
    assert "is a pickled module" in str(caught.value)
    for name in ("torch.nn.modules.linear.Linear", "pathlib.PosixPath"):
        assert name in str(caught.value)
    assert weights.load_state(tmp_path / "whole.pth", trust_pickle=True).keys() == net.state_dict().keys()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "net", "network", "model_state_dict", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_and_prefixes_of_training_code_are_taken_off(tmp_path: Path, wrapper: str, prefix: str):
    state = {prefix + key: value for key, value in STATE.items()}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {"state": {}}, "state_dict_ema": None}, tmp_path / "net.pth")
    assert weights.load_state(tmp_path / "net.pth").keys() == STATE.keys()


def test_a_compiled_part_keeps_its_own_name():
    assert weights.unwrap({"base._orig_mod.a": torch.ones(1), "b": torch.ones(1)}).keys() == {"base.a", "b"}
