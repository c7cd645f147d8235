"""The CPU kernels, compiled by Numba to vector instructions. Each runs on one thread, without Python code.

A task is one sequence of the batch and one block of ``LANES`` channels. Its steps are copied to small arrays in which
channels are contiguous, for any strides and direction of the tensors. Every inner loop then has a fixed number of lanes
and is compiled to vector instructions. Tasks do not write to the same memory: sums over tasks are returned as one part
per task, so the result does not depend on the threads.

Each kernel has one explicit signature, so the on-disk cache has one entry per kernel, and processes that start at the
same time cannot mix up entries. All kernels are in one file, because that cache detects only changes of this file.
"""

from functools import partial
from typing import Any

import numba as nb
import numpy as np

LANES = 64
"""Channels of a task, a multiple of the vector width. Measured: 32 is slower, 128 no faster."""

STEPS = 160
"""Number of steps to copy at a time. For sequences up to this length, the backward pass recomputes states only once."""

f4 = np.float32
i4 = np.int32

# NaN and infinity must be kept, so that a diverged training is detected.
_FAST = {"contract", "reassoc", "nsz", "arcp"}

_vec = nb.float32[:]
_mat = nb.float32[:, :]
_ten = nb.float32[:, :, :]
_all = nb.float32[:, :, :, :]
_bool, _int, _float = nb.boolean, nb.int64, nb.float32

# Inlined, because a process that compiles may link other parts to a second copy, which can round differently.
_part = nb.njit(fastmath=_FAST, error_model="numpy", forceinline=True)


def _kernel(*types: Any) -> Any:
    """Compiles to a cached function that releases the GIL; without a writable cache, compiles in each process."""

    def compile_function(function: Any) -> Any:
        compiler = partial(nb.njit, nb.void(*types), nogil=True, fastmath=_FAST, error_model="numpy")
        try:
            return compiler(cache=True)(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            return compiler()(function)

    return compile_function


# Compiled separately, without reassociation, because x - whole must be exact.
@nb.njit(fastmath={"contract", "nsz"}, error_model="numpy", forceinline=True)
def _exp2(x):
    """2^x, relative error 1e-7: exponent bits from the nearest integer, the rest from a fitted polynomial."""
    x = max(min(x, f4(127.0)), f4(-126.0))
    whole = np.floor(x + f4(0.5))
    r = x - whole
    p = f4(1.3264727e-3)
    p = p * r + f4(9.6715130e-3)
    p = p * r + f4(5.5507336e-2)
    p = p * r + f4(2.4022242e-1)
    p = p * r + f4(6.9314700e-1)
    p = p * r + f4(1.0)
    return p * i4(i4(whole + f4(127.0)) << i4(23)).view(f4)


@_part
def _sigmoid(x):
    return f4(1.0) / (f4(1.0) + _exp2(x * f4(-1.44269504)))


@_part
def _softplus(x):
    """log(1 + e^x) = max(x, 0) + log1p(w), w = e^-|x|; log1p(w) = 2 atanh(w / (2 + w)), relative error 1e-7."""
    w = _exp2(abs(x) * f4(-1.44269504))
    s = w / (f4(2.0) + w)
    q = s * s
    p = f4(0.28178347)
    p = p * q + f4(0.27960610)
    p = p * q + f4(0.40024909)
    p = p * q + f4(0.66666315)
    p = p * q + f4(2.0)
    return (f4(0.0) if x < f4(0.0) else x) + p * s


@_part
def _block(rows):
    """Scratch space, [rows, LANES]."""
    return np.zeros((rows, LANES), f4)


@_part
def _blocks(steps, rows):
    return np.zeros((steps, rows, LANES), f4)


@_part
def _gather(block, tensor, b, first, lanes, start, steps, reverse):
    """block[s, i] = step ``start + s`` (in the order of the scan) of channel ``first + i``."""
    last = tensor.shape[2] - 1
    if tensor.strides[1] < tensor.strides[2]:  # in the order of the source memory
        for s in range(steps):
            t = last - start - s if reverse else start + s
            for i in range(lanes):
                block[s, i] = tensor[b, first + i, t]
    else:
        for i in range(lanes):
            for s in range(steps):
                block[s, i] = tensor[b, first + i, last - start - s if reverse else start + s]
    for i in range(lanes, LANES):  # zero input and zero gradient, so that these lanes do not change any sum
        for s in range(steps):
            block[s, i] = 0


@_part
def _scatter(tensor, block, b, first, lanes, start, steps, reverse, add):
    """The inverse of ``_gather``; with ``add``, adds to the values of the tensor."""
    last = tensor.shape[2] - 1
    if tensor.strides[1] < tensor.strides[2]:
        for s in range(steps):
            t = last - start - s if reverse else start + s
            for i in range(lanes):
                tensor[b, first + i, t] = block[s, i] + (tensor[b, first + i, t] if add else f4(0.0))
    else:
        for i in range(lanes):
            for s in range(steps):
                t = last - start - s if reverse else start + s
                tensor[b, first + i, t] = block[s, i] + (tensor[b, first + i, t] if add else f4(0.0))


@_part
def _load_channels(a, A, bias, delta_bias, skip, D, first, lanes):
    """Loads the constants of the channels of a task; A is scaled so that ``_exp2`` computes exp."""
    for i in range(lanes):
        bias[i] = delta_bias[first + i]
        skip[i] = D[first + i]
        for n in range(A.shape[1]):
            a[n, i] = A[first + i, n] * f4(1.44269504)
            if A[first + i, n] != A[first + i, n]:
                skip[i] = np.nan  # _exp2 does not propagate NaN


@_part
def _step_sizes(dt, bias, steps, softplus):
    """Adds the bias and applies softplus, in place."""
    for s in range(steps):
        row = dt[s]
        for i in range(LANES):
            row[i] += bias[i]
        if softplus:
            for i in range(LANES):
                row[i] = _softplus(row[i])


@_part
def _advance(h, a, dt, x, y, skip, B, C, b, t):
    """One step of the scan: updates the state h and computes the ungated output y; x contains u at the start."""
    for i in range(LANES):
        y[i] = skip[i] * x[i]
        x[i] *= dt[i]
    for n in range(h.shape[0]):
        Bn, Cn, hn, an = B[b, n, t], C[b, n, t], h[n], a[n]
        for i in range(LANES):
            state = _exp2(dt[i] * an[i]) * hn[i] + x[i] * Bn
            hn[i] = state
            y[i] += Cn * state


@_part
def _finish(y, gate, gated, scale):
    """Scales and gates an output, in place."""
    for i in range(LANES):
        y[i] *= scale
    if gated:
        for i in range(LANES):
            y[i] *= gate[i] * _sigmoid(gate[i])


@_part
def _recompute(before, after, decay, a, dt, x, u, B, b, t):
    """One step of the scan that stores the state, the decay exp(dt A) and x = dt u."""
    for i in range(LANES):
        x[i] = dt[i] * u[i]
    for n in range(a.shape[0]):
        Bn, an, hn, next_hn, en = B[b, n, t], a[n], before[n], after[n], decay[n]
        for i in range(LANES):
            e = _exp2(dt[i] * an[i])
            en[i] = e
            next_hn[i] = e * hn[i] + x[i] * Bn


@_part
def _gate_backward(gy, gate, y, state, u, skip, C, b, t):
    """Converts the gradient of the gated output to that of the ungated output, and the gate to its gradient."""
    for i in range(LANES):
        y[i] = skip[i] * u[i]
    for n in range(state.shape[0]):
        Cn, hn = C[b, n, t], state[n]
        for i in range(LANES):
            y[i] += Cn * hn[i]
    for i in range(LANES):
        sigmoid = _sigmoid(gate[i])
        silu = gate[i] * sigmoid
        gate[i] = y[i] * gy[i] * (sigmoid + silu * (f4(1.0) - sigmoid))
        gy[i] *= silu


@_part
def _step_backward(gy, before, after, decay, a, dt, x, grad_h, grad_a, scratch, B, C, part_B, part_C, b, t):
    """Propagates the gradient of the state back by one step; stores the gradients of x and of dt (through A)."""
    gx, gdt = scratch[0], scratch[1]
    for i in range(LANES):
        gx[i] = 0
        gdt[i] = 0
    for n in range(a.shape[0]):
        Bn, Cn, an, hn, next_hn, en = B[b, n, t], C[b, n, t], a[n], before[n], after[n], decay[n]
        ghn, gan = grad_h[n], grad_a[n]
        sum_B, sum_C = f4(0.0), f4(0.0)
        for i in range(LANES):
            g = ghn[i] + gy[i] * Cn
            sum_C += gy[i] * next_hn[i]
            sum_B += g * x[i]
            gx[i] += g * Bn
            g *= en[i]
            ghn[i] = g
            g *= hn[i]
            gdt[i] += g * an[i]
            gan[i] += g * dt[i]
        part_B[b, n, t] = sum_B
        part_C[b, n, t] = sum_C


@_part
def _inputs_backward(gy, u, raw, dt, bias, skip, scratch, grad_skip, grad_bias, softplus):
    """Converts u to its gradient, and the raw step size to its gradient."""
    gx, gdt = scratch[0], scratch[1]
    for i in range(LANES):
        g = gdt[i] * f4(0.69314718) + gx[i] * u[i]
        grad_skip[i] += gy[i] * u[i]
        u[i] = gx[i] * dt[i] + gy[i] * skip[i]
        if softplus:
            g *= _sigmoid(raw[i] + bias[i])
        grad_bias[i] += g
        raw[i] = g


@_kernel(
    _ten, _ten, _ten, _mat, _ten, _ten, _vec, _vec, _ten, _bool, _bool, _bool, _float, _bool, _int, _int
)  # fmt: skip
def scan(out, u, delta, A, B, C, D, delta_bias, z, softplus, gated, reverse, scale, add, first_task, last_task):
    """Adds to or sets ``out``: scale * scan, for the tasks first_task ... last_task - 1."""
    _, channels, length = u.shape
    states = A.shape[1]
    blocks = -(-channels // LANES)
    h, a, channel = _block(states), _block(states), _block(2)
    bias, skip = channel[0], channel[1]
    most = min(length, STEPS)
    dt, x, y, gate = _block(most), _block(most), _block(most), _block(most)
    for task in range(first_task, last_task):
        b, first = task // blocks, task % blocks * LANES
        lanes = min(LANES, channels - first)
        _load_channels(a, A, bias, delta_bias, skip, D, first, lanes)
        h[:] = 0
        for start in range(0, length, STEPS):
            steps = min(STEPS, length - start)
            _gather(dt, delta, b, first, lanes, start, steps, reverse)
            _gather(x, u, b, first, lanes, start, steps, reverse)
            _step_sizes(dt, bias, steps, softplus)
            if gated:
                _gather(gate, z, b, first, lanes, start, steps, reverse)
            for s in range(steps):
                t = length - 1 - start - s if reverse else start + s
                _advance(h, a, dt[s], x[s], y[s], skip, B, C, b, t)
                _finish(y[s], gate[s], gated, scale)
            _scatter(out, y, b, first, lanes, start, steps, reverse, add)


@_kernel(
    _ten, _ten, _ten, _mat, _ten, _ten, _vec, _vec, _ten, _bool, _bool, _bool, _float, _bool,
    _ten, _ten, _ten, _all, _all, _mat, _mat, _ten, _int, _int,
)  # fmt: skip
def scan_backward(
    grad, u, delta, A, B, C, D, delta_bias, z, softplus, gated, reverse, scale, add,
    grad_u, grad_delta, part_A, part_B, part_C, part_D, part_bias, grad_z, first_task, last_task,
):  # fmt: skip
    """Gradients of ``scan`` for a range of tasks; formulas in README.md.

    ``grad_z`` is added to if ``add``. Parts to be summed: A [batch, D, N], B and C [blocks, batch, N, L], D and
    delta_bias [batch, D].
    """
    _, channels, length = u.shape
    states = A.shape[1]
    blocks = -(-channels // LANES)
    chunks = -(-length // STEPS)
    most = min(length, STEPS)
    starts, h, decay = _blocks(chunks, states), _blocks(most + 1, states), _blocks(most, states)
    raw, dt, x, us = _block(most), _block(most), _block(most), _block(most)
    gy, gate, scratch = _block(most), _block(most), _block(2)
    a, grad_a, grad_h, channel = _block(states), _block(states), _block(states), _block(4)
    bias, skip, grad_bias, grad_skip = channel[0], channel[1], channel[2], channel[3]
    for task in range(first_task, last_task):
        b, block = task // blocks, task % blocks
        first = block * LANES
        lanes = min(LANES, channels - first)
        _load_channels(a, A, bias, delta_bias, skip, D, first, lanes)
        grad_a[:], grad_h[:], grad_bias[:], grad_skip[:] = 0, 0, 0, 0
        # First pass through all chunks except the last for their final states, then back from the last chunk.
        for turn in range(2 * chunks - 1):
            chunk = min(turn, 2 * chunks - 2 - turn)
            start = chunk * STEPS
            steps = min(STEPS, length - start)
            _gather(raw, delta, b, first, lanes, start, steps, reverse)
            _gather(us, u, b, first, lanes, start, steps, reverse)
            dt[:steps] = raw[:steps]
            _step_sizes(dt, bias, steps, softplus)
            h[0] = starts[chunk]
            for s in range(steps):
                t = length - 1 - start - s if reverse else start + s
                _recompute(h[s], h[s + 1], decay[s], a, dt[s], x[s], us[s], B, b, t)
            if turn < chunks - 1:
                starts[chunk + 1] = h[steps]
                continue
            _gather(gy, grad, b, first, lanes, start, steps, reverse)
            if gated:
                _gather(gate, z, b, first, lanes, start, steps, reverse)
            for s in range(steps - 1, -1, -1):
                t = length - 1 - start - s if reverse else start + s
                for i in range(LANES):
                    gy[s, i] *= scale
                if gated:
                    _gate_backward(gy[s], gate[s], scratch[0], h[s + 1], us[s], skip, C, b, t)
                _step_backward(
                    gy[s], h[s], h[s + 1], decay[s], a, dt[s], x[s], grad_h, grad_a, scratch,
                    B, C, part_B[block], part_C[block], b, t,
                )  # fmt: skip
                _inputs_backward(gy[s], us[s], raw[s], dt[s], bias, skip, scratch, grad_skip, grad_bias, softplus)
            _scatter(grad_u, us, b, first, lanes, start, steps, reverse, False)
            _scatter(grad_delta, raw, b, first, lanes, start, steps, reverse, False)
            if gated:
                _scatter(grad_z, gate, b, first, lanes, start, steps, reverse, add)
        for i in range(lanes):
            part_D[b, first + i] = grad_skip[i]
            part_bias[b, first + i] = grad_bias[i]
            for n in range(states):
                part_A[b, first + i, n] = grad_a[n, i]


@_part
def _load_filters(w, weight, bias_row, bias, first, lanes):
    for i in range(lanes):
        bias_row[i] = bias[first + i]
        for j in range(weight.shape[1]):
            w[j, i] = weight[first + i, j]


@_part
def _filter(y, x, w, bias, s):
    """One output of the convolution; x starts with width - 1 rows of zeros."""
    for i in range(LANES):
        y[i] = bias[i]
    for j in range(w.shape[0]):
        wj, xj = w[j], x[s + j]
        for i in range(LANES):
            y[i] += wj[i] * xj[i]


@_part
def _filter_backward(g, x, w, grad_x, grad_w, s):
    for j in range(w.shape[0]):
        wj, xj, gxj, gwj = w[j], x[s + j], grad_x[s + j], grad_w[j]
        for i in range(LANES):
            gwj[i] += g[i] * xj[i]
            gxj[i] += g[i] * wj[i]


@_part
def _silu(y):
    for i in range(LANES):
        y[i] *= _sigmoid(y[i])


@_part
def _silu_backward(g, y):
    for i in range(LANES):
        sigmoid = _sigmoid(y[i])
        g[i] *= sigmoid + y[i] * sigmoid * (f4(1.0) - sigmoid)


@_kernel(_ten, _ten, _mat, _vec, _bool, _bool, _int, _int)
def conv(out, x, weight, bias, silu, reverse, first_task, last_task):
    """Causal depthwise convolution and SiLU, for the tasks first_task ... last_task - 1."""
    _, channels, length = x.shape
    width = weight.shape[1]
    blocks = -(-channels // LANES)
    w, padded, y, bias_row = _block(width), _block(length + width - 1), _block(length), _block(1)[0]
    for task in range(first_task, last_task):
        b, first = task // blocks, task % blocks * LANES
        lanes = min(LANES, channels - first)
        _load_filters(w, weight, bias_row, bias, first, lanes)
        _gather(padded[width - 1 :], x, b, first, lanes, 0, length, reverse)
        for s in range(length):
            _filter(y[s], padded, w, bias_row, s)
            if silu:
                _silu(y[s])
        _scatter(out, y, b, first, lanes, 0, length, reverse, False)


@_kernel(_ten, _ten, _mat, _vec, _bool, _bool, _ten, _ten, _mat, _int, _int)
def conv_backward(
    grad, x, weight, bias, silu, reverse, grad_x, part_weight, part_bias, first_task, last_task
):  # fmt: skip
    """Gradients of ``conv``; parts to be summed: weight [batch, D, W], bias [batch, D]."""
    _, channels, length = x.shape
    width = weight.shape[1]
    blocks = -(-channels // LANES)
    w, grad_w, rows = _block(width), _block(width), _block(3)
    bias_row, grad_bias, y = rows[0], rows[1], rows[2]
    padded, padded_grad, g = _block(length + width - 1), _block(length + width - 1), _block(length)
    for task in range(first_task, last_task):
        b, first = task // blocks, task % blocks * LANES
        lanes = min(LANES, channels - first)
        _load_filters(w, weight, bias_row, bias, first, lanes)
        _gather(padded[width - 1 :], x, b, first, lanes, 0, length, reverse)
        _gather(g, grad, b, first, lanes, 0, length, reverse)
        grad_w[:], padded_grad[:], grad_bias[:] = 0, 0, 0
        for s in range(length):
            if silu:
                _filter(y, padded, w, bias_row, s)
                _silu_backward(g[s], y)
            for i in range(LANES):
                grad_bias[i] += g[s, i]
            _filter_backward(g[s], padded, w, padded_grad, grad_w, s)
        _scatter(grad_x, padded_grad[width - 1 :], b, first, lanes, 0, length, reverse, False)
        for i in range(lanes):
            part_bias[b, first + i] = grad_bias[i]
            for j in range(width):
                part_weight[b, first + i, j] = grad_w[j, i]
