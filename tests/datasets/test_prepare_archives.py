"""Damaged and malicious archives are refused."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.preparation.unpack import Limits, is_archive, unpack
from harness.errors import DataError


def make_zip(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            info, content = (
                (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
            )
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(path: Path) -> Path:
    info = zipfile.ZipInfo("a/link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def cut(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(bytes(content))
    return path


def encrypted(path: Path) -> Path:
    content = bytearray(make_zip(path, ("a.jpg", b"x")).read_bytes())
    content[6] |= 1  # the local header's flag, and the central directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    return path


NOISE = os.urandom(3000)
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip: upwards": (lambda p: make_zip(p, ("a/b.jpg", b"x"), ("a/../../b.jpg", b"x")), "outside its folder"),
    "zip: absolute": (lambda p: make_zip(p, ("/tmp/b.jpg", b"x")), "outside its folder"),
    "zip: drive": (lambda p: make_zip(p, ("C:/b.jpg", b"x")), "outside its folder"),
    "zip: backslashes": (lambda p: make_zip(p, ("a\\..\\b.jpg", b"x")), "outside its folder"),
    "zip: absolute, backslashes": (lambda p: make_zip(p, ("\\tmp\\b.jpg", b"x")), "outside its folder"),
    "zip: drive, backslashes": (lambda p: make_zip(p, ("C:\\b.jpg", b"x")), "outside its folder"),
    "zip: same name, backslashes": (lambda p: make_zip(p, ("a/b.jpg", b"x"), ("a\\b.jpg", b"y")), "occurs twice"),
    "zip: no name": (lambda p: make_zip(p, ("./.", b"x")), "is not a valid file name"),
    "zip: link": (zip_link, "'a/link.jpg' is a link or a device"),
    "zip: bomb": (lambda p: make_zip(p, ("a.jpg", bytes(2_000_000))), "would unpack to 2,000,000 bytes"),
    "zip: name twice": (lambda p: make_zip(p, ("a.jpg", b"x"), ("a.jpg", b"y")), "'a.jpg' occurs twice"),
    "zip: same name in other words": (lambda p: make_zip(p, ("a.jpg", b"x"), ("./a.jpg", b"y")), "occurs twice"),
    "zip: file is also a folder": (lambda p: make_zip(p, ("a", b"x"), ("a/b.jpg", b"y")), "cannot be unpacked"),
    "zip: too many files": (lambda p: make_zip(p, *((f"{i}.jpg", b"") for i in range(11))), "more than 10 files"),
    "zip: cut off": (lambda p: cut(make_zip(p, ("a.jpg", NOISE)), 0.7), "not a zip or tar archive, or it is truncated"),
    "zip: damaged": (lambda p: flipped(make_zip(p, ("a.jpg", NOISE))), "cannot be unpacked: (Bad CRC|Error|.*)"),
    "zip: encrypted": (encrypted, "cannot be unpacked: .*password"),
    "zip: name too long": (lambda p: make_zip(p, ("x" * 300 + ".jpg", b"x")), "cannot be unpacked: .*name too long"),
    "tar: upwards": (lambda p: make_tar(p, ("../b.jpg", b"x")), "outside its folder"),
    "tar: absolute": (lambda p: make_tar(p, ("/tmp/b.jpg", b"x")), "outside its folder"),
    "tar: symbolic link": (lambda p: make_tar(p, special("a", tarfile.SYMTYPE, "/etc")), "'a' is a link or a device"),
    "tar: hard link": (lambda p: make_tar(p, special("a", tarfile.LNKTYPE, "/etc/passwd")), "is a link or a device"),
    "tar: device": (lambda p: make_tar(p, special("a", tarfile.CHRTYPE)), "is a link or a device"),
    "tar: pipe": (lambda p: make_tar(p, special("a", tarfile.FIFOTYPE)), "is a link or a device"),
    "tar: cut off": (lambda p: cut(make_tar(p, ("a.jpg", NOISE * 5)), 0.3), "cannot be unpacked|is truncated"),
    "tar: too large": (lambda p: make_tar(p, ("a.jpg", NOISE * 1000)), "unpack to more than"),
    "not an archive": (lambda p: [p.write_text("hello"), p][1], "not a zip or tar archive"),  # type: ignore[return-value]
    "empty file": (lambda p: [p.touch(), p][1], "not a zip or tar archive"),  # type: ignore[return-value]
    "absent": (lambda p: p, "not a zip or tar archive"),
}
LIMITS = Limits(bytes=2_500_000, files=10, ratio=10, ratio_from=1_000_000)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_archive_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    make, message = REFUSED[kind]
    archive = make(tmp_path / "archive")
    room = tmp_path / "room"
    with pytest.raises(DataError, match=message):
        unpack(archive, room / "target", limits=LIMITS)
    assert not room.exists() or not list(room.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "room") in ([], ["archive"])


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "archive", ("a.jpg", NOISE))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"needs 3,000 bytes, .* has only 10 bytes free"):
        unpack(archive, tmp_path / "target")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_good_archive_comes_out_as_it_went_in(make: Callable[..., Path], tmp_path: Path) -> None:
    archive = make(
        tmp_path / "archive", ("a/b/c.jpg", NOISE), ("./d.jpg", b""), ("a/.DS_Store", b"x"), ("__MACOSX/._d.jpg", b"x")
    )
    assert is_archive(archive)
    unpack(archive, tmp_path / "deep" / "target")
    found = {p.relative_to(tmp_path / "deep" / "target").as_posix(): p.read_bytes()
             for p in (tmp_path / "deep").rglob("*") if p.is_file()}  # fmt: skip
    assert found == {"a/b/c.jpg": NOISE, "d.jpg": b""}
    (tmp_path / "deep" / "target" / "d.jpg").write_bytes(b"mine")
    unpack(archive, tmp_path / "deep" / "target")
    assert (tmp_path / "deep" / "target" / "d.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_backslashes_are_folders(make: Callable[..., Path], tmp_path: Path) -> None:
    members = [("a\\b\\c.jpg", NOISE), (".\\12:30.jpg", b"x"), *([("a\\empty\\", b"")] if make is make_zip else [])]
    unpack(make(tmp_path / "archive", *members), tmp_path / "target")
    assert (tmp_path / "target" / "a" / "b" / "c.jpg").read_bytes() == NOISE
    assert (tmp_path / "target" / "12:30.jpg").exists()


def test_permissions_are_not_taken_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.mode = 0o6777
    unpack(make_tar(tmp_path / "archive", info), tmp_path / "target")
    assert not (tmp_path / "target" / "a.jpg").stat().st_mode & 0o7111
