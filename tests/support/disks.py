"""Small real disks for the processes of a test: tmpfs in a mount namespace that ends with the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.system.paths import REPOSITORY


class Disks:
    """A mount namespace, kept alive by a waiting process.

    Skips the test if neither root nor a user namespace may mount.
    """

    def __init__(self) -> None:
        for flags in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            self._holder = subprocess.Popen(
                ["unshare", *flags, "sh", "-c", "mount -t tmpfs none /mnt && umount /mnt && echo ready && exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._holder.stdout
            self._inside = ["--user", "--preserve-credentials", "--mount"] if "--user" in flags else ["--mount"]
            if self._holder.stdout.readline() == "ready\n":
                return
            self.close()
        pytest.skip("needs the right to mount a disk, as root has it: sudo python -m pytest tests/reliability")

    def inside(self, *words: str | Path) -> list[str]:
        """Returns the command that runs inside the namespace, with these disks."""
        enter = ["nsenter", "--target", str(self._holder.pid), *self._inside, "env", "--chdir", str(REPOSITORY)]
        return [*enter, *map(str, words)]

    def mount(self, place: Path, megabytes: int) -> None:
        """Mounts a small disk at a folder and keeps the existing files."""
        place.mkdir(parents=True, exist_ok=True)
        script = (
            'cp -a "$0" "$0.copy" && mount -t tmpfs -o size=$1m none "$0" && cp -a "$0.copy/." "$0" && rm -r "$0.copy"'
        )
        subprocess.run(self.inside("sh", "-c", script, place, str(megabytes)), check=True)

    def read_only(self, place: Path) -> None:
        script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
        subprocess.run(self.inside("sh", "-c", script, place), check=True)

    def look(self, path: Path) -> Path:
        """Returns the path from outside of a path inside the namespace."""
        return Path(f"/proc/{self._holder.pid}/root") / path.relative_to("/")

    def close(self) -> None:
        self._holder.communicate()
