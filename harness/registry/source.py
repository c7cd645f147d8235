"""Finds the source files that define a model, and hashes their code. The hash is part of the run id."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import json
import logging
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.system import files
from harness.system.paths import REPOSITORY, cache_folder

log = logging.getLogger(__name__)

CACHE = "sources-1.json"
"""The number changes with the definition of the hash."""

CACHED_FILES = 4096
"""Number of files after which the cache starts again; old versions of files are never read again."""


class Facts(NamedTuple):
    """What is needed of a Python file: the hash of its code, and the modules of `backbones` that it imports."""

    code: str
    imports: list[str]


def source_files(folder: Path) -> dict[Path, Facts]:
    """Returns the plug-in's Python files, and all files of `backbones` that they import, directly or indirectly.

    Raises:
        UsageError: a file is not valid Python.
    """
    pending = [p for p in sorted(folder.rglob("*.py")) if "__pycache__" not in p.parts]
    found: dict[Path, Facts] = {}
    known = len(_cache())
    while pending:
        if (path := pending.pop(0)) not in found:
            found[path] = _facts(path)
            for name in found[path].imports:
                pending += _files_of(name)
    if len(_cache()) > known:
        _write_cache()
    return dict(sorted(found.items()))


def code_hash(content: bytes) -> str:
    """Returns a hash of Python code; comments, docstrings, blank lines and line breaks in brackets do not change it."""
    digest = hashlib.sha256()
    for token in _tokens(content):
        digest.update(token.encode() + b"\0")
    return digest.hexdigest()


def _tokens(content: bytes) -> Iterator[str]:
    """The tokens of a file; statements that consist of strings only, such as docstrings, are left out."""
    strings: list[str] = []  # of a statement that has had nothing else yet
    begins = True
    for kind, text in _with_whole_strings(content):
        if kind in (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER):
            continue
        if kind == tokenize.STRING and begins and not set("fFtT") & set(text.partition(text[-1])[0]):
            strings.append(text)
            continue
        if kind == tokenize.NEWLINE and strings:
            strings, begins = [], True
            continue
        yield from strings
        strings, begins = [], kind in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        yield tokenize.tok_name[kind] if begins else text


def _with_whole_strings(content: bytes) -> Iterator[tuple[int, str]]:
    """The tokens as type and text. Since Python 3.12 an f-string is several tokens; here it is one, as before."""
    lines = content.decode("utf-8-sig", "replace").split("\n")
    starts = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
    ends = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}
    depth, first = 0, (0, 0)
    for token in tokenize.tokenize(io.BytesIO(content).readline):
        if token.type in starts:
            first = token.start if depth == 0 else first
            depth += 1
        elif token.type in ends:
            depth -= 1
            if depth == 0:
                yield tokenize.STRING, _between(lines, first, token.end)
        elif depth == 0:
            yield token.type, token.string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text between two positions (line from 1, column)."""
    text = lines[start[0] - 1 : end[0]]
    text[-1] = text[-1][: end[1]]
    text[0] = text[0][start[1] :]
    return "\n".join(text)


def _facts(path: Path) -> Facts:
    """The facts about a file, from the cache if its content is known."""
    content = path.read_bytes().replace(b"\r\n", b"\n")
    key = hashlib.sha256(content).hexdigest()
    if key not in _cache():
        try:
            imports = sorted(_imported(ast.parse(content)))
            _cache()[key] = Facts(code_hash(content), imports)
        except (ValueError, SyntaxError, RecursionError, tokenize.TokenError) as error:
            raise UsageError(f"{path} is not valid Python: {error}.") from error
    return _cache()[key]


@functools.cache
def _cache() -> dict[str, Facts]:
    """Facts by the hash of the content; a cache that is missing or damaged is empty."""
    try:
        stored = json.loads((cache_folder() / CACHE).read_bytes())
        return {key: Facts(str(code), [str(name) for name in imports]) for key, (code, imports) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache() -> None:
    """Writes the cache; a failure only costs time later."""
    store = cache_folder() / CACHE
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        files.replace(store, json.dumps(dict(list(_cache().items())[-CACHED_FILES:])), flush=False)
    except OSError as error:
        log.debug("Hashes of source files cannot be cached: %s", error)


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("backbones.")}


def _files_of(name: str) -> list[Path]:
    base = REPOSITORY.joinpath(*name.split("."))
    if base.is_dir():
        return [p for p in sorted(base.rglob("*.py")) if "__pycache__" not in p.parts]
    return [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else []
