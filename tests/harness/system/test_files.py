"""What killed writers leave of files that are written whole."""

from __future__ import annotations

import os
import subprocess
import sys

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
