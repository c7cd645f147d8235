"""The types of a record. Both the validation of records and the tables of docs/records.md are derived from them."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Required, TypedDict

import msgspec
from msgspec import Meta

from harness.cards.tables import explained
from harness.spec.names import SCORED, Source, Stage, Status
from harness.spec.run_spec import RunSpec, canonical

SCHEMA_VERSION = 1

Fraction = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[float, Meta(ge=0, lt=1e30)]
Finite = Annotated[float, Meta(gt=-1e30, lt=1e30)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
Size = Annotated[list[Whole], Meta(min_length=2, max_length=2)]
Quartiles = Annotated[list[Number], Meta(min_length=2, max_length=2)]
Bounds = Annotated[list[Finite], Meta(min_length=2, max_length=2)]
Pair = Annotated[list[str], Meta(min_length=2, max_length=2)]


class SpecAugmentation(TypedDict, total=False):
    image_size: Size | None


class SpecValues(TypedDict, total=False):
    augmentation: SpecAugmentation | None


class Spec(TypedDict, total=False):
    """Everything that may change the results; see `harness.spec.run_spec.RunSpec`."""

    backbone: Required[
        Annotated[str, Meta(description="registered name, with the variant: `reidmamba:strong-baseline`")]
    ]
    dataset: Required[Annotated[str, Meta(description="training dataset, or scored dataset of a run without training")]]
    recipe: Required[Annotated[str, Meta(description="name of the recipe")]]
    values: Required[Annotated[SpecValues, Meta(description="every value of the recipe; the soft margin is -1")]]
    options: Required[Annotated[dict[str, Any], Meta(description="every build option of the backbone")]]
    seed: Required[Annotated[Seed, Meta(description="seed of all random numbers")]]
    device: Required[Annotated[str, Meta(description="`cpu` or `cuda`")]]
    protocol: Required[Annotated[str, Meta(description="version of the evaluation protocol, Major.Minor")]]
    torch: Annotated[str | None, Meta(description="version of torch, Major.Minor")]
    source: Annotated[str | None, Meta(description="hash of the backbone's code")]
    pretrained: Annotated[
        str | None,
        Meta(description="checksum of the starting weights or of the scored file; `none` for a random start"),
    ]
    fingerprint: Annotated[
        str | None, Meta(description="hash of the dataset: paths, sizes, identities and cameras of all images")
    ]
    dataset_options: Annotated[
        dict[str, dict[str, Any]] | None, Meta(description="reader options given by the user, by dataset")
    ]
    evaluate_on: Annotated[list[Pair] | None, Meta(description="name and fingerprint of each additional dataset")]
    purpose: Annotated[
        str | None, Meta(description="purpose of the run: `test`, `search`, `checkpoint`, `features` or `profile`")
    ]
    holdout: Annotated[
        dict[str, Any] | None, Meta(description="seed and fraction of the held-out identities of a search")
    ]


class Error(TypedDict, total=False):
    """Why the run failed."""

    type: Annotated[str | None, Meta(description="class of the exception")]
    message: Annotated[str, Meta(description="the reason, in one or two sentences")]
    log_tail: Annotated[str | None, Meta(description="last lines of the log")]


class ImageSizes(TypedDict, total=False):
    """Sizes of the images of a split."""

    height: Annotated[list[Number] | None, Meta(description="minimum, median and maximum, in pixels")]
    width: Annotated[list[Number] | None, Meta(description="minimum, median and maximum, in pixels")]
    distinct: Annotated[Whole | None, Meta(description="number of distinct sizes")]


class Data(TypedDict, total=False):
    """The dataset of the run."""

    layout: Annotated[str | None, Meta(description="detected layout, for example `msmt17-v1`")]
    generated: Annotated[dict[str, Any] | None, Meta(description="settings of the generator; `null` for real data")]
    notes: Annotated[
        dict[str, Any] | None,
        Meta(
            description="facts about the files. `image_sizes`: the images are a resized copy; `junk`: number of images "
            "that the reader left out; `row_order` and `rows_left_out`: how rows of stored features were matched to "
            "images, see [features.md](features.md)"
        ),
    ]
    count_mismatch: Annotated[
        list[str] | None, Meta(description="differences between the counts and the card, in sentences; empty for none")
    ]
    splits: Annotated[
        dict[str, dict[str, Whole]] | None,
        Meta(description="`images`, `identities` and `cameras` of `train`, `query` and `gallery`"),
    ]
    image_sizes: Annotated[dict[str, ImageSizes] | None, Meta(description="sizes of the images, by split")]
    error: Annotated[
        str | None, Meta(description="why an additional dataset could not be scored; the run itself is `ok`")
    ]
    evaluated: Annotated[dict[str, "Data"] | None, Meta(description="the same keys for each additional dataset")]


Evaluation = TypedDict(
    "Evaluation",
    {
        "dataset": Required[
            Annotated[
                str,
                Meta(description="scored dataset; a name other than `spec.dataset` means a cross-domain result"),
            ]
        ],
        "trained": Required[
            Annotated[
                bool,
                Meta(
                    description="`false` for the additional score of the model before training; `true` for the result "
                    "of a run, also with `training.epochs = 0`"
                ),
            ]
        ],
        "flip": Required[
            Annotated[bool, Meta(description="whether features were averaged over the image and its mirror image")]
        ],
        "rerank": Required[
            Annotated[
                bool,
                Meta(description="whether k-reciprocal re-ranking was used; never under `cuhk03-classic`"),
            ]
        ],
        "metric": Required[Annotated[str, Meta(description="`cosine` or `euclidean`")]],
        "protocol": Annotated[str | None, Meta(description="evaluation protocol of the dataset's card")],
        "mAP": Required[Annotated[Fraction, Meta(description="mean average precision over the valid queries")]],
        "mINP": Required[
            Annotated[Fraction | None, Meta(description="mean inverse negative penalty over the valid queries")]
        ],
        "rank-1": Required[
            Annotated[
                Fraction,
                Meta(
                    description="share of the valid queries with a match at rank 1; under `cuhk03-classic` the mean "
                    "over 10 random galleries per query, with one image per identity"
                ),
            ]
        ],
        "rank-5": Required[Annotated[Fraction, Meta(description="the same, up to rank 5")]],
        "rank-10": Required[Annotated[Fraction, Meta(description="the same, up to rank 10")]],
        "cmc": Required[
            Annotated[
                list[Fraction],
                Meta(
                    description="CMC curve at ranks 1, 2, ... up to the recipe's `max_rank`; `rank-1`, `rank-5` and "
                    "`rank-10` do not depend on `max_rank`"
                ),
            ]
        ],
        "n_query": Required[Annotated[Whole, Meta(description="number of queries")]],
        "n_valid": Required[
            Annotated[Whole, Meta(description="number of queries with a match: the same identity under another camera")]
        ],
        "n_gallery": Required[Annotated[Whole, Meta(description="number of gallery images")]],
        "n_junk": Annotated[
            Whole | None,
            Meta(
                description="number of gallery images with a negative identity that were dropped in the evaluation; "
                "junk that readers leave out is counted in `data.notes.junk`"
            ),
        ],
        "tied_queries": Annotated[
            Whole | None, Meta(description="number of queries whose average precision is lower because of ties")
        ],
        "interval": Required[
            Annotated[
                dict[str, Bounds],
                Meta(
                    description="95 % confidence intervals of `mAP` and `rank-1`, by a bootstrap over the identities "
                    "of the queries; empty for a single identity"
                ),
            ]
        ],
        "per_query": Annotated[str | None, Meta(description="name of the file with per-query values")],
    },
    total=False,
)
Evaluation.__doc__ = "One evaluation of the model."


class TakenOver(TypedDict, total=False):
    """The run whose checkpoint this run started from."""

    run_id: Annotated[str | None, Meta(description="id of the other run")]
    epochs: Annotated[Whole | None, Meta(description="number of epochs of the checkpoint")]


class Conditions(TypedDict, total=False):
    """Other load of the machine during the measurement."""

    fixed_work_ms: Annotated[
        list[Number] | None, Meta(description="time of a fixed matrix product, before and after the measurement")
    ]
    others_cores: Annotated[Number | None, Meta(description="mean number of cores used by other processes")]
    load_average: Annotated[Number | None, Meta(description="load average of the last minute before the measurement")]
    drift: Annotated[
        Number | None, Meta(description="time of the second half of the repeats, divided by that of the first half")
    ]
    notes: Annotated[list[str] | None, Meta(description="reasons to doubt the measurement, in sentences")]


class Efficiency(TypedDict, total=False):
    """Size, speed and memory of the model. A profile record has one device, precision, batch size and image size."""

    parameters: Annotated[Whole | None, Meta(description="number of parameters")]
    parameters_inference: Annotated[
        Whole | None, Meta(description="number of parameters used by the test-time feature")
    ]
    parameters_trained: Annotated[Whole | None, Meta(description="number of parameters with a gradient; profile")]
    flops: Annotated[Number | None, Meta(description="FLOPs per image; a multiply-add counts as two")]
    inference_images_per_second: Annotated[Number | None, Meta(description="median throughput in evaluation mode")]
    batch_size: Annotated[Whole | None, Meta(description="images per batch")]
    precision: Annotated[str | None, Meta(description="`fp32`, `bf16` or `fp16`")]
    image_size: Annotated[Size | None, Meta(description="height and width, in pixels")]
    device: Annotated[str | None, Meta(description="`cpu` or `cuda`")]
    threads: Annotated[Whole | None, Meta(description="number of CPU threads")]
    scan: Annotated[str | None, Meta(description="implementation of the selective scan")]
    conditions: Annotated[Conditions | None, Meta(description="other load of the machine during the measurement")]
    peak_memory_bytes: Annotated[
        Number | None, Meta(description="peak memory of the epochs trained in this process, or of the profiled call")
    ]
    train_images_per_second: Annotated[
        Number | None, Meta(description="throughput of the epochs trained in this process; `null` if there were none")
    ]
    train_batch_size: Annotated[Whole | None, Meta(description="images per training step")]
    train_precision: Annotated[str | None, Meta(description="precision of training")]
    skipped_steps: Annotated[
        Whole | None,
        Meta(
            description="number of training steps that the float16 gradient scaler skipped because the loss or its "
            "gradients were not finite"
        ),
    ]
    epochs: Annotated[Whole | None, Meta(description="number of training epochs of the model")]
    resumed_at_epoch: Annotated[
        Whole | None, Meta(description="epoch of the checkpoint from which this process resumed")
    ]
    taken_over: Annotated[
        TakenOver | None,
        Meta(
            description="the run whose checkpoint this run started from, with the same backbone, dataset, seed, "
            "training recipe, starting weights, device and training images"
        ),
    ]
    measure: Annotated[str | None, Meta(description="`inference` or `training`; profile")]
    compiled: Annotated[bool | None, Meta(description="whether `torch.compile` was used; profile")]
    latency_ms: Annotated[Number | None, Meta(description="median wall-clock time per batch; profile")]
    latency_cpu_ms: Annotated[Number | None, Meta(description="CPU time per batch over all threads; profile")]
    latency_quartiles_ms: Annotated[
        Quartiles | None, Meta(description="first and third quartile of the wall-clock time; profile")
    ]
    train_step_ms: Annotated[Number | None, Meta(description="median wall-clock time per training step; profile")]
    train_step_cpu_ms: Annotated[
        Number | None, Meta(description="CPU time per training step over all threads; profile")
    ]
    train_step_quartiles_ms: Annotated[
        Quartiles | None, Meta(description="first and third quartile of the wall-clock time; profile")
    ]
    repeats: Annotated[Whole | None, Meta(description="number of timed repeats; profile")]
    relative_error: Annotated[
        Number | None, Meta(description="standard error of the median, divided by the median; profile")
    ]
    first_call_seconds: Annotated[
        Number | None, Meta(description="time of the first call, including compilation; profile")
    ]
    memory_bytes: Annotated[
        dict[str, Number | None] | None,
        Meta(
            description="parts of the peak memory: `weights`, `inputs`, `activations`; in training also `gradients` "
            "and `optimizer_state`; profile"
        ),
    ]
    threads_pinned: Annotated[bool | None, Meta(description="whether threads were pinned to cores; profile")]


class Timing(TypedDict, total=False):
    """Time and duration of the run."""

    started: Annotated[str | None, Meta(description="start of the run, ISO 8601, UTC")]
    ended: Annotated[str | None, Meta(description="end of the run, ISO 8601, UTC")]
    seconds: Annotated[dict[str, Number] | None, Meta(description="duration of each stage, in seconds")]


class Asked(TypedDict, total=False):
    """The settings given by the user; `spec` has them together with all defaults."""

    recipe: Annotated[str | None, Meta(description="name or path of the recipe")]
    about: Annotated[str | None, Meta(description="the recipe's description of itself")]
    preset: Annotated[str | None, Meta(description="name of the preset")]
    options: Annotated[dict[str, Any] | None, Meta(description="build options")]
    set: Annotated[dict[str, Any] | None, Meta(description="recipe keys")]


class Record(TypedDict, total=False):
    """One run, the content of `record.json`."""

    schema_version: Required[
        Annotated[
            int,
            Meta(
                description="version of this schema, currently 1. Older records are migrated in memory; newer "
                "ones are refused"
            ),
        ]
    ]
    protocol_version: Required[
        Annotated[
            str,
            Meta(description="version of the evaluation protocol, Major.Minor; compare only records with the same"),
        ]
    ]
    run_id: Required[Annotated[str, Meta(description="SHA-256 of the canonical JSON of `spec`; detects edited specs")]]
    spec: Required[Annotated[Spec, Meta(description="everything that may change the results")]]
    status: Required[Annotated[Status, Meta(description="final status; only runs with `ok` are not repeated")]]
    stage: Required[Annotated[Stage | None, Meta(description="stage in which the run failed")]]
    error: Required[Annotated[Error | None, Meta(description="why the run failed; `null` for `ok`")]]
    source: Required[Annotated[Source, Meta(description="source of the numbers")]]
    data: Required[Annotated[Data, Meta(description="the dataset")]]
    evaluations: Required[
        Annotated[list[Evaluation], Meta(description="one entry per evaluation variant; empty for runs without scores")]
    ]
    efficiency: Required[Annotated[Efficiency, Meta(description="parameters, FLOPs, time and memory")]]
    environment: Required[
        Annotated[
            dict[str, str | bool | Finite | None],
            Meta(
                description="versions of Python, torch, CUDA, cuDNN and driver; GPU, CPU, cores, threads; "
                "`git_commit`, `git_dirty` (`git_problem` if git fails), `packages_hash`, `deterministic`"
            ),
        ]
    ]
    timing: Required[Annotated[Timing, Meta(description="time and duration")]]
    pictures: Annotated[list[str] | None, Meta(description="file names of figures, relative to the folder of the run")]
    request: Annotated[
        Asked | None,
        Meta(
            description="settings given by the user; the report uses them in its commands if a recipe file or plug-in "
            "is not part of the repository"
        ),
    ]
    ray_trial_id: Annotated[str | None, Meta(description="id of the Ray Tune trial that ran it; for information only")]
    attempts: Annotated[Whole, Meta(description="number of times the run was started")]
    mlflow_run_id: Annotated[
        str | None,
        Meta(
            description="always `null`; kept for compatibility. A record does not depend on tracking; `.mlflow.json` "
            "next to it identifies the run in MLflow (`uri`, `run`, `attempts`)"
        ),
    ]


def new(spec: RunSpec, *, source: Source = "trained") -> Record:
    """Returns an empty record of a run, which is filled stage by stage; its status is `interrupted` until the end."""
    return Record(
        schema_version=SCHEMA_VERSION,
        protocol_version=spec.protocol,
        run_id=spec.run_id,
        spec=spec.to_dict(),  # type: ignore[typeddict-item]
        status="interrupted",
        stage=None,
        error={"type": "Interrupted", "message": "The run has not ended.", "log_tail": ""},
        source=source,
        data={"layout": "", "generated": None, "notes": {}, "count_mismatch": [], "splits": {}},
        evaluations=[],
        efficiency={},
        environment={},
        timing={"started": None, "ended": None, "seconds": {}},
        mlflow_run_id=None,
        ray_trial_id=None,
        attempts=1,
    )


def matched(evaluation: Mapping[str, Any]) -> str:
    """Returns '7 of 100 queries have a match', to show next to a score; empty if all have one or it is unknown."""
    valid, queries = evaluation.get("n_valid"), evaluation.get("n_query")
    if valid is None or queries is None or valid == queries:
        return ""
    return f"{valid:,} of {queries:,} queries {'has' if valid == 1 else 'have'} a match"


def validate(record: Any) -> list[str]:
    """Returns the problems of a record of the current schema, one sentence each; an empty list if it is valid."""
    if not isinstance(record, dict):
        return ["it is not a JSON object"]
    try:
        msgspec.convert(record, Record)
    except msgspec.ValidationError as error:
        return [str(explained(error, Record, record, "")).rstrip(".")]
    problems = _outcome(record)
    for i, evaluation in enumerate(record["evaluations"]):
        problems += _evaluation(evaluation, f"evaluations[{i}]")
    if hashlib.sha256(canonical(record["spec"]).encode()).hexdigest() != record["run_id"]:
        problems.append("run_id is not the hash of spec, so one of them was edited")
    return problems


def _outcome(record: dict[str, Any]) -> list[str]:
    """Checks that status, error and evaluations are consistent."""
    problems = []
    status, error = record["status"], record["error"]
    if status == "ok" and error is not None:
        problems.append("status is ok but there is an error")
    if status != "ok" and not (error and isinstance(error.get("message"), str)):
        problems.append(f"status is {status} but error.message is missing")
    if status == "ok" and record["source"] in SCORED and not record["evaluations"]:
        problems.append("status is ok but there is no evaluation")
    return problems


def _evaluation(evaluation: dict[str, Any], where: str) -> list[str]:
    problems = []
    if evaluation["cmc"] != sorted(evaluation["cmc"]):
        problems.append(f"{where}.cmc decreases")
    if evaluation["n_valid"] > evaluation["n_query"]:
        problems.append(f"{where} has {evaluation['n_valid']} valid of {evaluation['n_query']} queries")
    return problems
