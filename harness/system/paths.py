"""Paths of this machine: expansion of `~`, environment variables, and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UsageError

DATASETS, WEIGHTS, PLUGINS, CACHE = "REID_DATASETS", "REID_WEIGHTS", "HARNESS_PLUGINS", "HARNESS_CACHE"
"""Environment variables for --data-root, --weights-root, --plugins and --cache."""

NAME = "reid-harness"

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout, which contains the packages `harness`, `backbones` and `datasets`."""


def expand(path: str | os.PathLike[str], where: str = "The path") -> str:
    """Replaces a leading `~` or `~user` by the home folder; other paths and empty paths are returned unchanged.

    Args:
        path: path given by the user.
        where: the option or variable that it comes from, for the message.

    Raises:
        UsageError: the home folder is unknown on this machine.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        home = text.split(os.sep, 1)[0]
        raise UsageError(
            f"{where} is {text}, but the home folder '{home}' is unknown on this machine. Pass the full path, or "
            f"./{text} for a folder of this name."
        ) from None


def expand_uri(uri: str) -> str:
    """Expands `~` in the URI of a local tracking store, for example `sqlite:///~/runs.db`."""
    scheme = next((start for start in ("sqlite:///", "file://") if uri.startswith(start)), "")
    return scheme + expand(uri.removeprefix(scheme), "The tracking server")


def variable(name: str) -> str:
    """Returns the expanded path in an environment variable; an empty string if it is not set."""
    return expand(os.environ.get(name, ""), f"${name}")


def cache_folder() -> Path:
    """Returns the folder of all caches, which may not exist yet. Its content can be deleted at any time.

    It is the first of these that applies:

    - `$HARNESS_CACHE`
    - `$XDG_CACHE_HOME/reid-harness`
    - `~/.cache/reid-harness`, if it is writable
    - a private folder in the system's temporary folder
    """
    if chosen := variable(CACHE):
        return Path(chosen).absolute()
    if base := variable("XDG_CACHE_HOME"):
        return Path(base).absolute() / NAME
    try:
        home = Path.home() / ".cache"
    except RuntimeError:  # neither $HOME nor a user entry, as in some containers
        return _temporary()
    return home / NAME if home.is_absolute() and _writable(home) else _temporary()


def short(path: Path) -> str:
    """Returns a path relative to the working directory if it is below it; otherwise unchanged."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def settle() -> None:
    """Sets environment variables that libraries need: a home folder, a user name and a cache folder for Numba.

    A container may run under a user id without name and home folder. The home folder is then the cache folder.
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
    """Returns whether a folder is writable or can be created."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return os.access(there, os.W_OK | os.X_OK)


def _temporary() -> Path:
    """Returns a private folder of this user in the temporary folder; a new one if the usual one is not private."""
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
