"""Flat files for other programs: one CSV row per run, per score and per measured cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError
from harness.records import store
from harness.reporting import starts
from harness.reporting.cells import current
from harness.reporting.report_data import ReportData
from harness.reporting.rows import device, image_size, other_work
from harness.spec.names import SCORED
from harness.spec.run_spec import canonical
from harness.system import files
from harness.system.paths import REPOSITORY

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First letters that make a spreadsheet compute a text. Such a text gets an apostrophe in front."""

PAGE = REPOSITORY / "docs" / "report.md"
BEGIN = "<!-- Written by `python -m harness.reporting.flat` from harness/reporting/flat.py: edit that file. -->"
END = "<!-- End of the tables. -->"

Values = Mapping[str, Any]


class Column(NamedTuple):
    """A column: its name, the path of its value, and its meaning.

    A path starts with a block of the record, with `score` (an evaluation) or with `more` (computed here).
    """

    name: str
    path: str
    about: str


WHAT = (
    Column("run_id", "run_id", "id of the run, by which the files can be joined"),
    Column("origin", "more.origin", "name of the results folder, if several were merged"),
    Column("backbone", "spec.backbone", "name of the backbone, with its variant"),
)
TRAINED = (
    Column("dataset", "spec.dataset", "dataset of the run"),
    Column("recipe", "spec.recipe", "name of the recipe"),
    Column("seed", "spec.seed", "training seed"),
)
BUILD = (
    Column("options", "more.options", "build options, as JSON"),
    Column("height", "more.height", "height of the input, in pixels"),
    Column("width", "more.width", "width of the input, in pixels"),
)
SCORES = (
    Column("mAP", "score.mAP", "mean average precision, from 0 to 1"),
    Column("mAP_low", "score.interval.mAP.0", "lower end of its 95 % interval over identities"),
    Column("mAP_high", "score.interval.mAP.1", "upper end of that interval"),
    Column("rank-1", "score.rank-1", "fraction of valid queries with a match at rank 1"),
    Column("rank-1_low", "score.interval.rank-1.0", "lower end of its 95 % interval over identities"),
    Column("rank-1_high", "score.interval.rank-1.1", "upper end of that interval"),
    Column("rank-5", "score.rank-5", "fraction with a match among the first 5"),
    Column("rank-10", "score.rank-10", "fraction with a match among the first 10"),
    Column("mINP", "score.mINP", "mean inverse negative penalty"),
    Column("n_query", "score.n_query", "number of queries"),
    Column("n_valid", "score.n_valid", "number of queries with a match"),
    Column("n_gallery", "score.n_gallery", "number of gallery images"),
)
COSTS = (
    Column("parameters", "efficiency.parameters", "number of parameters"),
    Column("parameters_inference", "efficiency.parameters_inference", "parameters that the test-time feature needs"),
    Column("flops", "efficiency.flops", "operations for one image; a multiply-add counts as two"),
    Column("images_per_second", "efficiency.inference_images_per_second", "throughput of the test"),
    Column("batch_size", "efficiency.batch_size", "images per batch"),
    Column("precision", "efficiency.precision", "precision of the test"),
    Column("threads", "efficiency.threads", "number of CPU threads"),
    Column("train_images_per_second", "efficiency.train_images_per_second", "throughput of training"),
    Column("peak_memory_bytes", "efficiency.peak_memory_bytes", "peak memory of training, or of the measured call"),
)
WHERE = (
    Column("device", "more.device", "name of the GPU or CPU"),
    Column("shared", "more.shared", "whether other work used the device meanwhile"),
    Column("torch", "environment.torch", "version of torch"),
    Column("git_commit", "environment.git_commit", "commit of the harness"),
    Column("git_dirty", "environment.git_dirty", "whether that checkout had local changes"),
    Column("started", "timing.started", "start of the run, in UTC"),
)
TABLES = {
    "runs.csv": (
        *(*WHAT, *TRAINED),
        Column("status", "status", "how the run ended: `ok` or a kind of failure"),
        Column("reason", "error.message", "why it did not end with `ok`"),
        Column("source", "source", "where the numbers come from, as in the record"),
        Column("protocol", "protocol_version", "version of the evaluation protocol"),
        Column("generated", "more.generated", "whether the images are generated"),
        Column("start", "more.start", "what training started from: `none`, `ImageNet-1k`, `people: NAME` and others"),
        Column("pretrained", "spec.pretrained", "identity of the starting weights, or of the scored file"),
        Column("fingerprint", "spec.fingerprint", "hash of the dataset's files"),
        Column("epochs", "efficiency.epochs", "number of epochs"),
        *(*BUILD, *SCORES, *COSTS, *WHERE),
    ),
    "scores.csv": (
        *(*WHAT, *TRAINED),
        Column("scored_on", "score.dataset", "dataset that was scored"),
        Column("trained", "score.trained", "`False` for the model before training"),
        Column("flip", "score.flip", "whether this is the flip test"),
        Column("rerank", "score.rerank", "whether re-ranking was used"),
        Column("metric", "score.metric", "distance that ranks the gallery"),
        *SCORES,
        Column("tied_queries", "score.tied_queries", "queries whose AP is lower because of a tie"),
    ),
    "cells.csv": (
        *(*WHAT, *BUILD),
        Column(
            "newest", "more.newest", "whether the report shows it: the newest of its backbone, condition and device"
        ),
        Column("measure", "efficiency.measure", "`inference` or `training`"),
        Column("compiled", "efficiency.compiled", "whether `torch.compile` was used"),
        Column("scan", "efficiency.scan", "implementation of the selective scan"),
        *COSTS,
        Column("latency_ms", "efficiency.latency_ms", "median time per batch, in milliseconds"),
        Column("latency_cpu_ms", "efficiency.latency_cpu_ms", "median processor time per batch, over all threads"),
        Column("train_step_ms", "efficiency.train_step_ms", "median time per training step"),
        Column("train_step_cpu_ms", "efficiency.train_step_cpu_ms", "median processor time per training step"),
        Column("relative_error", "efficiency.relative_error", "standard error of the median divided by the median"),
        Column("repeats", "efficiency.repeats", "number of timed repeats"),
        *WHERE,
    ),
}
"""The columns of each file: a row per run, per score of a run, and per measured cost of the efficiency study."""


def write(data: ReportData, folder: Path) -> list[Path]:
    """Writes the files into a folder; the same records give the same bytes.

    Raises:
        UsageError: the folder cannot be written.
    """
    rows = _rows(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, columns in TABLES.items():
            files.replace(folder / name, _render(columns, rows[name]))
    except OSError as error:
        raise UsageError(
            f"The files cannot be written to {folder} ({error.strerror}). Choose another folder."
        ) from error
    return [folder / name for name in TABLES]


def _rows(data: ReportData) -> dict[str, list[Values]]:
    def order(record: Values) -> tuple[Any, ...]:
        spec = record["spec"]
        return spec["dataset"], spec["backbone"], spec["recipe"], spec["seed"], record["run_id"], data.origin(record)

    records = sorted(data.records, key=order)
    newest = {
        id(record) for record in current([r for r in records if r["source"] == "profile" and r["status"] == "ok"])
    }
    blocks = [{**record, "more": _more(data, record, newest)} for record in records]
    runs = [block for block in blocks if block["source"] in SCORED]
    return {
        "runs.csv": [{**block, "score": store.plain(block) or {}} for block in runs],
        "scores.csv": [{**block, "score": score} for block in runs for score in block["evaluations"]],
        "cells.csv": [block for block in blocks if block["source"] == "profile" and block["status"] == "ok"],
    }


def _more(data: ReportData, record: Values, newest: set[int]) -> Values:
    """Values that are not in the record as such."""
    height, width = image_size(record) or (None, None)
    return {
        "origin": data.origin(record),
        "options": canonical(record["spec"]["options"]),
        "generated": bool(record["data"].get("generated")),
        "start": starts.of_record(data, record),
        "newest": id(record) in newest,
        "height": height,
        "width": width,
        "device": device(record),
        "shared": bool(other_work(record["efficiency"])),
    }


def _render(columns: Sequence[Column], rows: Iterable[Values]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([_cell(_value(row, column.path)) for column in columns] for row in rows)
    return text.getvalue()


def _value(row: Any, path: str) -> Any:
    """The value at a path; None where a block or key is missing."""
    for key in path.split("."):
        table = dict(enumerate(row)) if isinstance(row, list) else row
        row = table.get(int(key) if isinstance(row, list) else key) if isinstance(table, Mapping) else None
    return row


def _cell(value: Any) -> Any:
    """Numbers as they are, missing values empty, text on one line that no spreadsheet computes."""
    if not isinstance(value, str):
        return "" if value is None else value
    line = " ".join(value.split())
    return f"'{line}" if line.startswith(FORMULA) else line


def documented(page: str) -> str:
    """Returns docs/report.md with current tables: a heading and the columns of each file."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "\n\n".join([f"{before}{BEGIN}", *_tables(), f"{END}{after}"])


def _tables() -> Iterator[str]:
    for name, columns in TABLES.items():
        rows = [f"| `{column.name}` | {column.about} |" for column in columns]
        yield "\n".join([f"### {name}", "", "| column | content |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(documented(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
