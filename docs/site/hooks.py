"""Hooks of mkdocs: which pages the site has, and lists that are read as GitHub reads them."""

from __future__ import annotations

from pathlib import Path

from markdown import Extension, Markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ["*.md", "docs/*.md", "docs/*.png", "docs/site/*.js", "docs/site/*.css", "figures/*.png"]
FILES += ["backbones/**/*.md", "datasets/**/*.md", "harness/**/*.md", "results/*/*/*/pictures/distances.png"]
FILES += ["results/*/*/*/record.json"]


class ShortIndent(Extension):
    """Text that belongs to a list item is indented by two or three spaces, not four."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.tab_length = 2
        md.build_parser()  # its parts copied the former length; extensions that follow add theirs


def on_config(config: MkDocsConfig) -> None:
    config.markdown_extensions.insert(0, ShortIndent())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the files of docs/ by those of the repository, so that relative links work on GitHub and on the site."""
    found = sorted({path for pattern in FILES for path in REPOSITORY.glob(pattern)})
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files(theme + [_file(path, config) for path in found])


def _file(path: Path, config: MkDocsConfig) -> File:
    return File.generated(config, path.relative_to(REPOSITORY).as_posix(), abs_src_path=str(path))
