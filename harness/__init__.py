"""Compares person re-identification backbones under one data pipeline, one evaluator and one timer.

The functions here do what the command line does: `plan`, `run`, `evaluate`, `tune`, `profile`, `report`,
`claims`, `check_results`, `publish`, `near_duplicates`, and `load_backbone`, `embed`, `export` and `audit` for a
trained network.
Importing this package imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.system.version import PROTOCOL_VERSION, __version__

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data.near_duplicates import Pair
    from harness.planning.plan import Planned
    from harness.planning.request import Names
    from harness.records.schema import Record
    from harness.reporting.claims import Claims
    from harness.reporting.others.check import Outcome
    from harness.tuning.state import Search
    from harness.worker.deploy.embedder import Embedder
    from harness.worker.deploy.export import Result
    from harness.worker.deploy.feature_file import Show, Written
    from harness.worker.deploy.timing import Timing

__all__ = [
    "PROTOCOL_VERSION",
    "__version__",
    "audit",
    "check_results",
    "claims",
    "embed",
    "evaluate",
    "export",
    "load_backbone",
    "near_duplicates",
    "plan",
    "profile",
    "profile_exported",
    "publish",
    "report",
    "run",
    "tune",
]


def plan(backbones: Names = "all", datasets: Names = "all", **settings: Any) -> Sequence[Planned]:
    """Returns every run of a grid: its spec, its state (`cached`, `to do` or `blocked`) and the reason.

    With the recipe `tuned`, final runs are among them once the trials of their study have ended.

    Args:
        backbones: names as a list or comma list, or `all`.
        datasets: likewise.
        **settings: see `harness.planning.request.Settings`; the options of `python -m harness plan`.

    Raises:
        harness.errors.UsageError: an unknown name or setting, or a value that does not fit.
    """
    from harness.execution import settings as reading
    from harness.planning import plan as planning
    from harness.tuning import studies

    request = reading.resolve(backbones, datasets, settings).request
    if request.budget:
        return [cell for study in studies.build(request) for cell in study.cells()]
    return planning.build(request)


def run(backbones: Names = "all", datasets: Names = "all", **settings: Any) -> list[Record]:
    """Trains and scores every backbone on every dataset, and writes the page; returns the records in plan order.

    Finished runs are not repeated, and their records are returned too. A run that failed has a record with its error;
    a blocked one has none, see `plan`.

    Args:
        backbones: names as a list or comma list, or `all`.
        datasets: likewise.
        **settings: see `harness.planning.request.Settings` and `harness.execution.options.Execution`; the
            options of `python -m harness run`.

    Raises:
        harness.errors.UsageError: an unknown name or setting, or every run is blocked.
        KeyboardInterrupt: stopped by Ctrl-C; what was finished is kept.
    """
    from harness.execution import run as execution
    from harness.execution import settings as reading
    from harness.execution import stand_ins, tuned
    from harness.planning import plan as planning
    from harness.tuning import studies

    asked = reading.resolve(backbones, datasets, settings)
    if asked.generate:
        stand_ins.draw(asked.request, asked.generate)
    if asked.request.budget:
        outcome = tuned.run(asked.request, studies.build(asked.request), asked.execution)
    else:
        cells = planning.build(asked.request)
        outcome = execution.run(asked.request, cells, asked.execution, keep_plan=True)
    execution.write_page(asked.request, asked.execution)
    return outcome.records()


def evaluate(
    backbone: str,
    dataset: str,
    *,
    checkpoint: str | os.PathLike[str] = "",
    features: str | os.PathLike[str] = "",
    trust_pickle: bool = False,
    **settings: Any,
) -> Record:
    """Scores a checkpoint or stored features without training; returns the record.

    Args:
        backbone: the backbone of the checkpoint; with features any name for the row.
        dataset: the dataset to score on.
        checkpoint: a checkpoint of the original code or of a run.
        features: a file or folder with features of query and gallery, see docs/features.md.
        trust_pickle: allow a file that runs code when it is read.
        **settings: the options of `python -m harness evaluate`.

    Raises:
        harness.errors.HarnessError: a file that does not fit, or data that cannot be read; nothing is written.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    from harness.execution import evaluate as execution
    from harness.records import store

    (folder,) = execution.evaluate(
        backbone,
        dataset,
        checkpoint=str(checkpoint),
        features=str(features),
        trust_pickle=trust_pickle,
        given=settings,
    ).finished()
    return store.read(folder)


def tune(backbone: str, dataset: str, **settings: Any) -> Search:
    """Searches settings on held-out training identities, then tests the chosen points; returns the search.

    `.best` is the best trial, `.trials` are all. The same call resumes the search.

    Args:
        backbone: name, with a variant if wanted.
        dataset: dataset whose training split is searched on.
        **settings: see `harness.execution.tune.SearchSettings`; the options of `python -m harness tune`.

    Raises:
        harness.errors.UsageError: a setting that does not fit, or a space no point of which can run.
        KeyboardInterrupt: stopped by Ctrl-C; what was finished is kept.
    """
    from harness.execution import run as execution
    from harness.execution import settings as reading
    from harness.execution import stand_ins
    from harness.execution.tune import SearchSettings, Tuning

    given: Mapping[str, Any] = {**settings, "seeds": settings.get("seed", 0)}
    asked = reading.resolve(
        backbone, dataset, given, grid=False, others=SearchSettings.__dataclass_fields__, table="tune"
    )
    if asked.generate:
        stand_ins.draw(asked.request, asked.generate)
    tuning = Tuning(asked.request, SearchSettings(**asked.others), asked.execution)
    outcome = tuning.run()
    if outcome.code == execution.INTERRUPTED:
        raise KeyboardInterrupt
    execution.write_page(asked.request, asked.execution)
    return tuning.search


def profile(backbones: Names = "all", **settings: Any) -> list[Record]:
    """Measures parameters, FLOPs, throughput, latency and memory; returns a record per cell.

    Args:
        backbones: names as a list or comma list, or `all`.
        **settings: see `harness.planning.profile.Study`.

    Raises:
        harness.errors.UsageError: an unknown name or setting.
        KeyboardInterrupt: stopped by Ctrl-C; what was finished is kept.
    """
    from harness.execution import profile as execution
    from harness.execution.run import write_page

    asked, cells = execution.plan(backbones, settings)
    outcome = execution.measure(asked, cells)
    write_page(asked.request, asked.execution)
    return outcome.records()


def profile_exported(
    path: str | os.PathLike[str],
    *,
    batches: Sequence[int] = (1, 64),
    threads: int = 0,
    seconds: float = 3.0,
    plugins: str | os.PathLike[str] = "",
) -> list[Timing]:
    """Times a file of `export` on the CPU beside the PyTorch network it was made from, in turns.

    Args:
        path: the file.
        batches: images per call.
        threads: number of CPU threads of each; 0 is all cores.
        seconds: time limit per batch size, for both together.
        plugins: folder of further plug-ins.

    Raises:
        harness.errors.WeightsError: the file is missing, or not one of `export`.
    """
    from pathlib import Path

    from harness.system.paths import expand
    from harness.worker.deploy import timing

    return timing.measure(
        Path(expand(path)), batches=batches, threads=threads, seconds=seconds, plugins=os.fspath(plugins)
    )


def report(
    results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "results",
    out: str | os.PathLike[str] = "",
    *,
    csv: str | os.PathLike[str] = "",
    html: str | os.PathLike[str] = "",
    with_images: bool = False,
    data_root: str | os.PathLike[str] = ".",
    plugins: str | os.PathLike[str] = "",
) -> Path:
    """Writes the page of a results folder and its plots, or flat files, or a website; returns the page or the folder.

    Args:
        results: folder of the records, or several, which are merged.
        out: the page. Default `BENCHMARKS.md` of the checkout for its own results, else in the first results folder.
        csv: folder for CSV files with the numbers, which are written instead of the page; see docs/report.md.
        html: folder for a website, which is written instead of the page; its first page is returned.
        with_images: whether the website shows images of people; licences of datasets may forbid sharing them.
        data_root: folder that holds the datasets, for the images.
        plugins: folder of further plug-ins.

    Raises:
        harness.errors.UsageError: a folder does not exist, is given twice, is in use or cannot be written, or an image
            cannot be read.
    """
    from pathlib import Path

    from harness import reporting
    from harness.reporting import site
    from harness.system.paths import expand

    given = [results] if isinstance(results, str | os.PathLike) else results
    folders, extra = [Path(expand(folder)) for folder in given], Path(expand(plugins)) if plugins else None
    if csv:
        reporting.write_flat(folders, Path(expand(csv)), extra)
        return Path(expand(csv))
    if html:
        images = Path(expand(data_root)) if with_images else None
        return site.write(folders, Path(expand(html)), extra, images=images)
    page = Path(expand(out)) if out else reporting.page_of(folders[0])
    reporting.write(folders, page, extra)
    return page


def check_results(
    folder: str | os.PathLike[str],
    *,
    results: str | os.PathLike[str] = "results",
    plugins: str | os.PathLike[str] = "",
) -> Outcome:
    """Checks the results of somebody else, as `python -m harness results check`; see docs/submitting.md.

    Returns an object with `.runs` (each with `.verdict` and `.findings`), `.repeated`, `.counts` and `.to_dict()`.

    Args:
        folder: their results folder.
        results: your results, for duplicates and contradictions; may be missing.
        plugins: folder of further plug-ins.

    Raises:
        harness.errors.UsageError: the folder does not exist or has no records.
    """
    from pathlib import Path

    from harness.reporting.others import check
    from harness.system.paths import expand

    extra = Path(expand(plugins)) if plugins else None
    return check.check(Path(expand(folder)), Path(expand(results)), extra)


def publish(
    run: str,
    to: str | os.PathLike[str],
    *,
    upload: bool = False,
    public: bool = False,
    results: str | os.PathLike[str] = "results",
    plugins: str | os.PathLike[str] = "",
) -> str:
    """Writes weights, model card and record of a run into a folder, or uploads them; returns where they are.

    Args:
        run: id of a trained and scored run, or its first characters.
        to: a new folder, or `hf://user/name` on the Hugging Face hub.
        upload: agrees to the upload; without it, nothing is sent.
        public: makes a new repository visible to everyone.
        results: folder of the records.
        plugins: folder of further plug-ins.

    Raises:
        harness.errors.HarnessError: an unknown run, one without a checkpoint, a folder in use, or a failed upload.
    """
    from harness.execution import publish as publishing

    return publishing.publish(run, to, results=results, plugins=plugins, public=public, consent=lambda package: upload)


def claims(results: str | os.PathLike[str] = "results", *, plugins: str | os.PathLike[str] = "") -> Claims:
    """Judges the published numbers and the claims of all cards from the records; see docs/claims.md for the rules.

    `.published` and `.claims` are lists of verdicts, and `.to_dict()` is the JSON of the command.

    Args:
        results: folder of the records.
        plugins: folder of further plug-ins, whose cards are judged too.

    Raises:
        harness.errors.UsageError: the folder does not exist.
    """
    from pathlib import Path

    from harness import reporting
    from harness.errors import UsageError
    from harness.reporting import claims as judging
    from harness.system.paths import expand

    folder = Path(expand(results))
    if not folder.is_dir():
        raise UsageError(f"The results folder {folder} does not exist. Pass the folder of the records with --results.")
    return judging.judge(reporting.collect(folder, Path(expand(plugins)) if plugins else None))


def audit(
    backbone: str = "",
    dataset: str = "",
    *,
    checkpoint: str | os.PathLike[str] = "",
    run: str = "",
    checks: str | Sequence[str] = "default",
    trust_pickle: bool = False,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Audits a trained network and keeps what it finds in the record; see docs/audits.md.

    Returns one block per audit and dataset: `check`, `dataset`, `source`, `notes` and `rows`. Each row has `name`,
    `setting`, `value`, `interval` (95 %) and `queries`.

    Args:
        backbone: the backbone; may be left out with `run`.
        dataset: the dataset to look at; for a run its own by default, or several as a comma list.
        checkpoint: a checkpoint of the original code or of a run; it is scored, too, as by `evaluate`.
        run: id of a finished run whose checkpoint is among the results, or its first characters.
        checks: names of audits as a list or comma list, `default` or `all`.
        trust_pickle: allow a checkpoint that runs code when it is read.
        **settings: for a checkpoint the options of `python -m harness evaluate`; for a run `results`, `data_root`,
            `cache`, `plugins`, `data_options`, `device`, `workers`, `threads`, `mlflow` and `mlflow_uri`.

    Raises:
        harness.errors.HarnessError: an unknown name, a file that does not fit, or data that cannot be read.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    from harness.execution import audit as execution

    _, blocks = execution.audit(
        backbone, dataset, checks, checkpoint=str(checkpoint), run=run, trust_pickle=trust_pickle, given=settings
    )
    return blocks


def near_duplicates(
    dataset: str, data_root: str | os.PathLike[str] = ".", *, plugins: str | os.PathLike[str] = "", workers: int = 4
) -> list[Pair]:
    """Finds images that training, query and gallery of a dataset have in common, also if saved again or resized.

    Returns pairs, the most similar first, each with `splits`, `items` and `similarity`.

    Args:
        dataset: name of the dataset.
        data_root: folder that contains the datasets, or the dataset's own folder.
        plugins: folder of further plug-ins.
        workers: number of threads that read images.

    Raises:
        harness.errors.HarnessError: an unknown name, or data that cannot be read.
    """
    from pathlib import Path

    from harness import registry
    from harness.data import near_duplicates as finder
    from harness.system.paths import expand

    entry = registry.dataset(dataset, Path(expand(plugins)) if plugins else None)
    return finder.find(entry.load(expand(data_root)), workers=workers)


def embed(
    backbone: str = "",
    *,
    out: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    dataset: str = "",
    camera: int | None = None,
    flip: bool = False,
    precision: str = "fp32",
    raw: bool = False,
    data_root: str | os.PathLike[str] = "",
    data_options: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int = 0,
    threads: int = 0,
    progress: Show | None = None,
    **settings: Any,
) -> Written:
    """Writes the features of images or of a dataset to a `.npz` file; returns what was written.

    Args:
        backbone: the backbone; may be left out with `run`.
        out: the file, see docs/features.md.
        images: a folder, an image, a text file with one path per line, or a list of paths.
        dataset: a dataset whose query and gallery to embed, in place of images.
        camera: trained camera of all images, from 0. By default the cameras of the dataset, or the mean.
        flip: average the features of each image and its mirror image.
        precision: `fp32`, `bf16` or, on a GPU, `fp16`.
        raw: write features as the network returns them, not of unit length.
        data_root: folder that holds the datasets. Default `$REID_DATASETS`.
        data_options: reader options, by dataset name.
        workers: number of threads that read images.
        threads: number of CPU threads, which may change the last bit. 0: those of a run on the CPU, else all cores.
        progress: called with the array, the number of images done and the total.
        **settings: those of `load_backbone`.

    Raises:
        harness.errors.HarnessError: an unknown name, a checkpoint that does not fit, or images that cannot be read.
    """
    from harness.worker.deploy import feature_file

    how = feature_file.How(flip=flip, precision=precision, unit=not raw, camera=camera, workers=workers)
    return feature_file.write(
        backbone,
        settings,
        out=out,
        images=images,
        dataset=dataset,
        data_root=data_root,
        data_options=data_options or {},
        threads=threads,
        how=how,
        show=progress,
    )


def export(
    backbone: str = "",
    *,
    out: str | os.PathLike[str],
    format: str = "onnx",
    dataset: str = "",
    normalize: bool = True,
    camera: str | int = "",
    batch: int = 0,
    precision: str = "fp32",
    calibration: int = 128,
    opset: int = 18,
    data_root: str | os.PathLike[str] = "",
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Result:
    """Writes a trained network as an ONNX or torch.export file, and compares the file with PyTorch.

    Args:
        backbone: the backbone; may be left out with `run`.
        out: the file, `.onnx` or `.pt2`.
        format: `onnx` or `torch`.
        dataset: a dataset to compare mAP on, and to calibrate int8 with.
        normalize: whether the file normalises and reads uint8; otherwise it reads normalised float32.
        camera: `input`, `mean`, or a trained camera from 0. By default the mean where the backbone embeds cameras.
        batch: images per call; 0 for any number.
        precision: `fp32`, or for ONNX `fp16` or `int8`.
        calibration: number of training images that calibrate int8.
        opset: ONNX opset, 18 to 23.
        data_root: folder that holds the datasets. Default `$REID_DATASETS`.
        progress: called with each step.
        **settings: those of `load_backbone`, but for `device`.

    Returns:
        `.path`, `.about` (the metadata of the file), `.sentences` (the comparison) and `.seconds`.

    Raises:
        harness.errors.UsageError: a setting that does not fit, or a missing package.
        harness.errors.RunError: the network cannot be exported, or the file differs from PyTorch; no file is kept.
    """
    from harness.worker.deploy import export as exporting

    how = exporting.How(format, normalize, str(camera), batch, opset, precision, calibration)
    return exporting.write(
        backbone, settings, out=os.fspath(out), how=how, dataset=dataset, data_root=os.fspath(data_root), show=progress
    )


def load_backbone(
    name: str = "",
    checkpoint: str | os.PathLike[str] | None = None,
    run: str | None = None,
    device: str = "auto",
    **settings: Any,
) -> Embedder:
    """Returns a trained backbone in evaluation mode, a torch module with `.embed(images or paths, camera_ids)`.

    Args:
        name: the backbone; may be left out with `run`.
        checkpoint: a checkpoint of the original code or of a run. With neither, the network starts at random.
        run: id of a run (or its first characters) whose checkpoint is among the results.
        device: `auto`, `cpu`, `cuda`, `mps` or `xpu`; the last two are untested.
        **settings: `results`, `plugins`, `options` (build options), `image_size` ((height, width) in pixels),
            `trust_pickle`, `batch_size` (images per batch, by default those of the evaluation; it may change the last
            bit). `options` and `image_size` of a run are its own by default.

    Raises:
        harness.errors.HarnessError: an unknown name or run, or a checkpoint that does not fit.
    """
    from harness.worker.deploy import embedder

    return embedder.load(name, checkpoint=checkpoint, run=run, device=device, **settings)
