"""The Triton kernels: the gated scan of one or both directions, and the causal convolution with SiLU.

A program processes one sequence and one block of channels, in chunks of steps. The states of a chunk are one tile
[STEPS, STATES, CHANNELS]. Channels are distributed over threads and steps are inside a thread, so the scan over steps
is plain arithmetic in registers: the loops over the steps of a chunk are unrolled, and a step of a tile is a register.
The backward kernel stores one state per chunk and recomputes the others. Both directions run in the same program; the
reverse one counts steps from the end, so nothing is flipped. All arithmetic is in float32.

Time ``s`` below is in the order of the scan, forward or reverse.
"""

import triton
import triton.language as tl

# Constants of the kernels.
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):
    """log(1 + e^x) without loss for very negative x: log1p(w) = 2 atanh(w / (2 + w)), w = e^-|x|."""
    w = tl.exp2(tl.abs(x) * -LOG2E)
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
    return 1.0 / (1.0 + tl.exp2(x * -LOG2E))


@triton.jit
def _step(tile, index, i):
    """One step of a tile, [STEPS, ...] to [...]. The compiler only renames a register."""
    # A sum of integers, because the compiler does not remove the additions of zero from a sum of floats.
    return tl.sum(tl.where(index == i, tile.to(tl.int32, bitcast=True), 0), axis=0).to(tl.float32, bitcast=True)


@triton.jit
def _states(decay, drive, h, index, STEPS: tl.constexpr):
    """The states before and after each step of a chunk that starts in state h, and the last state."""
    before, after = drive, drive
    for i in tl.static_range(STEPS):
        before = tl.where(index == i, h[None, :, :], before)
        h = _step(decay, index, i) * h + _step(drive, index, i)
        after = tl.where(index == i, h[None, :, :], after)
    return before, after, h


@triton.jit
def _gradients(decay, drive, carry, index, STEPS: tl.constexpr):
    """Gradients of the states after each step of a chunk, last to first, and each times the decay of its step.

    ``carry`` is the latter of the step after the chunk; that of the first step is returned last.
    """
    grads, carries = drive, drive
    for j in tl.static_range(STEPS):
        i = STEPS - 1 - j
        grad = _step(drive, index, i) + carry
        carry = _step(decay, index, i) * grad
        grads = tl.where(index == i, grad[None, :, :], grads)
        carries = tl.where(index == i, carry[None, :, :], carries)
    return grads, carries, carry


@triton.jit
def _position(s, length, REVERSE: tl.constexpr):
    return length - 1 - s if REVERSE else s


@triton.jit
def _matrix(pointer, t, n, inside, N, stride_n, stride_t):
    """B or C at some steps, [STEPS, STATES, 1]."""
    mask = inside[:, None] & (n < N)[None, :]
    tile = tl.load(pointer + n[None, :] * stride_n + t[:, None] * stride_t, mask=mask, other=0.0)
    return tile.to(tl.float32)[:, :, None]


@triton.jit
def _chunk(
    u, delta, B, a, shift, s, t, d, n, channels, N, length, stride_d, stride_t, stride_n, stride_mt,
    SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Loads steps s of a direction, which lie at t: offsets, mask, raw and final step sizes, u, decay and drive.

    The final step size of masked steps is 0, so they do not change the state.
    """
    inside = s < length
    mask = inside[:, None] & (d < channels)[None, :]
    offsets = t[:, None] * stride_t + d[None, :] * stride_d
    raw = tl.load(delta + offsets, mask=mask, other=0.0).to(tl.float32) + shift
    dt = tl.where(mask, _softplus(raw) if SOFTPLUS else raw, 0.0)
    x = tl.load(u + offsets, mask=mask, other=0.0).to(tl.float32)
    drive = (dt * x)[:, None, :] * _matrix(B, t, n, inside, N, stride_n, stride_mt)
    return offsets, mask, raw, dt, x, tl.exp2(dt[:, None, :] * a[None, :, :]), drive


@triton.jit
def _parameters(A, D, bias, d, n, channels, N):
    """A times log2(e), [STATES, CHANNELS]; D and the bias of the step sizes, [1, CHANNELS]."""
    here = d < channels
    a = tl.load(A + d[None, :] * N + n[:, None], mask=here[None, :] & (n < N)[:, None], other=0.0) * LOG2E
    return a, tl.load(D + d, mask=here, other=0.0)[None, :], tl.load(bias + d, mask=here, other=0.0)[None, :]


@triton.jit
def _forward_direction(
    u, delta, A, B, C, D, bias, z, out, partial,
    d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """One direction. The first of two stores its ungated output in ``partial``; the last adds it, scales and gates."""
    a, skip, shift = _parameters(A, D, bias, d, n, channels, N)
    row = tl.arange(0, STEPS)
    index = row[:, None, None]
    h = tl.zeros_like(a)
    for chunk in range(0, chunks):
        s = chunk * STEPS + row
        t = _position(s, length, REVERSE)
        offsets, mask, _, _, x, decay, drive = _chunk(
            u, delta, B, a, shift, s, t, d, n, channels, N, length, stride_d, stride_t, stride_n, stride_mt, SOFTPLUS,
        )  # fmt: skip
        _, after, h = _states(decay, drive, h, index, STEPS)
        y = tl.sum(after * _matrix(C, t, n, s < length, N, stride_n, stride_mt), axis=1) + skip * x
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
    out, u, delta, A, B, C, D, bias,
    u2, delta2, A2, B2, C2, D2, bias2,
    z, partial,
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
def _sum_over_channels(tile, vector):
    """The sum of tile [STEPS, STATES, CHANNELS] times vector [STEPS, CHANNELS] over the channels.

    A matrix product per step, in float32: it exchanges the values through shared memory, a sum would shuffle each.
    """
    return tl.reshape(tl.dot(tile, vector[:, :, None], input_precision="ieee"), (tile.shape[0], tile.shape[1]))


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
    a, skip, shift = _parameters(A, D, bias, d, n, channels, N)
    row = tl.arange(0, STEPS)
    index = row[:, None, None]
    slot = n[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]

    h = tl.zeros_like(a)
    for chunk in range(0, chunks):
        tl.store(starts + chunk * STATES * CHANNELS + slot, h)
        s = chunk * STEPS + row
        t = _position(s, length, REVERSE)
        _, _, _, _, _, decay, drive = _chunk(
            u, delta, B, a, shift, s, t, d, n, channels, N, length, stride_d, stride_t, stride_n, stride_mt, SOFTPLUS,
        )  # fmt: skip
        _, _, h = _states(decay, drive, h, index, STEPS)
    tl.debug_barrier()  # a state may be read by another thread than the one that wrote it

    carry, grad_a = tl.zeros_like(a), tl.zeros_like(a)
    grad_skip, grad_shift = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for turn in range(0, chunks):
        chunk = chunks - 1 - turn
        s = chunk * STEPS + row
        t = _position(s, length, REVERSE)
        offsets, mask, raw, dt, x, decay, drive = _chunk(
            u, delta, B, a, shift, s, t, d, n, channels, N, length, stride_d, stride_t, stride_n, stride_mt, SOFTPLUS,
        )  # fmt: skip
        h = tl.load(starts + chunk * STATES * CHANNELS + slot)
        before, after, _ = _states(decay, drive, h, index, STEPS)

        # Large tiles are loaded late, and used up before the next is needed: that keeps all in registers.
        grad_out = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32) * scale
        gy = grad_out
        if GATED:
            gate = tl.load(z + t[:, None] * stride_zt + d[None, :] * stride_zd, mask=mask, other=0.0).to(tl.float32)
            sigmoid = _sigmoid(gate)
            gy *= gate * sigmoid
        matrix_mask = (s < length)[:, None] & (n < N)[None, :]
        matrix_at = n[None, :] * length + t[:, None]
        tl.store(part_C + matrix_at, _sum_over_channels(after, gy), mask=matrix_mask)
        Ct = _matrix(C, t, n, s < length, N, stride_n, stride_mt)
        if GATED:
            y = tl.sum(after * Ct, axis=1) + skip * x
            if not FIRST:
                y += tl.load(partial + offsets, mask=mask, other=0.0)
            if LAST:
                grad_gate = grad_out * y * (sigmoid + gate * sigmoid * (1.0 - sigmoid))
                tl.store(grad_z + offsets, grad_gate.to(grad_z.dtype.element_ty), mask=mask)
            else:
                tl.store(partial + offsets, y, mask=mask)

        grads, carries, carry = _gradients(decay, gy[:, None, :] * Ct, carry, index, STEPS)
        exponent = carries * before
        grad_a += tl.sum(exponent * dt[:, None, :], axis=0)
        grad_dt = tl.sum(exponent * a[None, :, :], axis=1) / LOG2E
        tl.store(part_B + matrix_at, _sum_over_channels(grads, dt * x), mask=matrix_mask)
        grad_x = tl.sum(grads * _matrix(B, t, n, s < length, N, stride_n, stride_mt), axis=1)
        grad_dt += grad_x * x
        if SOFTPLUS:
            grad_dt *= _sigmoid(raw)
        grad_dt = tl.where(mask, grad_dt, 0.0)
        grad_skip += tl.sum(gy * x, axis=0)
        grad_shift += tl.sum(grad_dt, axis=0)
        tl.store(grad_u + offsets, (grad_x * dt + gy * skip).to(grad_u.dtype.element_ty), mask=mask)
        tl.store(grad_delta + offsets, grad_dt.to(grad_delta.dtype.element_ty), mask=mask)
    here = d < channels
    tl.store(part_A + d[None, :] * N + n[:, None], grad_a, mask=here[None, :] & (n < N)[:, None])
    tl.store(part_D + d, grad_skip, mask=here)
    tl.store(part_bias + d, grad_shift, mask=here)


@triton.jit
def scan_backward(
    grad, u, delta, A, B, C, D, bias,
    u2, delta2, A2, B2, C2, D2, bias2,
    z, partial, starts, grad_z,
    grad_u, grad_delta, part_A, part_D, part_bias, part_B, part_C,
    grad_u2, grad_delta2, part_A2, part_D2, part_bias2, part_B2, part_C2,
    stride_vectors, stride_matrices, channels, N, length, chunks,
    stride_b, stride_d, stride_t, stride_zb, stride_zd, stride_zt, stride_mb, stride_n, stride_mt, scale,
    REVERSE: tl.constexpr, BOTH: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid as ``scan_forward``. Parts to be summed: of A, D and bias per sequence, of B and C per program."""
    block, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    at, mat, gate_at = batch * stride_b, batch * stride_mb, batch * stride_zb
    program = block * tl.num_programs(1) + batch
    own = starts + program * chunks * STATES * CHANNELS
    matrix, vector = program * stride_matrices, batch * stride_vectors
    _backward_direction(
        grad + at, u + at, delta + at, A, B + mat, C + mat, D, bias, z + gate_at, partial + at, own,
        grad_u + at, grad_delta + at, grad_z + at, part_A + vector, part_B + matrix,
        part_C + matrix, part_D + vector, part_bias + vector,
        d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
        REVERSE, True, not BOTH, SOFTPLUS, GATED, STEPS, STATES, CHANNELS,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # other threads of this program wrote what is read next
        _backward_direction(
            grad + at, u2 + at, delta2 + at, A2, B2 + mat, C2 + mat, D2, bias2, z + gate_at, partial + at, own,
            grad_u2 + at, grad_delta2 + at, grad_z + at, part_A2 + vector, part_B2 + matrix,
            part_C2 + matrix, part_D2 + vector, part_bias2 + vector,
            d, n, channels, N, length, chunks, stride_d, stride_t, stride_zd, stride_zt, stride_n, stride_mt, scale,
            not REVERSE, False, True, SOFTPLUS, GATED, STEPS, STATES, CHANNELS,
        )  # fmt: skip


@triton.jit
def _pushed(window, new, tap, TAPS: tl.constexpr):
    """The window one step earlier: every row moves back by one, and the new one is the first."""
    moved = tl.where(tap == 0, new[None, :], window)
    for j in tl.static_range(1, TAPS):
        moved = tl.where(tap == j, _step(window, tap, j - 1)[None, :], moved)
    return moved


@triton.jit
def _load_steps(pointer, first, d, here, length, stride_d, stride_t, index,
                REVERSE: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
    """Steps first, first - 1, ... as a tile [STEPS, CHANNELS] with all steps of a channel in one thread."""
    tile = tl.zeros((STEPS, d.shape[0]), tl.float32)
    for i in tl.static_range(STEPS):
        s = first - i
        mask = here & (s >= 0) & (s < length)
        row = tl.load(pointer + _position(s, length, REVERSE) * stride_t + d * stride_d, mask=mask, other=0.0)
        tile = tl.where(index == i, row.to(tl.float32)[None, :], tile)
    return tile


@triton.jit
def _store_steps(pointer, tile, first, d, here, length, stride_d, stride_t, index,
                 REVERSE: tl.constexpr, STEPS: tl.constexpr):  # fmt: skip
    for i in tl.static_range(STEPS):
        s = first - i
        row = _step(tile, index, i).to(pointer.dtype.element_ty)
        at = _position(s, length, REVERSE) * stride_t + d * stride_d
        tl.store(pointer + at, row, mask=here & (s >= 0) & (s < length))


@triton.jit
def conv_forward(
    x, weight, bias, out, channels, length, chunks,
    stride_xb, stride_xd, stride_xt, stride_b, stride_d, stride_t,
    REVERSE: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr, TAPS: tl.constexpr, STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (channel blocks, batch); TAPS is WIDTH or the next power of two.

    Goes from the last step to the first. ``window`` holds the inputs of step s: those of steps s - WIDTH + 1 to s.
    """
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    here = d < channels
    tap, index = tl.arange(0, TAPS)[:, None], tl.arange(0, STEPS)[:, None]
    taps = (tap < WIDTH) & here[None, :]
    w = tl.load(weight + d[None, :] * WIDTH + tap, mask=taps, other=0.0).to(tl.float32)
    shift = tl.load(bias + d, mask=here, other=0.0).to(tl.float32)
    x += b * stride_xb
    out += b * stride_b
    window = tl.zeros((TAPS, CHANNELS), tl.float32)
    for chunk in range(0, chunks):
        r = length - 1 - chunk * STEPS
        new = _load_steps(x, r, d, here, length, stride_xd, stride_xt, index, REVERSE, STEPS)
        y = new
        for i in tl.static_range(STEPS):
            window = _pushed(window, _step(new, index, i), tap, TAPS)
            y = tl.where(index == i, (tl.sum(window * w, axis=0) + shift)[None, :], y)
        if SILU:
            y *= _sigmoid(y)
        _store_steps(out, y, r + WIDTH - 1, d, here, length, stride_d, stride_t, index, REVERSE, STEPS)


@triton.jit
def conv_backward(
    grad, x, weight, bias, grad_x, part_weight, part_bias, stride_parts, channels, length, chunks,
    stride_xb, stride_xd, stride_xt, stride_b, stride_d, stride_t,
    ADD: tl.constexpr, REVERSE: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr, TAPS: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid and order as ``conv_forward``, whose outputs are recomputed.

    ``later`` holds the gradients of the outputs that step s enters: those of steps s to s + WIDTH - 1.
    With ADD, the gradient of x is added to ``grad_x``. Parts to be summed: of weight and bias per sequence.
    """
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    here = d < channels
    tap, index = tl.arange(0, TAPS)[:, None], tl.arange(0, STEPS)[:, None]
    taps = (tap < WIDTH) & here[None, :]
    w = tl.load(weight + d[None, :] * WIDTH + tap, mask=taps, other=0.0).to(tl.float32)
    flipped = tl.load(weight + d[None, :] * WIDTH + WIDTH - 1 - tap, mask=taps, other=0.0).to(tl.float32)
    shift = tl.load(bias + d, mask=here, other=0.0).to(tl.float32)
    x += b * stride_xb
    grad += b * stride_b
    grad_x += b * stride_b
    window = tl.zeros((TAPS, CHANNELS), tl.float32)
    later = tl.zeros((TAPS, CHANNELS), tl.float32)
    sum_w = tl.zeros((TAPS, CHANNELS), tl.float32)
    sum_b = tl.zeros((CHANNELS,), tl.float32)
    for chunk in range(0, chunks):
        r = length - 1 - chunk * STEPS
        new = _load_steps(x, r, d, here, length, stride_xd, stride_xt, index, REVERSE, STEPS)
        g = _load_steps(grad, r + WIDTH - 1, d, here, length, stride_d, stride_t, index, REVERSE, STEPS)
        total = g
        for i in tl.static_range(STEPS):
            window = _pushed(window, _step(new, index, i), tap, TAPS)
            one = _step(g, index, i)
            if SILU:
                y = tl.sum(window * w, axis=0) + shift
                sigmoid = _sigmoid(y)
                one *= sigmoid + y * sigmoid * (1.0 - sigmoid)
            later = _pushed(later, one, tap, TAPS)
            total = tl.where(index == i, tl.sum(later * flipped, axis=0)[None, :], total)
            sum_w += window * one[None, :]
            sum_b += one
        if ADD:
            total += _load_steps(grad_x, r + WIDTH - 1, d, here, length, stride_d, stride_t, index, REVERSE, STEPS)
        _store_steps(grad_x, total, r + WIDTH - 1, d, here, length, stride_d, stride_t, index, REVERSE, STEPS)
    tl.store(part_weight + b * stride_parts + d[None, :] * WIDTH + tap, sum_w, mask=taps)
    tl.store(part_bias + b * stride_parts + d, sum_b, mask=here)
