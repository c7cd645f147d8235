"""What a record holds, declared once: the check of a record and the tables of docs/records.md come from these types."""

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
    """Everything that may change the number; see `harness.spec.run_spec.RunSpec`."""

    backbone: Required[Annotated[str, Meta(description="registered name, with the variant: `reidmamba:baseline`")]]
    dataset: Required[Annotated[str, Meta(description="dataset that is trained on, or whose images are scored")]]
    recipe: Required[Annotated[str, Meta(description="name of the recipe")]]
    values: Required[Annotated[SpecValues, Meta(description="every value of the recipe; a soft margin is -1")]]
    options: Required[Annotated[dict[str, Any], Meta(description="every build option of the backbone")]]
    seed: Required[Annotated[Seed, Meta(description="seed of everything random")]]
    device: Required[Annotated[str, Meta(description="`cpu` or `cuda`")]]
    protocol: Required[Annotated[str, Meta(description="version of the evaluation protocol, Major.Minor")]]
    torch: Annotated[str | None, Meta(description="Major.Minor of torch")]
    source: Annotated[str | None, Meta(description="hash of the backbone's files")]
    pretrained: Annotated[
        str | None, Meta(description="checksum or timm tag of the starting weights, or of the file that is scored")
    ]
    fingerprint: Annotated[str | None, Meta(description="hash of what was read of the dataset")]
    dataset_options: Annotated[
        dict[str, dict[str, Any]] | None, Meta(description="reader options of the user, by dataset")
    ]
    evaluate_on: Annotated[list[Pair] | None, Meta(description="name and fingerprint of each further dataset")]
    purpose: Annotated[
        str | None, Meta(description="what the run is for: `test`, `search`, `checkpoint`, `features` or `profile`")
    ]
    holdout: Annotated[dict[str, Any] | None, Meta(description="seed and share of the held-out identities of a search")]


class Error(TypedDict, total=False):
    """Why a run did not end well."""

    type: Annotated[str | None, Meta(description="class of the exception")]
    message: Annotated[str, Meta(description="the reason, a sentence")]
    log_tail: Annotated[str | None, Meta(description="last lines of the log")]


class ImageSizes(TypedDict, total=False):
    """Sizes of the images of a split."""

    height: Annotated[list[Number] | None, Meta(description="least, median and greatest, in pixels")]
    width: Annotated[list[Number] | None, Meta(description="likewise")]
    distinct: Annotated[Whole | None, Meta(description="number of distinct sizes")]


class Data(TypedDict, total=False):
    """What was read of the dataset of the run."""

    layout: Annotated[str | None, Meta(description="layout that was found, for example `msmt17-v1`")]
    generated: Annotated[
        dict[str, Any] | None, Meta(description="how the stand-in was generated; `null` for real data")
    ]
    notes: Annotated[
        dict[str, Any] | None,
        Meta(
            description="facts about the files. `image_sizes`: the images are a resized copy; `junk`: images that the "
            "reader left out; `row_order` and `rows_left_out`: how rows of stored features found their images, see "
            "[features.md](features.md)"
        ),
    ]
    count_mismatch: Annotated[
        list[str] | None, Meta(description="how the counts differ from the card, in sentences; empty if they do not")
    ]
    splits: Annotated[
        dict[str, dict[str, Whole]] | None,
        Meta(description="`images`, `identities` and `cameras` of `train`, `query` and `gallery`"),
    ]
    image_sizes: Annotated[dict[str, ImageSizes] | None, Meta(description="sizes of the images, by split")]
    error: Annotated[
        str | None, Meta(description="of a further dataset that could not be scored: why; the run itself is `ok`")
    ]
    evaluated: Annotated[dict[str, "Data"] | None, Meta(description="the same keys for each further dataset")]


Evaluation = TypedDict(
    "Evaluation",
    {
        "dataset": Required[
            Annotated[
                str,
                Meta(description="what was scored; another name than `spec.dataset` is a cross-domain result"),
            ]
        ],
        "trained": Required[
            Annotated[
                bool,
                Meta(
                    description="`false` for the further score of the model before its training; `true` for the result "
                    "of a run, also with `training.epochs = 0`"
                ),
            ]
        ],
        "flip": Required[Annotated[bool, Meta(description="whether features were averaged over the mirrored image")]],
        "rerank": Required[
            Annotated[
                bool,
                Meta(description="whether k-reciprocal re-ranking was used; never under `cuhk03-classic`"),
            ]
        ],
        "metric": Required[Annotated[str, Meta(description="`cosine` or `euclidean`")]],
        "protocol": Annotated[str | None, Meta(description="evaluation rule of the dataset's card")],
        "mAP": Required[Annotated[Fraction, Meta(description="mean average precision over the valid queries")]],
        "mINP": Required[Annotated[Fraction | None, Meta(description="mean inverse negative penalty, likewise")]],
        "rank-1": Required[
            Annotated[
                Fraction,
                Meta(
                    description="share of them with a match at rank 1; under `cuhk03-classic` a mean over 10 drawn "
                    "galleries per query, of one image per identity"
                ),
            ]
        ],
        "rank-5": Required[Annotated[Fraction, Meta(description="likewise, up to rank 5")]],
        "rank-10": Required[Annotated[Fraction, Meta(description="likewise, up to rank 10")]],
        "cmc": Required[
            Annotated[
                list[Fraction],
                Meta(description="rank 1, 2, ... up to the recipe's `max_rank`; the three ranks do not depend on it"),
            ]
        ],
        "n_query": Required[Annotated[Whole, Meta(description="number of queries")]],
        "n_valid": Required[
            Annotated[Whole, Meta(description="queries whose identity the gallery has under another camera")]
        ],
        "n_gallery": Required[Annotated[Whole, Meta(description="number of gallery images")]],
        "n_junk": Annotated[
            Whole | None,
            Meta(
                description="gallery images of negative identity that reached the evaluation; readers leave them out "
                "before, and count them in `data.notes.junk`"
            ),
        ],
        "tied_queries": Annotated[Whole | None, Meta(description="queries whose order depends on equal distances")],
        "interval": Required[
            Annotated[
                dict[str, Bounds],
                Meta(
                    description="95 % bounds of `mAP` and `rank-1`, a bootstrap over the identities of the queries; "
                    "empty where there is one identity"
                ),
            ]
        ],
        "per_query": Annotated[str | None, Meta(description="name of the file with the values per query")],
    },
    total=False,
)
Evaluation.__doc__ = "One way of scoring the model."


class TakenOver(TypedDict, total=False):
    """The run whose checkpoint this one began with."""

    run_id: Annotated[str | None, Meta(description="of that run")]
    epochs: Annotated[Whole | None, Meta(description="epochs of the checkpoint")]


class Conditions(TypedDict, total=False):
    """Who else was at work while time was measured."""

    fixed_work_ms: Annotated[list[Number] | None, Meta(description="time of a fixed matrix product, before and after")]
    others_cores: Annotated[Number | None, Meta(description="mean number of cores that other processes kept busy")]
    load_average: Annotated[Number | None, Meta(description="of the last minute, before")]
    drift: Annotated[Number | None, Meta(description="second half of the repeats over the first")]
    notes: Annotated[list[str] | None, Meta(description="what casts doubt on the figures, in sentences")]


class Efficiency(TypedDict, total=False):
    """What the model costs. A profile record is one device, precision, batch and input size."""

    parameters: Annotated[Whole | None, Meta(description="number of parameters")]
    parameters_inference: Annotated[Whole | None, Meta(description="those that the test-time feature uses")]
    parameters_trained: Annotated[Whole | None, Meta(description="those that get gradients; profile")]
    flops: Annotated[Number | None, Meta(description="of one image; a multiply-add is two")]
    inference_images_per_second: Annotated[Number | None, Meta(description="median throughput in evaluation mode")]
    batch_size: Annotated[Whole | None, Meta(description="images at once")]
    precision: Annotated[str | None, Meta(description="`fp32`, `bf16` or `fp16`")]
    image_size: Annotated[Size | None, Meta(description="height and width, in pixels")]
    device: Annotated[str | None, Meta(description="`cpu` or `cuda`")]
    threads: Annotated[Whole | None, Meta(description="CPU threads")]
    scan: Annotated[str | None, Meta(description="implementation of the selective scan that ran")]
    conditions: Annotated[Conditions | None, Meta(description="what else the machine did meanwhile")]
    peak_memory_bytes: Annotated[
        Number | None, Meta(description="most memory of the epochs trained in this process, or of the profiled call")
    ]
    train_images_per_second: Annotated[
        Number | None, Meta(description="of the epochs trained in this process; `null` if there were none")
    ]
    train_batch_size: Annotated[Whole | None, Meta(description="images in a training step")]
    train_precision: Annotated[str | None, Meta(description="precision of training")]
    skipped_steps: Annotated[
        Whole | None,
        Meta(
            description="training steps that the float16 loss scaler skipped because the loss or its gradients were "
            "not finite"
        ),
    ]
    epochs: Annotated[Whole | None, Meta(description="epochs of the trained model")]
    resumed_at_epoch: Annotated[Whole | None, Meta(description="epoch of the checkpoint that this process resumed")]
    taken_over: Annotated[
        TakenOver | None,
        Meta(
            description="the run whose checkpoint this one began with: same backbone, dataset, seed, training recipe, "
            "weights, device and training images"
        ),
    ]
    measure: Annotated[str | None, Meta(description="`inference` or `training`; profile")]
    compiled: Annotated[bool | None, Meta(description="whether `torch.compile` was used; profile")]
    latency_ms: Annotated[Number | None, Meta(description="median wall clock time of a batch; profile")]
    latency_cpu_ms: Annotated[Number | None, Meta(description="processor time of it over all threads; profile")]
    latency_quartiles_ms: Annotated[Quartiles | None, Meta(description="first and third quartile; profile")]
    train_step_ms: Annotated[Number | None, Meta(description="median wall clock time of a training step; profile")]
    train_step_cpu_ms: Annotated[Number | None, Meta(description="processor time of it over all threads; profile")]
    train_step_quartiles_ms: Annotated[Quartiles | None, Meta(description="first and third quartile; profile")]
    repeats: Annotated[Whole | None, Meta(description="how often it was timed; profile")]
    relative_error: Annotated[Number | None, Meta(description="standard error of the median over the median; profile")]
    first_call_seconds: Annotated[
        Number | None, Meta(description="first call, with what it compiles and starts; profile")
    ]
    memory_bytes: Annotated[
        dict[str, Number | None] | None,
        Meta(
            description="parts of the peak: `weights`, `inputs`, `activations`; in training also `gradients` and "
            "`optimizer_state`; profile"
        ),
    ]
    threads_pinned: Annotated[bool | None, Meta(description="whether threads kept their cores; profile")]


class Timing(TypedDict, total=False):
    """When the run took place."""

    started: Annotated[str | None, Meta(description="ISO 8601, UTC")]
    ended: Annotated[str | None, Meta(description="likewise")]
    seconds: Annotated[dict[str, Number] | None, Meta(description="by stage")]


class Asked(TypedDict, total=False):
    """What was typed, which `spec` holds only with all defaults."""

    recipe: Annotated[str | None, Meta(description="name or path")]
    about: Annotated[str | None, Meta(description="what the recipe says of itself")]
    preset: Annotated[str | None, Meta(description="name of the preset")]
    options: Annotated[dict[str, Any] | None, Meta(description="build options")]
    set: Annotated[dict[str, Any] | None, Meta(description="recipe keys")]


class Record(TypedDict, total=False):
    """One run, as `record.json` holds it."""

    schema_version: Required[
        Annotated[int, Meta(description="now 1. Older ones are migrated when read, the file stays; newer ones refused")]
    ]
    protocol_version: Required[
        Annotated[str, Meta(description="Major.Minor of the evaluation protocol; only equal ones compare")]
    ]
    run_id: Required[
        Annotated[str, Meta(description="SHA-256 of the canonical JSON of `spec`; an edited record is noticed by it")]
    ]
    spec: Required[Annotated[Spec, Meta(description="everything that may change the number")]]
    status: Required[Annotated[Status, Meta(description="how it ended; only `ok` satisfies the cache")]]
    stage: Required[Annotated[Stage | None, Meta(description="where it ended")]]
    error: Required[Annotated[Error | None, Meta(description="why it did not end well")]]
    source: Required[Annotated[Source, Meta(description="where the numbers come from")]]
    data: Required[Annotated[Data, Meta(description="what was read")]]
    evaluations: Required[
        Annotated[list[Evaluation], Meta(description="one entry per way of scoring; empty unless the run was scored")]
    ]
    efficiency: Required[Annotated[Efficiency, Meta(description="parameters, FLOPs, time and memory")]]
    environment: Required[
        Annotated[
            dict[str, str | bool | Finite | None],
            Meta(
                description="versions of Python, torch, CUDA, cuDNN and driver; GPU, CPU, cores, threads; "
                "`git_commit`, `git_dirty` (where git does not tell: `git_problem`), `packages_hash`, `deterministic`"
            ),
        ]
    ]
    timing: Required[Annotated[Timing, Meta(description="when, and how long")]]
    pictures: Annotated[list[str] | None, Meta(description="file names relative to the folder")]
    request: Annotated[
        Asked | None,
        Meta(
            description="what was typed; the report prints it where a recipe file or plug-in is not part of the "
            "repository"
        ),
    ]
    ray_trial_id: Annotated[str | None, Meta(description="trial of Ray Tune that ran it; a pointer, never a key")]
    attempts: Annotated[Whole, Meta(description="how often it was started")]
    mlflow_run_id: Annotated[
        str | None,
        Meta(
            description="always `null`, kept for readers of schema 1: a record is the same whether it was tracked or "
            "not. `.mlflow.json` beside the record names the run in MLflow (`uri`, `run`, `attempts`)"
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
        problems.append("run_id is not the hash of spec, so one of them was changed by hand")
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
        problems.append(f"{where}.cmc falls")
    if evaluation["n_valid"] > evaluation["n_query"]:
        problems.append(f"{where} has {evaluation['n_valid']} valid of {evaluation['n_query']} queries")
    return problems
