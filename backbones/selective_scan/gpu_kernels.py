"""The Triton kernels: the gated scan of one or both directions, and the causal convolution with SiLU.

A program processes one sequence and one block of channels, in chunks of steps. The states of a chunk are one tile
[STEPS, STATES, CHANNELS]. Channels are distributed over threads and steps are inside a thread, so the scan over steps
needs no communication between threads. The backward kernels store one state per chunk and recompute the others. Both
directions run in the same program; the reverse one counts steps from the end, so nothing is flipped. All arithmetic is
in float32.

Time ``s`` below is in the order of the scan, forward or reverse.
"""

import triton
import triton.language as tl

# Constants of the kernels.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):
    """log(1 + e^x) without loss for very negative x: log1p(w) = 2 atanh(w / (2 + w)), w = e^-|x|."""
    w = tl.exp(-tl.abs(x))
    s = w / (2.0 + w)
    q = s * s
    p = 0.28178347
    p = p * q + 0.27960610
    p = p * q + 0.40024909
    p = p * q + 0.66666315
    p = p * q + 2.0
    return tl.where(x < 0.0, 0.0, x) + p * s


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _compose(a1, b1, a2, b2):
    """Combines the steps h -> a1 h + b1 and then h -> a2 h + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _row(tile, index, row):
    """One step of a tile: [STEPS, STATES, CHANNELS] to [STATES, CHANNELS]."""
    return tl.sum(tl.where(index == row, tile, 0.0), axis=0)


@triton.jit
def _position(s, length, REVERSE: tl.constexpr):
    return length - 1 - s if REVERSE else s


@triton.jit
def _step_size(delta, bias, offsets, mask, SOFTPLUS: tl.constexpr):
    """Raw and final step sizes; the final one is 0 for masked steps, which do not change the state."""
    raw = tl.load(delta + offsets, mask=mask, other=0.0).to(tl.float32) + bias
    dt = _softplus(raw) if SOFTPLUS else raw
    return raw, tl.where(mask, dt, 0.0)


@triton.jit
def _matrix(pointer, t, n, inside, N, stride_n, stride_t):
    """B or C at some steps, [STEPS, STATES, 1]."""
    mask = inside[:, None] & (n < N)[None, :]
    tile = tl.load(pointer + n[None, :] * stride_n + t[:, None] * stride_t, mask=mask, other=0.0)
    return tile.to(tl.float32)[:, :, None]


@triton.jit
def _forward_direction(
    u, delta, A, B, C, D, bias, z, out, partial,
    d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """One direction. The first of two stores its ungated output in ``partial``; the last adds it, scales and gates."""
    here = d < channels
    a = tl.load(A + d[None, :] * N + n[:, None], mask=here[None, :] & (n < N)[:, None], other=0.0) * LOG2E
    skip = tl.load(D + d, mask=here, other=0.0)[None, :]
    shift = tl.load(bias + d, mask=here, other=0.0)[None, :]
    row = tl.arange(0, STEPS)
    index = row[:, None, None]
    h = tl.zeros_like(a)
    for chunk in range(0, chunks):
        s = chunk * STEPS + row
        t = _position(s, length, REVERSE)
        mask = (s < length)[:, None] & here[None, :]
        offsets = t[:, None] * stride_t + d[None, :] * stride_d
        _, dt = _step_size(delta, shift, offsets, mask, SOFTPLUS)
        x = tl.load(u + offsets, mask=mask, other=0.0).to(tl.float32)
        decay = tl.exp2(dt[:, None, :] * a[None, :, :])
        drive = (dt * x)[:, None, :] * _matrix(B, t, n, s < length, N, stride_n, stride_mt)
        decays, states = tl.associative_scan((decay, drive), 0, _compose)
        states += decays * h[None, :, :]
        h = _row(states, index, STEPS - 1)
        y = tl.sum(states * _matrix(C, t, n, s < length, N, stride_n, stride_mt), axis=1) + skip * x
        if not FIRST:
            y += tl.load(partial + offsets, mask=mask, other=0.0)
        if LAST:
            y *= scale
            if GATED:
                gate = tl.load(z + t[:, None] * stride_zt + d[None, :] * stride_zd, mask=mask, other=0.0)
                gate = gate.to(tl.float32)
                y *= gate * _sigmoid(gate)
            tl.store(out + offsets, y.to(out.dtype.element_ty), mask=mask)
        else:
            tl.store(partial + offsets, y, mask=mask)


@triton.jit
def scan_forward(
    u, delta, A, B, C, D, bias,
    u2, delta2, A2, B2, C2, D2, bias2,
    z, out, partial,
    channels, N, length, chunks,
    stride_b, stride_d, stride_t, stride_zb, stride_zd, stride_zt, stride_mb, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, BOTH: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (channel blocks, batch). With BOTH, the second set of tensors is scanned in reverse and added."""
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    at, mat = b * stride_b, b * stride_mb
    _forward_direction(
        u + at, delta + at, A, B + mat, C + mat, D, bias, z + b * stride_zb, out + at, partial + at,
        d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
        REVERSE, True, not BOTH, SOFTPLUS, GATED, STEPS,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # other threads of this program wrote what is read next
        _forward_direction(
            u2 + at, delta2 + at, A2, B2 + mat, C2 + mat, D2, bias2, z + b * stride_zb, out + at, partial + at,
            d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
            not REVERSE, False, True, SOFTPLUS, GATED, STEPS,
        )  # fmt: skip


@triton.jit
def _decay(delta, shift, a, s, d, here, length, stride_d, stride_t,
           REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr):  # fmt: skip
    """exp(dt A) at some steps, [STEPS, STATES, CHANNELS]; 1 outside the sequence."""
    mask = ((s >= 0) & (s < length))[:, None] & here[None, :]
    t = _position(s, length, REVERSE)
    _, dt = _step_size(delta, shift, t[:, None] * stride_t + d[None, :] * stride_d, mask, SOFTPLUS)
    return tl.exp2(dt[:, None, :] * a[None, :, :])


@triton.jit
def _drive(u, delta, B, shift, s, n, d, here, first, N, length, stride_d, stride_t, stride_n, stride_mt,
           REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr):  # fmt: skip
    """The input dt u B at some steps, [STEPS, STATES, CHANNELS]; 0 before step ``first`` and after the end."""
    inside = (s >= first) & (s < length)
    mask = inside[:, None] & here[None, :]
    t = _position(s, length, REVERSE)
    offsets = t[:, None] * stride_t + d[None, :] * stride_d
    _, dt = _step_size(delta, shift, offsets, mask, SOFTPLUS)
    x = dt * tl.load(u + offsets, mask=mask, other=0.0).to(tl.float32)
    return x[:, None, :] * _matrix(B, t, n, inside, N, stride_n, stride_mt)


@triton.jit
def _backward_direction(
    grad, u, delta, A, B, C, D, bias, z, partial, starts,
    grad_u, grad_delta, grad_z, part_A, part_B, part_C, part_D, part_bias,
    d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr, STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of one direction; ``partial`` and FIRST, LAST as in the forward kernel, for the gradient of z."""
    here = d < channels
    a = tl.load(A + d[None, :] * N + n[:, None], mask=here[None, :] & (n < N)[:, None], other=0.0) * LOG2E
    skip = tl.load(D + d, mask=here, other=0.0)[None, :]
    shift = tl.load(bias + d, mask=here, other=0.0)[None, :]
    row = tl.arange(0, STEPS)
    index = row[:, None, None]
    slot = n[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]

    h = tl.zeros_like(a)
    tl.store(starts + slot, h)
    for chunk in range(0, chunks - 1):
        s = chunk * STEPS + row
        decay = _decay(delta, shift, a, s, d, here, length, stride_d, stride_t, REVERSE, SOFTPLUS)
        drive = _drive(u, delta, B, shift, s, n, d, here, 0, N, length, stride_d, stride_t, stride_n, stride_mt,
                       REVERSE, SOFTPLUS)  # fmt: skip
        decays, states = tl.associative_scan((decay, drive), 0, _compose)
        h = _row(states + decays * h[None, :, :], index, STEPS - 1)
        tl.store(starts + (chunk + 1) * STATES * CHANNELS + slot, h)
    tl.debug_barrier()  # a state may be read by a different thread

    grad_h = tl.zeros_like(a)
    grad_a = tl.zeros_like(a)
    grad_skip = tl.zeros((CHANNELS,), tl.float32)
    grad_shift = tl.zeros((CHANNELS,), tl.float32)
    for turn in range(0, chunks):
        chunk = chunks - 1 - turn
        first = chunk * STEPS
        s = first + row
        inside = s < length
        mask = inside[:, None] & here[None, :]
        t = _position(s, length, REVERSE)
        offsets = t[:, None] * stride_t + d[None, :] * stride_d
        raw, dt = _step_size(delta, shift, offsets, mask, SOFTPLUS)
        x = tl.load(u + offsets, mask=mask, other=0.0).to(tl.float32)
        gy = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32) * scale
        Bt = _matrix(B, t, n, inside, N, stride_n, stride_mt)
        Ct = _matrix(C, t, n, inside, N, stride_n, stride_mt)

        # The states before each step, from the steps before it in this chunk; their successors follow exactly.
        start = tl.load(starts + chunk * STATES * CHANNELS + slot)
        decay = _decay(delta, shift, a, s - 1, d, here, length, stride_d, stride_t, REVERSE, SOFTPLUS)
        decay = tl.where(index == 0, 1.0, decay)
        drive = _drive(u, delta, B, shift, s - 1, n, d, here, first, N, length, stride_d, stride_t, stride_n,
                       stride_mt, REVERSE, SOFTPLUS)  # fmt: skip
        decays, before = tl.associative_scan((decay, drive), 0, _compose)
        before += decays * start[None, :, :]
        decay = tl.exp2(dt[:, None, :] * a[None, :, :])
        carried = decay * before
        after = carried + (dt * x)[:, None, :] * Bt

        if GATED:
            y = tl.sum(after * Ct, axis=1) + skip * x
            if not FIRST:
                y += tl.load(partial + offsets, mask=mask, other=0.0)
            gate = tl.load(z + t[:, None] * stride_zt + d[None, :] * stride_zd, mask=mask, other=0.0)
            gate = gate.to(tl.float32)
            sigmoid = _sigmoid(gate)
            if LAST:
                grad_gate = gy * y * (sigmoid + gate * sigmoid * (1.0 - sigmoid))
                tl.store(grad_z + offsets, grad_gate.to(grad_z.dtype.element_ty), mask=mask)
            else:
                tl.store(partial + offsets, y, mask=mask)
            gy *= gate * sigmoid

        # Gradients of the states: those of later steps come through the decay of the step after.
        decay = _decay(delta, shift, a, s + 1, d, here, length, stride_d, stride_t, REVERSE, SOFTPLUS)
        decays, grads = tl.associative_scan((decay, gy[:, None, :] * Ct), 0, _compose, reverse=True)
        grads += decays * grad_h[None, :, :]
        grad_h = _row(grads, index, 0)

        matrix_mask = inside[:, None] & (n < N)[None, :]
        matrix_at = n[None, :] * length + t[:, None]
        tl.store(part_C + matrix_at, tl.sum(gy[:, None, :] * after, axis=2), mask=matrix_mask)
        tl.store(part_B + matrix_at, tl.sum(grads * (dt * x)[:, None, :], axis=2), mask=matrix_mask)
        grad_x = tl.sum(grads * Bt, axis=1)
        exponent = grads * carried
        grad_a += tl.sum(exponent * dt[:, None, :], axis=0)
        grad_dt = tl.sum(exponent * a[None, :, :], axis=1) / LOG2E + grad_x * x
        if SOFTPLUS:
            grad_dt *= _sigmoid(raw)
        grad_dt = tl.where(mask, grad_dt, 0.0)
        grad_skip += tl.sum(gy * x, axis=0)
        grad_shift += tl.sum(grad_dt, axis=0)
        tl.store(grad_u + offsets, (grad_x * dt + gy * skip).to(grad_u.dtype.element_ty), mask=mask)
        tl.store(grad_delta + offsets, grad_dt.to(grad_delta.dtype.element_ty), mask=mask)
    tl.store(part_A + d[None, :] * N + n[:, None], grad_a, mask=here[None, :] & (n < N)[:, None])
    tl.store(part_D + d, grad_skip, mask=here)
    tl.store(part_bias + d, grad_shift, mask=here)


@triton.jit
def scan_backward(
    grad, u, delta, A, B, C, D, bias,
    u2, delta2, A2, B2, C2, D2, bias2,
    z, partial, starts, grad_z,
    grad_u, grad_delta, part_A, part_B, part_C, part_D, part_bias,
    grad_u2, grad_delta2, part_A2, part_B2, part_C2, part_D2, part_bias2,
    channels, N, length, chunks,
    stride_b, stride_d, stride_t, stride_zb, stride_zd, stride_zt, stride_mb, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, BOTH: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid as ``scan_forward``. Parts to be summed: A [batch, D, N], B, C [blocks, batch, N, L], D, bias [batch, D]."""
    block, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    at, mat, gate_at = batch * stride_b, batch * stride_mb, batch * stride_zb
    program = block * tl.num_programs(1) + batch
    own = starts + program * chunks * STATES * CHANNELS
    part, vector, matrix = program * N * length, batch * channels, batch * channels * N
    _backward_direction(
        grad + at, u + at, delta + at, A, B + mat, C + mat, D, bias, z + gate_at, partial + at, own,
        grad_u + at, grad_delta + at, grad_z + at, part_A + matrix, part_B + part, part_C + part,
        part_D + vector, part_bias + vector,
        d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
        REVERSE, True, not BOTH, SOFTPLUS, GATED, STEPS, STATES, CHANNELS,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # other threads of this program wrote what is read next
        _backward_direction(
            grad + at, u2 + at, delta2 + at, A2, B2 + mat, C2 + mat, D2, bias2, z + gate_at, partial + at, own,
            grad_u2 + at, grad_delta2 + at, grad_z + at, part_A2 + matrix, part_B2 + part, part_C2 + part,
            part_D2 + vector, part_bias2 + vector,
            d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
            not REVERSE, False, True, SOFTPLUS, GATED, STEPS, STATES, CHANNELS,
        )  # fmt: skip


@triton.jit
def _filtered(x, weight, shift, s, d, here, length, stride_d, stride_t,
              REVERSE: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """The convolution before its activation at steps s, [STEPS, CHANNELS]."""
    y = tl.zeros((s.shape[0], d.shape[0]), tl.float32) + shift
    for j in tl.static_range(WIDTH):
        r = s - (WIDTH - 1) + j
        mask = ((r >= 0) & (r < length))[:, None] & here[None, :]
        t = _position(r, length, REVERSE)
        w = tl.load(weight + d * WIDTH + j, mask=here, other=0.0).to(tl.float32)[None, :]
        y += w * tl.load(x + t[:, None] * stride_t + d[None, :] * stride_d, mask=mask, other=0.0).to(tl.float32)
    return y


@triton.jit
def conv_forward(
    x, weight, bias, out, channels, length,
    stride_xb, stride_xd, stride_xt, stride_b, stride_d, stride_t,
    REVERSE: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (channel blocks, batch, chunks)."""
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    s = tl.program_id(2) * STEPS + tl.arange(0, STEPS)
    here = d < channels
    shift = tl.load(bias + d, mask=here, other=0.0).to(tl.float32)[None, :]
    y = _filtered(x + b * stride_xb, weight, shift, s, d, here, length, stride_xd, stride_xt, REVERSE, WIDTH)
    if SILU:
        y *= _sigmoid(y)
    t = _position(s, length, REVERSE)
    offsets = b * stride_b + t[:, None] * stride_t + d[None, :] * stride_d
    tl.store(out + offsets, y.to(out.dtype.element_ty), mask=(s < length)[:, None] & here[None, :])


@triton.jit
def conv_backward(
    grad, x, weight, bias, grad_x, part_weight, part_bias, channels, length, chunks,
    stride_xb, stride_xd, stride_xt, stride_b, stride_d, stride_t,
    REVERSE: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr, TAPS: tl.constexpr, STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (channel blocks, batch); TAPS is WIDTH or the next power of two. The outputs are recomputed.

    Parts to be summed: weight [batch, D, W], bias [batch, D].
    """
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    here = d < channels
    shift = tl.load(bias + d, mask=here, other=0.0).to(tl.float32)[None, :]
    x += b * stride_xb
    tap = tl.arange(0, TAPS)
    sum_w = tl.zeros((TAPS, CHANNELS), tl.float32)
    sum_b = tl.zeros((CHANNELS,), tl.float32)
    for chunk in range(0, chunks):
        s = chunk * STEPS + tl.arange(0, STEPS)
        mask = (s < length)[:, None] & here[None, :]
        t = _position(s, length, REVERSE)
        value = tl.load(x + t[:, None] * stride_xt + d[None, :] * stride_xd, mask=mask, other=0.0).to(tl.float32)
        total = tl.zeros((STEPS, CHANNELS), tl.float32)
        for j in tl.static_range(WIDTH):
            # Step s enters the output of step r through tap j.
            r = s + (WIDTH - 1) - j
            used = (r < length)[:, None] & here[None, :]
            rt = _position(r, length, REVERSE)
            offsets = b * stride_b + rt[:, None] * stride_t + d[None, :] * stride_d
            g = tl.load(grad + offsets, mask=used, other=0.0).to(tl.float32)
            if SILU:
                y = _filtered(x, weight, shift, r, d, here, length, stride_xd, stride_xt, REVERSE, WIDTH)
                sigmoid = _sigmoid(y)
                g *= sigmoid + y * sigmoid * (1.0 - sigmoid)
            w = tl.load(weight + d * WIDTH + j, mask=here, other=0.0).to(tl.float32)[None, :]
            total += w * g
            sum_w += tl.where(tap[:, None] == j, tl.sum(g * value, axis=0)[None, :], 0.0)
            if j == WIDTH - 1:
                sum_b += tl.sum(g, axis=0)
        offsets = b * stride_b + t[:, None] * stride_t + d[None, :] * stride_d
        tl.store(grad_x + offsets, total.to(grad_x.dtype.element_ty), mask=mask)
    at = (b * channels + d) * WIDTH
    tl.store(part_weight + at[None, :] + tap[:, None], sum_w, mask=here[None, :] & (tap < WIDTH)[:, None])
    tl.store(part_bias + b * channels + d, sum_b, mask=here)
