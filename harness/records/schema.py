"""What a record holds, declared once: the check of a record and the tables of docs/records.md come from these types."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Required, TypedDict

import msgspec
from msgspec import Meta

from harness.cards.tables import explained
from harness.spec.names import SCORED, STOPPED_EARLY, Source, Stage, Status
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
    """Everything that may change the number; `run_id` is its hash. See `RunSpec` in `harness/spec/run_spec.py`."""

    backbone: Required[
        Annotated[str, Meta(description="registered name, with the variant: `reidmamba:strong-baseline`")]
    ]
    dataset: Required[
        Annotated[str, Meta(description="dataset of the run: the model is trained on it, or its images are scored")]
    ]
    recipe: Required[Annotated[str, Meta(description="name of the recipe")]]
    values: Required[
        Annotated[
            SpecValues, Meta(description="every value of the recipe, defaults included. A soft margin is stored as -1")
        ]
    ]
    options: Required[
        Annotated[dict[str, Any], Meta(description="every build option of the backbone, defaults included")]
    ]
    seed: Required[Annotated[Seed, Meta(description="seed of all random numbers of the run")]]
    device: Required[Annotated[str, Meta(description="`cpu` or `cuda`; `mps` and `xpu` are untested")]]
    protocol: Required[Annotated[str, Meta(description="version of the evaluation protocol, Major.Minor")]]
    torch: Annotated[str | None, Meta(description="version of torch, Major.Minor")]
    source: Annotated[str | None, Meta(description="hash of the backbone's code, without comments and docstrings")]
    pretrained: Annotated[
        str | None,
        Meta(
            description="identity of the starting weights, or of the file that is scored: a checksum or a "
            "timm tag. `none` if there is no such file"
        ),
    ]
    fingerprint: Annotated[
        str | None,
        Meta(description="hash of the relative paths, sizes, identities and cameras that were read from the dataset"),
    ]
    dataset_options: Annotated[
        dict[str, dict[str, Any]] | None, Meta(description="reader options that the user gave, by dataset")
    ]
    evaluate_on: Annotated[
        list[Pair] | None, Meta(description="name and fingerprint of each further dataset that is scored")
    ]
    purpose: Annotated[
        str | None,
        Meta(
            description="what the run is for: `test`, `search`, `checkpoint`, `features` or `profile`; see "
            "the last table"
        ),
    ]
    holdout: Annotated[
        dict[str, Any] | None,
        Meta(description="seed and fraction (`share`) of the training identities that a search holds out"),
    ]


class Error(TypedDict, total=False):
    """Why a run did not end with status `ok`."""

    type: Annotated[str | None, Meta(description="class of the exception")]
    message: Annotated[str, Meta(description="the reason, in a sentence")]
    log_tail: Annotated[str | None, Meta(description="last lines of the run's log")]


class ImageSizes(TypedDict, total=False):
    """Sizes of the images of one split."""

    height: Annotated[list[Number] | None, Meta(description="smallest, median and largest height, in pixels")]
    width: Annotated[list[Number] | None, Meta(description="smallest, median and largest width, in pixels")]
    distinct: Annotated[Whole | None, Meta(description="number of different sizes")]


class Data(TypedDict, total=False):
    """The files that were read."""

    layout: Annotated[str | None, Meta(description="name of the folder layout that was found, for example `msmt17-v1`")]
    generated: Annotated[dict[str, Any] | None, Meta(description="how the images were generated; `null` for real data")]
    notes: Annotated[
        dict[str, Any] | None,
        Meta(
            description="facts about the files, by name. `image_sizes`: the images are a resized copy. "
            "`cameras`: `unknown` if the dataset has no cameras. `junk`: number of junk images that the reader left "
            "out, by split. `row_order` and `rows_left_out`: how the rows of stored features were assigned to images, "
            "see [features.md](features.md)"
        ),
    ]
    count_mismatch: Annotated[
        list[str] | None,
        Meta(
            description="differences between the counts of the card and of the files, one sentence each; "
            "empty if there are none"
        ),
    ]
    splits: Annotated[
        dict[str, dict[str, Whole]] | None,
        Meta(description="number of `images`, `identities` and `cameras` of `train`, `query` and `gallery`"),
    ]
    image_sizes: Annotated[dict[str, ImageSizes] | None, Meta(description="sizes of the images, by split")]
    error: Annotated[
        str | None,
        Meta(description="only below `evaluated`: why that dataset could not be scored. The run itself stays `ok`"),
    ]
    evaluated: Annotated[
        dict[str, "Data"] | None, Meta(description="the same keys for each further dataset, by its name")
    ]


Evaluation = TypedDict(
    "Evaluation",
    {
        "dataset": Required[
            Annotated[
                str,
                Meta(
                    description="dataset that was scored. If it is not `spec.dataset`, this is a cross-dataset result"
                ),
            ]
        ],
        "trained": Required[
            Annotated[
                bool,
                Meta(
                    description="`false` for the additional score of the model before training; `true` for the "
                    "result of a run, also with `training.epochs = 0`"
                ),
            ]
        ],
        "flip": Required[
            Annotated[
                bool,
                Meta(
                    description="whether this is the flip test: the mean of the features of the image and its mirror "
                    "image"
                ),
            ]
        ],
        "rerank": Required[
            Annotated[
                bool,
                Meta(description="whether k-reciprocal re-ranking was used; always `false` under `cuhk03-classic`"),
            ]
        ],
        "metric": Required[
            Annotated[str, Meta(description="distance that ranks the gallery: `cosine` or `euclidean`")]
        ],
        "protocol": Annotated[
            str | None, Meta(description="evaluation rule of the dataset's card: `standard` or `cuhk03-classic`")
        ],
        "mAP": Required[Annotated[Fraction, Meta(description="mean average precision over the valid queries")]],
        "mINP": Required[
            Annotated[Fraction | None, Meta(description="mean inverse negative penalty over the valid queries")]
        ],
        "rank-1": Required[
            Annotated[
                Fraction,
                Meta(
                    description="fraction of valid queries with a match at rank 1. Under `cuhk03-classic`: mean over "
                    "10 galleries per query, drawn with one image per identity"
                ),
            ]
        ],
        "rank-5": Required[
            Annotated[Fraction, Meta(description="fraction of valid queries with a match among the first 5")]
        ],
        "rank-10": Required[
            Annotated[Fraction, Meta(description="fraction of valid queries with a match among the first 10")]
        ],
        "cmc": Required[
            Annotated[
                list[Fraction],
                Meta(
                    description="CMC curve from rank 1 to the recipe's `max_rank`; the three ranks above do not "
                    "depend on `max_rank`"
                ),
            ]
        ],
        "n_query": Required[Annotated[Whole, Meta(description="number of queries")]],
        "n_valid": Required[
            Annotated[
                Whole,
                Meta(description="number of valid queries: those with a match in the gallery under another camera"),
            ]
        ],
        "n_gallery": Required[Annotated[Whole, Meta(description="number of gallery images")]],
        "n_junk": Annotated[
            Whole | None,
            Meta(
                description="number of gallery images with a negative identity that reached the evaluation. "
                "Readers leave junk out earlier and count it in `data.notes.junk`"
            ),
        ],
        "tied_queries": Annotated[
            Whole | None, Meta(description="number of queries whose AP is lower because a negative ties with a match")
        ],
        "interval": Required[
            Annotated[
                dict[str, Bounds],
                Meta(
                    description="95 % intervals of `mAP` and `rank-1` as `[low, high]`, by a bootstrap over the "
                    "identities of the queries; empty if there is only one identity"
                ),
            ]
        ],
        "per_query": Annotated[str | None, Meta(description="name of the file with the values of each query")],
    },
    total=False,
)
Evaluation.__doc__ = (
    "One scored ranking. The plain test, the flip test, re-ranking and further datasets have entries of their own."
)


class AuditRow(TypedDict, total=False):
    """One measured value. Rows of one name whose settings have the same two keys are a matrix."""

    name: Required[Annotated[str, Meta(description="what is measured, for example `mAP`")]]
    setting: Required[
        Annotated[
            dict[str, str | int | Finite],
            Meta(description='under what: `{}` for the plain test, `{"cameras": "off"}`, `{"FPIR": 0.01}`'),
        ]
    ]
    value: Required[Annotated[Finite | None, Meta(description="the value; `null` if it is not defined")]]
    interval: Annotated[
        Bounds | None, Meta(description="95 % interval as `[low, high]`, by a bootstrap over identities")
    ]
    queries: Annotated[Whole | None, Meta(description="number of queries behind the value")]


class Audit(TypedDict, total=False):
    """What one audit found on one dataset, see [audits.md](audits.md)."""

    check: Required[Annotated[str, Meta(description="name of the audit, for example `camera`")]]
    dataset: Required[Annotated[str, Meta(description="dataset whose query and gallery were looked at")]]
    about: Annotated[str | None, Meta(description="what the audit asks, in one sentence")]
    source: Annotated[str | None, Meta(description="where its names and definitions come from")]
    rows: Required[Annotated[list[AuditRow], Meta(description="measured values")]]
    notes: Annotated[list[str] | None, Meta(description="what the reader should know, one sentence each")]
    error: Annotated[str | None, Meta(description="why the audit failed. The run itself stays `ok`")]


class TakenOver(TypedDict, total=False):
    """The run whose checkpoint this run started from."""

    run_id: Annotated[str | None, Meta(description="id of that run")]
    epochs: Annotated[Whole | None, Meta(description="number of epochs that the checkpoint was trained for")]


class Conditions(TypedDict, total=False):
    """What else the machine did during the measurement."""

    fixed_work_ms: Annotated[
        list[Number] | None,
        Meta(
            description="time of a fixed matrix product before and after, in milliseconds; on a CPU it is "
            "processor time"
        ),
    ]
    others_cores: Annotated[Number | None, Meta(description="mean number of cores that other processes kept busy")]
    foreign_gpu_bytes: Annotated[
        Number | None, Meta(description="GPU memory that other processes held, in bytes; on a GPU only")
    ]
    load_average: Annotated[Number | None, Meta(description="load average of the last minute before the measurement")]
    drift: Annotated[
        Number | None,
        Meta(
            description="median time of the second half of the repeats over that of the first half; 1 on a "
            "steady machine"
        ),
    ]
    notes: Annotated[
        list[str] | None,
        Meta(description="reasons to doubt the measurement, one sentence each; empty if there are none"),
    ]


class Efficiency(TypedDict, total=False):
    """What the model costs. A key marked “profile” is in profile records only.

    Such a record is about one device, precision, batch size and input size.
    """

    parameters: Annotated[Whole | None, Meta(description="number of parameters")]
    parameters_inference: Annotated[
        Whole | None, Meta(description="number of parameters that the test-time feature depends on")
    ]
    parameters_trained: Annotated[Whole | None, Meta(description="number of parameters that get gradients; profile")]
    flops: Annotated[Number | None, Meta(description="operations for one image; a multiply-add counts as two")]
    inference_images_per_second: Annotated[Number | None, Meta(description="median throughput in evaluation mode")]
    batch_size: Annotated[Whole | None, Meta(description="images per batch")]
    precision: Annotated[str | None, Meta(description="`fp32`, `bf16` or `fp16`")]
    image_size: Annotated[Size | None, Meta(description="height and width, in pixels")]
    device: Annotated[str | None, Meta(description="`cpu` or `cuda`")]
    threads: Annotated[Whole | None, Meta(description="number of CPU threads")]
    scan: Annotated[str | None, Meta(description="implementation of the selective scan that ran")]
    conditions: Annotated[Conditions | None, Meta(description="what else the machine did during the measurement")]
    peak_memory_bytes: Annotated[
        Number | None,
        Meta(
            description="peak memory of the epochs trained in this process, the first if there were several, or of the "
            "profiled call"
        ),
    ]
    train_images_per_second: Annotated[
        Number | None,
        Meta(description="training throughput of the epochs trained in this process; `null` if there were none"),
    ]
    train_processes: Annotated[
        Whole | None,
        Meta(description="number of processes that trained together, on GPUs one per GPU; absent in older records: 1"),
    ]
    train_batch_size: Annotated[Whole | None, Meta(description="images per training step")]
    train_precision: Annotated[str | None, Meta(description="precision of training")]
    skipped_steps: Annotated[
        Whole | None,
        Meta(
            description="number of training steps that were skipped because float16 gave a loss or gradients "
            "that are not finite"
        ),
    ]
    epochs: Annotated[Whole | None, Meta(description="number of epochs that the model was trained for")]
    resumed_at_epoch: Annotated[
        Whole | None, Meta(description="epoch of the checkpoint that this process resumed from")
    ]
    taken_over: Annotated[
        TakenOver | None,
        Meta(
            description="the run whose checkpoint this run started from: its training is the same in "
            "backbone, dataset, seed, recipe, weights, device and images"
        ),
    ]
    measure: Annotated[str | None, Meta(description="`inference` or `training`; profile")]
    compiled: Annotated[bool | None, Meta(description="whether `torch.compile` was used; profile")]
    latency_ms: Annotated[Number | None, Meta(description="median wall-clock time per batch, in milliseconds; profile")]
    latency_cpu_ms: Annotated[
        Number | None, Meta(description="median processor time per batch over all threads, in milliseconds; profile")
    ]
    latency_quartiles_ms: Annotated[
        Quartiles | None, Meta(description="first and third quartile of `latency_ms`; profile")
    ]
    train_step_ms: Annotated[
        Number | None, Meta(description="median wall-clock time per training step, in milliseconds; profile")
    ]
    train_step_cpu_ms: Annotated[
        Number | None,
        Meta(description="median processor time per training step over all threads, in milliseconds; profile"),
    ]
    train_step_quartiles_ms: Annotated[
        Quartiles | None, Meta(description="first and third quartile of `train_step_ms`; profile")
    ]
    repeats: Annotated[Whole | None, Meta(description="number of timed repeats; profile")]
    relative_error: Annotated[
        Number | None, Meta(description="standard error of the median divided by the median; profile")
    ]
    first_call_seconds: Annotated[
        Number | None, Meta(description="time of the first call, which includes compilation and start-up; profile")
    ]
    memory_bytes: Annotated[
        dict[str, Number | None] | None,
        Meta(
            description="memory by part: `weights`, `inputs`, `activations`; in training also `gradients` "
            "and `optimizer_state`; profile"
        ),
    ]
    threads_pinned: Annotated[
        bool | None, Meta(description="whether the process was bound to as many cores as it has threads; profile")
    ]


class Timing(TypedDict, total=False):
    """When the run took place."""

    started: Annotated[str | None, Meta(description="start, in ISO 8601 and UTC")]
    ended: Annotated[str | None, Meta(description="end, in ISO 8601 and UTC")]
    seconds: Annotated[
        dict[str, Number] | None,
        Meta(description="duration of each stage, in seconds; `train` with the epochs of earlier attempts"),
    ]


class Asked(TypedDict, total=False):
    """What the user gave. `spec` holds the same settings with all defaults filled in."""

    recipe: Annotated[str | None, Meta(description="name or path of the recipe")]
    about: Annotated[str | None, Meta(description="description in the recipe")]
    preset: Annotated[str | None, Meta(description="name of the preset")]
    options: Annotated[dict[str, Any] | None, Meta(description="build options")]
    set: Annotated[dict[str, Any] | None, Meta(description="recipe keys that were changed with `--set`")]
    train_time: Annotated[str | None, Meta(description="time of training per run, if it sets the number of epochs")]


class Record(TypedDict, total=False):
    """One run, as `record.json` holds it."""

    schema_version: Required[
        Annotated[
            int,
            Meta(
                description="version of this schema, now 1. A record of an older version is migrated when it is "
                "read; the file is not changed. A record of a newer version is refused"
            ),
        ]
    ]
    protocol_version: Required[
        Annotated[
            str,
            Meta(description="version of the evaluation protocol, Major.Minor. Compare only results of equal versions"),
        ]
    ]
    run_id: Required[
        Annotated[
            str,
            Meta(
                description="SHA-256 of the canonical JSON of `spec`. A record that was edited by hand is "
                "detected by it"
            ),
        ]
    ]
    spec: Required[Annotated[Spec, Meta(description="everything that may change the number")]]
    status: Required[Annotated[Status, Meta(description="how the run ended. Only a run with `ok` is not repeated")]]
    stage: Required[Annotated[Stage | None, Meta(description="stage at which the run ended")]]
    error: Required[Annotated[Error | None, Meta(description="why the run did not end with `ok`")]]
    source: Required[Annotated[Source, Meta(description="where the numbers come from; see the last table")]]
    data: Required[Annotated[Data, Meta(description="the files that were read")]]
    evaluations: Required[
        Annotated[list[Evaluation], Meta(description="one entry per scored ranking; empty if nothing was scored")]
    ]
    efficiency: Required[Annotated[Efficiency, Meta(description="parameters, FLOPs, time and memory")]]
    environment: Required[
        Annotated[
            dict[str, str | bool | Finite | None],
            Meta(
                description="versions of Python, torch, CUDA, cuDNN and driver; GPU, CPU, cores; `git_commit`, "
                "`git_dirty` (or `git_problem` if git cannot tell), `packages_hash`, `deterministic`"
            ),
        ]
    ]
    timing: Required[Annotated[Timing, Meta(description="start, end and duration")]]
    start: Annotated[
        str | None,
        Meta(
            description="what training started from: `none` (random weights), `ImageNet-1k`, `ImageNet-21k`, `CLIP`, "
            "`people: NAME` and others; `unknown` if the card does not tell"
        ),
    ]
    audits: Annotated[
        list[Audit] | None,
        Meta(description="what `--audit` or the command `audit` found; absent if no audit was asked for"),
    ]
    pictures: Annotated[
        list[str] | None, Meta(description="file names of the pictures, relative to the folder of the run")
    ]
    request: Annotated[
        Asked | None,
        Meta(
            description="what the user gave. The report prints it if a recipe file or plug-in is not part of "
            "the repository"
        ),
    ]
    ray_trial_id: Annotated[
        str | None, Meta(description="id of the Ray Tune trial that executed the run, for reference only")
    ]
    attempts: Annotated[Whole, Meta(description="number of times the run was started")]
    mlflow_run_id: Annotated[
        str | None,
        Meta(
            description="always `null`, so that a record is the same with and without tracking. "
            "`.mlflow.json` beside the record names the run in MLflow (`uri`, `run`, `attempts`)"
        ),
    ]


def new(spec: RunSpec, *, source: Source = "trained") -> Record:
    """Returns an empty record of a run, to be filled stage by stage; until then it is `interrupted`."""
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


def ended(record: Mapping[str, Any]) -> str:
    """How a run ended: its status, or `stopped` for a trial that its search ended early."""
    return "stopped" if (record["error"] or {}).get("type") == STOPPED_EARLY else str(record["status"])


def matched(evaluation: Mapping[str, Any]) -> str:
    """'7 of 100 queries have a match', to stand beside a score; empty where all have one or it is not recorded."""
    valid, queries = evaluation.get("n_valid"), evaluation.get("n_query")
    if valid is None or queries is None or valid == queries:
        return ""
    return f"{valid:,} of {queries:,} queries {'has' if valid == 1 else 'have'} a match"


def validate(record: Any) -> list[str]:
    """Returns what is wrong with a record of the present schema, one sentence each; empty if nothing is."""
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
    """Status, error and evaluations must tell one story."""
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
