"""Where this machine keeps things: the one place that expands paths of users, and the one rule for caches."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UsageError

DATASETS, WEIGHTS, PLUGINS, CACHE = "REID_DATASETS", "REID_WEIGHTS", "HARNESS_PLUGINS", "HARNESS_CACHE"
"""Environment variables that stand for --data-root, --weights-root, --plugins and --cache."""

NAME = "reid-harness"

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout: the packages `harness`, `backbones` and `datasets` lie side by side in it."""


def expand(path: str | os.PathLike[str], where: str = "The path") -> str:
    """Replaces a leading `~` or `~user` by that home folder; nothing else is changed, and empty stays empty.

    Args:
        path: as the user wrote it.
        where: the option or variable it came from, for the error.

    Raises:
        UsageError: that home folder is unknown here.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        home = text.split(os.sep, 1)[0]
        raise UsageError(
            f"{where} is {text}, but the home folder '{home}' is unknown here; give the whole path, or ./{text} "
            "for a folder of this name."
        ) from None


def expand_uri(uri: str) -> str:
    """Expands `~` in the address of a tracking server that is a local file: `sqlite:///~/runs.db`."""
    scheme = next((start for start in ("sqlite:///", "file://") if uri.startswith(start)), "")
    return scheme + expand(uri.removeprefix(scheme), "The tracking server")


def variable(name: str) -> str:
    """The path in an environment variable, expanded; empty where it is not set."""
    return expand(os.environ.get(name, ""), f"${name}")


def cache_folder() -> Path:
    """The folder of all caches, which may be absent; everything in it can be made again.

    `$HARNESS_CACHE`, else `reid-harness` in `$XDG_CACHE_HOME`, else in `~/.cache`, else, without a home folder that can
    be written, a folder of this user alone in the folder for temporary files.
    """
    if chosen := variable(CACHE):
        return Path(chosen).absolute()
    if base := variable("XDG_CACHE_HOME"):
        return Path(base).absolute() / NAME
    try:
        home = Path.home() / ".cache"
    except RuntimeError:  # neither $HOME nor an entry in the table of users, as in containers
        return _temporary()
    return home / NAME if home.is_absolute() and _writable(home) else _temporary()


def short(path: Path) -> str:
    """A path as the user would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def settle() -> None:
    """Gives this process and its children what libraries ask for: a home folder, a user's name, a cache for Numba.

    A container may run under a number that has neither; then the home folder is the one of the caches.
    """
    import getpass

    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(cache_folder())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return os.access(there, os.W_OK | os.X_OK)


def _temporary() -> Path:
    """A folder of this user in the folder for temporary files; another one if somebody else made it first."""
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and folder.is_dir() and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
