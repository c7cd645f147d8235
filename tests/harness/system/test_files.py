"""Atomic file writes, leftovers of killed processes, and locks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.system import files
from harness.system.paths import REPOSITORY


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path, monkeypatch):
    code = "import os, sys; from pathlib import Path; from harness.system import files\n"
    code += "os.replace = lambda *_: os._exit(9)\nfiles.replace(Path(sys.argv[1]) / 'plan.json', 'x')"
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    (left,) = tmp_path.iterdir()
    assert dead.returncode == 9 and left.name.startswith(".plan.json.")
    alive = tmp_path / f".plan.json.{files._host()}~{os.getpid()}.abc.tmp"
    elsewhere = tmp_path / f".plan.json.another-{files._host()}~1.abc.tmp"
    strange = tmp_path / ".somebody.tmp"
    for path in (alive, elsewhere, strange):
        path.write_text("x")
    files.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, elsewhere, strange}
    os.utime(elsewhere, (0, 0))
    files.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, strange}


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        files.replace(tmp_path / "shared", "x")
        os.umask(0o077)
        files.write_json(tmp_path / "own", {})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "own")] == [0o664, 0o600]


def test_a_failed_writer_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ValueError), files.replacing(path, keep=tmp_path / "kept") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_the_former_file_can_be_kept(tmp_path):
    path, kept = tmp_path / "file", tmp_path / "kept"
    for content in ("one", "two", "three"):
        with files.replacing(path, keep=kept) as temporary:
            temporary.write_text(content)
    assert (path.read_text(), kept.read_text()) == ("three", "two")
    assert set(tmp_path.iterdir()) == {path, kept}


@pytest.mark.parametrize("name", [".lock", ""])
def test_a_lock_excludes_until_its_process_dies(tmp_path, name):
    path = tmp_path / name
    code = "import sys, time; from pathlib import Path; from harness.system import files\n"
    code += "with files.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for shared in (False, True):
            with pytest.raises(BlockingIOError), files.locked(path, wait=False, shared=shared):
                pass
        with files.locked(path, on_wait=holder.kill):
            pass
    assert holder.returncode == -9
    with files.locked(path, shared=True), files.locked(path, wait=False, shared=True, make=False):
        pass


def test_a_lock_file_is_made_only_when_asked(tmp_path):
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / ".lock", make=False):
        pass
    assert not list(tmp_path.iterdir())


def test_locks_and_renames_have_one_place():
    """Other locks or renames would not handle `sweep` and network file systems."""
    users = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("harness", "datasets")
        for path in (REPOSITORY / package).rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("import fcntl", "os.replace(", "os.rename("))
    }
    assert users == {"harness/system/files.py"}
