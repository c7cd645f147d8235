"""`export`: a trained network as an ONNX or torch.export file."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import completion
from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.networks import network_options, network_settings
from harness.cli.options import UserPath, data_root_option
from harness.cli.tables import prose
from harness.system.redact import readable


@grouped(
    exit_codes={
        0: "The file is written, and computes the features of PyTorch.",
        1: "The network cannot be exported, or the file differs from PyTorch; no file is kept.",
        2: "Wrong usage or bad data.",
    },
    example="python -m harness export --run 3f2a --dataset market1501 --out network.onnx",
)
@network_options
@option(MAIN, "--out", required=True, metavar="FILE", type=UserPath(), help="File to write, .onnx or .pt2.")
@option(
    MAIN,
    "--format",
    "form",
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    show_default=True,
    help="ONNX, or torch.export (.pt2).",
)
@option(
    MAIN,
    "--dataset",
    default="",
    metavar="NAME",
    shell_complete=completion.one(completion.datasets),
    help="Dataset to compare mAP on, and to calibrate int8 with.",
)
@option(
    MAIN,
    "--normalization",
    type=click.Choice(["inside", "outside"]),
    default="inside",
    show_default=True,
    help="Inside: the file reads uint8. Outside: normalised floats.",
)
@option(
    MAIN,
    "--camera",
    default="",
    metavar="input|mean|N",
    show_default="mean",
    help="Cameras: an input, the mean of the trained ones, or camera N.",
)
@option(
    MAIN,
    "--batch",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    show_default="any number",
    help="Fixed number of images per call.",
)
@option(
    MAIN,
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the ONNX file.",
)
@option(
    MAIN,
    "--calibration",
    type=click.IntRange(1),
    default=128,
    metavar="N",
    show_default=True,
    help="Training images that calibrate int8.",
)
@option(MAIN, "--opset", type=int, default=18, metavar="N", show_default=True, help="ONNX opset, 18 to 23.")
@data_root_option
def command(backbone: str, **values: Any) -> int:
    """Write a trained network as an ONNX or torch.export file, and compare it with PyTorch.

    Features of generated images must agree to 1e-4, and with --dataset also its features and its mAP. Otherwise no file
    is kept. The file contains its origin, licences, input contract and the comparison; see docs/deploy.md.
    """
    import harness

    found = network_settings(values)
    result = harness.export(
        backbone,
        format=values["form"],
        normalize=values["normalization"] == "inside",
        progress=lambda step: click.echo(f"  {step}"),
        **{name: value for name, value in found.items() if name not in ("form", "normalization")},
    )
    about = result.about
    for name in ("input", "cameras", "output"):
        click.echo(prose(f"{about['contract'][name]}", "    ", "  "))
    for sentence in result.sentences:
        click.echo(prose(readable(sentence), "    ", "  "))
    size = result.path.stat().st_size / 1e6
    click.echo(f"Wrote {readable(str(result.path))}, {size:.1f} MB, in {result.seconds:.0f} s.")
    return 0
