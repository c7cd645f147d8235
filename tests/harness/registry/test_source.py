"""The hash of a backbone's code: layout, comments and docstrings do not change it, every other token does."""

import io
import tokenize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.registry import source
from harness.registry.source import code_hash, source_files
from harness.system.paths import REPOSITORY

CODE = (REPOSITORY / "backbones" / "reidmamba" / "tokens.py").read_bytes()
LINES = CODE.decode().split("\n")
TOKENS = [token for token in tokenize.tokenize(io.BytesIO(CODE).readline) if token.string]
IN_STRINGS = {line for t in TOKENS if t.type == tokenize.STRING for line in range(t.start[0], t.end[0])}
FREE = [line for line in range(len(LINES)) if line not in IN_STRINGS]
STATEMENT_ENDS = [token.end[0] - 1 for token in TOKENS if token.type == tokenize.NEWLINE]
COUNTED = [
    token
    for token in TOKENS
    if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP)
    or (token.type == tokenize.STRING and not token.string.startswith('"""'))
]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FREE), st.sampled_from(["", "# new", "        # new", "\f"])), max_size=6))
def test_comments_and_blank_lines_do_not_change_it(inserted):
    lines = list(LINES)
    for at, text in sorted(inserted, reverse=True):
        lines.insert(at, text)
    assert code_hash("\n".join(lines).encode()) == code_hash(CODE)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(STATEMENT_ENDS), max_size=6, unique=True),
    st.sampled_from(['"new"', "'''a\nb'''", 'r"x" "y"', '"a"; "b"']),
)
def test_docstrings_and_comments_after_statements_do_not_change_it(ends, docstring):
    lines = list(LINES)
    for at in sorted(ends, reverse=True):
        following = next((line for line in lines[at + 1 :] if line.strip()), "")
        indent = following[: len(following) - len(following.lstrip())]
        lines[at] += "  # new"
        lines.insert(at + 1, indent + docstring)
    assert (code_hash("\n".join(lines).encode()) == code_hash(CODE)) is (";" not in docstring or not ends)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(COUNTED), st.sampled_from(["_", "0", " +", " x"]))
def test_every_other_token_changes_it(token, added):
    lines = list(LINES)
    row, column = token.end
    lines[row - 1] = lines[row - 1][:column] + added + lines[row - 1][column:]
    assert code_hash("\n".join(lines).encode()) != code_hash(CODE)


def test_indentation_and_used_strings_change_it():
    assert code_hash(b"if a:\n    b\n    c\n") == code_hash(b"if a:\n  b\n\n  c") != code_hash(b"if a:\n    b\nc\n")
    assert code_hash(b"x = 'a'\n") != code_hash(b"x = 'b'\n")
    assert code_hash(b"'a'.f()\n") != code_hash(b"'b'.f()\n")
    assert code_hash(b"f'{a()}'\n") != code_hash(b"")


def test_every_version_of_python_gives_the_same():
    code = b"""def f(x: int) -> str:\n    "doc"\n    return f'{x:>{3}} {f"{x!r}"}' rb'\\0'  # c\n"""
    assert code_hash(code) == "8996f16380ed27940f2c2dc0380982cc78b820bd59afea873e7f491e2f1f74dc"


def test_the_cache_is_used_and_a_damaged_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "model.py").write_text("import backbones.layers\n")
    source._cache.cache_clear()
    found = source_files(plugin)
    assert set(found) == {plugin / "model.py", REPOSITORY / "backbones" / "layers.py"}
    source._cache.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(source, "code_hash", pytest.fail)
        assert source_files(plugin) == found
    (tmp_path / "cache" / source.CACHE).write_text('{"a": 3}')
    source._cache.cache_clear()
    assert source_files(plugin) == found
    (plugin / "model.py").write_text("def\n")
    with pytest.raises(UsageError, match="is not valid Python"):
        source_files(plugin)
    source._cache.cache_clear()
