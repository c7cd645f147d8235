"""Forms of the selective scan in ONNX: nodes, duration of the export, and processor time per call of onnxruntime.

    python -m benchmarks.exported_scan --batch 4

Every form computes both directions of one layer of ReIDMamba (small) at 256x128: 140 steps, 768 channels, 16 states.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.selective_scan import ScanInputs, bidirectional_scan
from benchmarks.machine import describe

CHANNELS, STATES, LENGTH, CHUNK = 768, 16, 140, 20
One = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def states_last(u: Tensor, d: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Scan with the state as [B, D, N], which is the layout of the plain implementation."""
    from torch._higher_order_ops.scan import scan

    def step(state: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        u, d, B, C = at
        state = torch.exp(d.unsqueeze(-1) * A) * state + (d * u).unsqueeze(-1) * B.unsqueeze(1)
        return state, torch.matmul(state, C.unsqueeze(-1)).squeeze(-1)

    start = u.new_zeros(u.shape[0], CHANNELS, STATES)
    return scan(step, start, tuple(t.permute(2, 0, 1) for t in (u, d, B, C)), dim=0)[1].permute(1, 2, 0)


def _doubled(decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states after each step by recursive doubling along the last axis."""
    shift = 1
    while shift < state.shape[-1]:
        state = state + decay * F.pad(state[..., :-shift], (shift, 0))
        decay = decay * F.pad(decay[..., :-shift], (shift, 0), value=1.0)
        shift *= 2
    return decay, state


def _terms(u: Tensor, d: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return torch.exp(d.unsqueeze(2) * A[None, :, :, None]), (d * u).unsqueeze(2) * B.unsqueeze(1)


def doubling(u: Tensor, d: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Recursive doubling over the whole sequence."""
    return (_doubled(*_terms(u, d, A, B))[1] * C.unsqueeze(1)).sum(2)


def chunks(u: Tensor, d: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Recursive doubling in chunks, one after the other."""
    decays, terms = _terms(u, d, A, B)
    before, out = None, []
    for first in range(0, LENGTH, CHUNK):
        part = slice(first, first + CHUNK)
        decay, state = _doubled(decays[..., part], terms[..., part])
        state = state if before is None else state + decay * before
        before = state[..., -1:]
        out.append((state * C[:, None, :, part]).sum(2))
    return torch.cat(out, -1)


def unrolled(u: Tensor, d: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Every step as nodes of its own."""
    state, out = u.new_zeros(u.shape[0], CHANNELS, STATES), []
    for t in range(LENGTH):
        size = d[:, :, t, None]
        state = torch.exp(size * A) * state + size * u[:, :, t, None] * B[:, None, :, t]
        out.append(torch.matmul(state, C[:, :, t, None]))
    return torch.cat(out, -1)


class Both(nn.Module):
    """Both directions, by the harness (`form` is None) or by a form of this file."""

    def __init__(self, form: One | None, A: Tensor) -> None:
        super().__init__()
        self.form, self.A = form, nn.Parameter(A, requires_grad=False)

    def forward(self, u: Tensor, d: Tensor, B: Tensor, C: Tensor) -> Tensor:
        if self.form is None:
            inputs = ScanInputs(u, d, self.A, B, C)
            return bidirectional_scan(inputs, inputs, delta_softplus=False)
        back = self.form(*(t.flip(2) for t in (u, d)), self.A, *(t.flip(2) for t in (B, C))).flip(2)
        return (self.form(u, d, self.A, B, C) + back) / 2


FORMS: dict[str, One | None] = {
    "Scan, channels last (chosen)": None,
    "Scan, states last": states_last,
    "unrolled": unrolled,
    "doubling in chunks": chunks,
    "doubling": doubling,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    print(describe(asked.threads, torch.device("cpu")), flush=True)
    print("| form | nodes | export | processor time per call |\n|---|---|---|---|", flush=True)
    torch.manual_seed(0)
    u, B, C = (torch.randn(asked.batch, width, LENGTH) for width in (CHANNELS, STATES, STATES))
    inputs, A = (u, F.softplus(torch.randn_like(u) - 2), B, C), -8 * torch.rand(CHANNELS, STATES)
    expected = Both(None, A)(*inputs)
    for name, form in FORMS.items():
        row(name, Both(form, A), inputs, expected, asked.threads)


def row(name: str, module: Both, inputs: tuple[Tensor, ...], expected: Tensor, threads: int) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) * len(inputs)
    started = time.perf_counter()
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(program, dynamo=True, opset_version=18, verbose=False)
    seconds = time.perf_counter() - started
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.onnx"
        exported.save(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    named = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), inputs, strict=True)}
    torch.testing.assert_close(torch.from_numpy(session.run(None, named)[0]), expected, atol=1e-4, rtol=1e-4)
    times = []
    for _ in range(9):
        begun = time.process_time()
        session.run(None, named)
        times.append(time.process_time() - begun)
    print(f"| {name} | {len(exported.model.graph):,} | {seconds:.0f} s | {1000 * median(times):.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
