"""Detects the kind of a file by its content, not its name, without running code in it or importing torch."""

from __future__ import annotations

import functools
import io
import pickletools
import re
import string
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TORCH, SAFETENSORS, NPZ, NPY, MAT, UNKNOWN = "torch", "safetensors", "npz", "npy", "mat", "unknown"
TORCHSCRIPT = "torchscript"
"""Forms that the harness can read or does not recognise; all other files have the form `other`."""

HEAD = 1 << 16
"""Number of bytes to read from the start of a file; of archives and checkpoints also tables and pickles are read."""
LONGEST_PICKLE = 1 << 26
TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle in files of `torch.save` before torch 1.6: a magic number."""

STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself; run 'git lfs pull'"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and MATLAB 7.3 write it (in MATLAB, save with -v7)"),
    (b"GGUF", "a GGUF model"),
    (b"\x08\x01\x12", "a TensorFlow SavedModel"),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", "an MXNet parameter file"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
)
ONNX = re.compile(rb"\x08[\x02-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")
TENSORFLOW_GRAPH = re.compile(rb"\n.[\x01-\x7f]?\n[\x01-\x7f][\w./-]+\x12[\x01-\x7f][A-Z]\w+", re.DOTALL)
TENSORFLOW_INDEX = b"W\xfb\x80\x8b$uG\xdb"
TENSORFLOW_DATA = re.compile(r"\.data-\d{5}-of-\d{5}$")
HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype|html|head|body)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """The kind of a file.

    Attributes:
        form: name of the reader; `other` if the harness cannot read it, `unknown` if it is not recognised.
        words: description that follows "is" in a sentence, for example "an ONNX model".
        runs: for a pickle, the names (`module.name`) that reading it would import, besides tensors and plain values.
    """

    form: str
    words: str
    runs: tuple[str, ...] = ()


def kind_of(path: Path) -> Kind:
    """Returns the kind of a file. It is cached until the size or the modification time changes.

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    return _kind_of(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _kind_of(path: Path, size: int, _: int) -> Kind:
    if size == 0:
        return Kind("other", "an empty file; download it again")
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
            return _zip(file)
        if _is_safetensors(head, size):  # first, because its leading length may look like another signature
            return Kind(SAFETENSORS, "a safetensors file")
        for start, words in STARTS:
            if head.startswith(start):
                return Kind("other", words)
        if head.startswith(b"\x93NUMPY"):
            return Kind(NPY, "a single numpy array (.npy)")
        if head.startswith(b"MATLAB 5.0 MAT-file"):
            return Kind(MAT, "a MAT-file of MATLAB 5 to 7.2")
        if TORCH_MAGIC in head[:32]:
            return Kind(TORCH, "a checkpoint of torch.save", _strange(_names_of_old_torch(file)))
        return _pickle(file, head) or _other(path, file, head, size)


def _zip(file: IO[bytes]) -> Kind:
    """Returns the kind of a zip archive from the names of its files."""
    try:
        archive = zipfile.ZipFile(file)
        names = archive.namelist()
        inner = {name.partition("/")[2] for name in names}
        if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
            return Kind(TORCHSCRIPT, "a TorchScript program")
        if "data.pkl" in inner:
            pickled = archive.open(next(name for name in names if name.endswith("/data.pkl")))
            return Kind(TORCH, "a checkpoint of torch.save", _strange(_names(io.BytesIO(pickled.read(LONGEST_PICKLE)))))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError):
        return Kind(
            "other",
            "a truncated or damaged zip archive, the format of torch.save and numpy; copy it again",
        )
    if names and all(name.endswith(".npy") for name in names):
        return Kind(NPZ, "a file of numpy arrays (.npz)")
    if any("archive_format" in name or name.endswith("models/model.json") for name in names):
        return Kind("other", "a program of torch.export; save the module's state_dict() with torch.save instead")
    if "model.weights.h5" in names:
        return Kind("other", "a Keras model")
    found = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return Kind("other", f"a zip archive of other files ({found or 'nothing'}); unpack it first")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= size - 8


def _pickle(file: IO[bytes], head: bytes) -> Kind | None:
    """Returns the kind of a pickle from another program, if its first pickle can be parsed completely."""
    if not (head[:1] == b"\x80" and 2 <= head[1] <= 5) and head[:1] not in (b"(", b"]", b"}", b"c"):
        return None
    file.seek(0)
    try:
        names = _names(file)
    except ValueError:
        return None
    return Kind("other", "a pickle that torch.save did not write; save its tensors by name with torch.save", names)


def _other(path: Path, file: IO[bytes], head: bytes, size: int) -> Kind:
    """Returns the kind of files without a signature at the start, and of text files."""
    if head[257:262] == b"ustar":
        return Kind("other", "a tar archive; unpack it first")
    if head[4:8] == b"TFL3":
        return Kind("other", "a TensorFlow Lite model")
    if ONNX.match(head):
        return Kind("other", "an ONNX model; save the state_dict() of the module it was exported from with torch.save")
    file.seek(max(0, size - 8))
    if TENSORFLOW_DATA.search(path.name) or file.read() == TENSORFLOW_INDEX:
        return Kind("other", "a part of a TensorFlow checkpoint")
    if TENSORFLOW_GRAPH.match(head):
        return Kind("other", "a TensorFlow graph")
    if head.lstrip().startswith(b"<?xml"):
        return Kind("other", "an XML document, possibly the error message of a file server; download the file again")
    if HTML.match(head):
        return Kind("other", f"an HTML page{_title(head)} instead of the file; download the file itself")
    if text := _text(head):
        return Kind("other", f"a text file that starts with {text!r}")
    return Kind(UNKNOWN, "of an unknown kind")


def _title(head: bytes) -> str:
    found = re.search(rb"<title[^>]*>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
    return f" ('{' '.join(found[1].decode(errors='replace').split())[:60]}')" if found else ""


def _text(head: bytes) -> str:
    """Returns the first line of a text file, shortened; an empty string for other files."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return ""
    return text.strip()[:60].splitlines()[0] if text.strip() and set(text) <= set(string.printable) else ""


def _names(pickled: IO[bytes]) -> tuple[str, ...]:
    """Returns the names (`module.name`) that a pickle would import, without running it.

    Raises:
        ValueError: the file is not a pickle, or is damaged.
    """
    found: dict[str, None] = {}
    texts: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None
    try:
        for code, value, _ in pickletools.genops(pickled):
            if code.name == "GLOBAL":
                found[str(value).replace(" ", ".", 1)] = None
            elif code.name == "STACK_GLOBAL":
                found[".".join(texts[-2:])] = None
            elif code.name == "MEMOIZE":
                memo[len(memo)] = last
            elif code.name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[int(str(value))] = last
            pushed = memo.get(int(str(value))) if code.name in ("BINGET", "LONG_BINGET", "GET") else value
            if code.name not in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
                last = pushed if isinstance(pushed, str) else None
                texts += [last] if last is not None else []
    except Exception as error:  # genops raises many kinds of exceptions for damaged input
        raise ValueError(f"it is not a complete pickle ({error})") from error
    return tuple(found)


def _names_of_old_torch(file: IO[bytes]) -> tuple[str, ...]:
    """Returns the same names for a file of torch before 1.6, whose fourth pickle contains the objects."""
    file.seek(0)
    try:
        for _ in range(3):
            _names(file)
        return _names(file)
    except ValueError:
        return ()


def _strange(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names that a checkpoint of tensors and plain values does not need."""
    plain = ("torch", "collections", "numpy", "builtins", "__builtin__", "_codecs", "argparse")
    return tuple(n for n in names if n.split(".")[0] not in plain or n.startswith("torch.nn.modules."))
