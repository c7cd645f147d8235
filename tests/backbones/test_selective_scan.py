"""Values and gradients of the selective scan, against a float64 loop written from the formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.selective_scan import ScanInputs, bidirectional_scan, causal_conv1d, selective_scan

torch.set_num_threads(2)
CPU = ["cpu", "torch"]


def loop_scan(u, delta, A, B, C, D=None, *, z=None, delta_bias=None, delta_softplus=False, reverse=False):
    """h_t = exp(d_t A) h_{t-1} + d_t B_t u_t;  y_t = C_t h_t + D u_t;  gated by silu(z_t)."""
    d = delta if delta_bias is None else delta + delta_bias[:, None]
    if delta_softplus:
        d = F.softplus(d)
    length = u.shape[2]
    h, outputs = u.new_zeros(()), [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        h = torch.exp(d[:, :, t, None] * A) * h + (d[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t]
        outputs[t] = (h * C[:, None, :, t]).sum(-1)
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + D[:, None] * u
    return y if z is None else y * F.silu(z)


def loop_conv(x, weight, bias, silu, reverse):
    """out_t = silu(bias + sum_j weight_j x[t - W + 1 + j]), on the flipped sequence if reverse."""
    if reverse:
        return loop_conv(x.flip(2), weight, bias, silu, False).flip(2)
    width, length = weight.shape[1], x.shape[2]
    steps = []
    for t in range(length):
        step = torch.zeros_like(x[:, :, 0]) + (0 if bias is None else bias)
        for j in range(max(0, width - 1 - t), width):
            step = step + weight[:, j] * x[:, :, t - width + 1 + j]
        steps.append(step)
    out = torch.stack(steps, dim=-1)
    return F.silu(out) if silu else out


def scan_tensors(batch, channels, states, length, *, dtype=torch.float64, seed=0):
    """Random tensors for a scan, leaves that require gradients."""
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_()

    return {
        "u": leaf(batch, channels, length),
        "delta": leaf(batch, channels, length),
        "A": torch.from_numpy(-rng.uniform(0.1, 8, (channels, states))).to(dtype).requires_grad_(),
        "B": leaf(batch, states, length),
        "C": leaf(batch, states, length),
        "D": leaf(channels),
        "z": leaf(batch, channels, length),
        "delta_bias": leaf(channels),
    }


def in_float64(tensors):
    return {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}


def difference(found, expected, floor=0.0):
    """Relative error in the norm; a root mean square below the floor counts as the floor."""
    size = max(expected.norm().item(), floor * expected.numel() ** 0.5, 1e-12)
    return (found.double() - expected).norm().item() / size


def assert_same(found, expected, found_inputs, expected_inputs, tolerance, floor=0.0):
    """Compares outputs, and the gradients of all inputs for one random gradient of the output."""
    grad = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(expected.shape))).to(found.device)
    found_grads = torch.autograd.grad(found, list(found_inputs.values()), grad.to(found.dtype))
    expected_grads = torch.autograd.grad(expected, list(expected_inputs.values()), grad)
    errors = {"output": difference(found, expected, floor)}
    for name, a, b in zip(found_inputs, found_grads, expected_grads, strict=True):
        errors[name] = difference(a, b, floor)
    assert max(errors.values()) < tolerance, errors


# A sum of many random numbers may cancel almost completely, so that only rounding errors are left.
CANCELLATION = 0.1


def check_scan(implementation, shape, dtype, *, tolerance, **options):
    tensors = scan_tensors(*shape, dtype=dtype)
    exact = in_float64(tensors)
    found = selective_scan(**tensors, implementation=implementation, **options)
    assert found.dtype == dtype and found.shape == tensors["u"].shape
    assert_same(found, loop_scan(**exact, **options), tensors, exact, tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 65, 16, 1), (3, 66, 2, 161), (1, 7, 5, 400)])
def test_values_and_gradients_in_float32(implementation, shape, reverse):
    check_scan(implementation, shape, torch.float32, tolerance=1e-5, delta_softplus=True, reverse=reverse)


@settings(max_examples=25, deadline=None)
@given(
    implementation=st.sampled_from(CPU),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 17), st.integers(1, 60)),
    softplus=st.booleans(),
    reverse=st.booleans(),
)
def test_any_shape(implementation, shape, softplus, reverse):
    tensors = scan_tensors(*shape, dtype=torch.float32)
    if not softplus:  # a negative step size makes the state grow without bound
        for name in ("delta", "delta_bias"):
            tensors[name] = tensors[name].detach().abs().requires_grad_()
    exact = in_float64(tensors)
    options = {"delta_softplus": softplus, "reverse": reverse}
    found = selective_scan(**tensors, implementation=implementation, **options)
    assert_same(found, loop_scan(**exact, **options), tensors, exact, 1e-5, CANCELLATION)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("missing", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_optional_tensors(implementation, missing):
    tensors = scan_tensors(2, 9, 4, 20, dtype=torch.float32)
    for name in missing:
        del tensors[name]
    exact = in_float64(tensors)
    found = selective_scan(**tensors, delta_softplus=True, implementation=implementation)
    assert_same(found, loop_scan(**exact, delta_softplus=True), tensors, exact, 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck_in_float64(reverse):
    tensors = scan_tensors(1, 2, 2, 17)

    def scan(*values):
        return selective_scan(
            **dict(zip(tensors, values, strict=True)), delta_softplus=True, reverse=reverse, implementation="torch"
        )

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


@pytest.mark.parametrize("implementation", CPU)
def test_reverse_is_flip_scan_flip(implementation):
    tensors = {name: tensor.detach() for name, tensor in scan_tensors(2, 9, 4, 33, dtype=torch.float32).items()}
    steps = ("u", "delta", "B", "C", "z")
    flipped = {name: tensor.flip(-1) if name in steps else tensor for name, tensor in tensors.items()}
    there = selective_scan(**tensors, delta_softplus=True, reverse=True, implementation=implementation)
    back = selective_scan(**flipped, delta_softplus=True, implementation=implementation).flip(-1)
    torch.testing.assert_close(there, back, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", CPU)
def test_strided_inputs(implementation):
    tensors = scan_tensors(2, 9, 4, 20, dtype=torch.float32)
    strided = {
        name: tensor.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        if tensor.dim() == 3
        else torch.stack([tensor.detach()] * 2, dim=-1)[..., 0].requires_grad_()
        for name, tensor in tensors.items()
    }
    assert not any(tensor.is_contiguous() for tensor in strided.values())
    exact = in_float64(tensors)
    found = selective_scan(**strided, delta_softplus=True, implementation=implementation)
    assert_same(found, loop_scan(**exact, delta_softplus=True), strided, exact, 1e-5)


def test_broadcast_gradient_of_a_sum():
    tensors = scan_tensors(2, 9, 4, 20, dtype=torch.float32)
    exact = in_float64(tensors)
    selective_scan(**tensors, delta_softplus=True).sum().backward()
    loop_scan(**exact, delta_softplus=True).sum().backward()
    assert max(difference(tensors[name].grad, exact[name].grad) for name in tensors) < 1e-5


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(implementation, dtype):
    tensors = scan_tensors(2, 9, 4, 40, dtype=dtype)
    exact = in_float64(tensors)
    found = selective_scan(**tensors, delta_softplus=True, implementation=implementation)
    assert found.dtype == dtype
    grads = torch.autograd.grad(found.sum(), list(tensors.values()))
    expected = loop_scan(**exact, delta_softplus=True)
    rounding = torch.finfo(dtype).eps
    assert difference(found, expected) < rounding
    for grad, exact_grad in zip(grads, torch.autograd.grad(expected.sum(), list(exact.values())), strict=True):
        assert grad.dtype == dtype and difference(grad, exact_grad) < rounding


def test_half_precision_activations_with_float32_parameters():
    tensors = scan_tensors(2, 9, 4, 20, dtype=torch.float32)
    for name in ("u", "delta", "B", "C", "z"):
        tensors[name] = tensors[name].detach().bfloat16().requires_grad_()
    out = selective_scan(**tensors, delta_softplus=True)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(tensor.grad.dtype == tensor.dtype for tensor in tensors.values())


@pytest.mark.parametrize("implementation", CPU)
def test_only_the_wanted_gradients(implementation):
    tensors = scan_tensors(1, 3, 2, 5, dtype=torch.float32)
    for name in ("u", "B", "D"):
        tensors[name].requires_grad_(False)
    selective_scan(**tensors, implementation=implementation).sum().backward()
    assert {name for name, tensor in tensors.items() if tensor.grad is None} == {"u", "B", "D"}


def test_a_shared_parameter_collects_both_gradients():
    tensors = scan_tensors(1, 3, 2, 5, dtype=torch.float32)
    once = torch.autograd.grad(selective_scan(**tensors).sum(), tensors["A"])[0]
    both = torch.autograd.grad((selective_scan(**tensors) + selective_scan(**tensors)).sum(), tensors["A"])[0]
    torch.testing.assert_close(both, 2 * once)


@pytest.mark.parametrize("implementation", CPU)
def test_no_graph_without_gradients(implementation):
    tensors = scan_tensors(1, 3, 2, 5, dtype=torch.float32)
    with torch.no_grad():
        assert selective_scan(**tensors, implementation=implementation).grad_fn is None


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_a_diverged_input_shows(implementation, name):
    tensors = {key: value.detach() for key, value in scan_tensors(1, 3, 2, 5, dtype=torch.float32).items()}
    tensors[name].view(-1)[0] = float("nan")
    assert selective_scan(**tensors, delta_softplus=True, implementation=implementation).isnan().any()


@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [(name, torch.float32) for name in CPU] + [(name, torch.float64) for name in CPU if name != "cpu"],
)
@pytest.mark.parametrize("gated", [False, True])
def test_bidirectional(implementation, dtype, gated):
    one, two = (scan_tensors(2, 70, 5, 23, dtype=dtype, seed=seed) for seed in (1, 2))
    z = one.pop("z")
    del two["z"]
    found_inputs = {f"{name} {i}": tensor for i, side in enumerate((one, two)) for name, tensor in side.items()}
    if gated:
        found_inputs["z"] = z
    exact = in_float64(found_inputs)
    exact_one, exact_two = ({name: exact[f"{name} {i}"] for name in one} for i in (0, 1))
    options = {"z": exact.get("z"), "delta_softplus": True}
    expected = (loop_scan(**exact_one, **options) + loop_scan(**exact_two, **options, reverse=True)) / 2
    found = bidirectional_scan(
        ScanInputs(**one), ScanInputs(**two), z=z if gated else None, implementation=implementation
    )
    assert_same(found, expected, found_inputs, exact, 1e-5 if dtype == torch.float32 else 1e-12)


@settings(max_examples=20, deadline=None)
@given(
    implementation=st.sampled_from(CPU),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 40)),
    width=st.integers(1, 5),
    silu=st.booleans(),
    biased=st.booleans(),
    reverse=st.booleans(),
)
def test_causal_conv(implementation, shape, width, silu, biased, reverse):
    rng = np.random.default_rng(0)
    tensors = {"x": rng.standard_normal(shape), "weight": rng.standard_normal((shape[1], width))}
    if biased:
        tensors["bias"] = rng.standard_normal(shape[1])
    tensors = {name: torch.from_numpy(value).float().requires_grad_() for name, value in tensors.items()}
    exact = in_float64(tensors)
    activation = "silu" if silu else None
    found = causal_conv1d(**tensors, activation=activation, reverse=reverse, implementation=implementation)
    expected = loop_conv(exact["x"], exact["weight"], exact.get("bias"), silu, reverse)
    assert_same(found, expected, tensors, exact, 1e-5, CANCELLATION)


def test_causal_conv_takes_the_weight_of_a_module():
    conv = torch.nn.Conv1d(6, 6, 4, groups=6, padding=3)
    x = torch.randn(2, 6, 11)
    found = causal_conv1d(x, conv.weight, conv.bias, activation=None)
    torch.testing.assert_close(found, conv(x)[..., :11], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("delta", (2, 3, 6)), ("A", (4, 2)), ("B", (2, 3, 5)), ("C", (1, 2, 5)), ("D", (2,)), ("z", (2, 5, 3))],
)
def test_a_wrong_shape_is_a_sentence(name, shape):
    tensors = scan_tensors(2, 3, 2, 5, dtype=torch.float32)
    tensors[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"selective_scan: {name} must have the shape"):
        selective_scan(**tensors)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"u": torch.zeros(3, 5)}, "u must be"),
        ({"A": torch.zeros(3)}, "A must be"),
        ({"D": torch.zeros(3, dtype=torch.long)}, "floating point"),
        ({"implementation": "fastest"}, "no selective scan called"),
    ],
)
def test_other_errors(changes, sentence):
    tensors = scan_tensors(2, 3, 2, 5, dtype=torch.float32)
    with pytest.raises(ValueError, match=sentence):
        selective_scan(**{**tensors, **changes})


def test_an_empty_sequence_is_an_error():
    with pytest.raises(ValueError, match="at least one step"):
        selective_scan(**scan_tensors(1, 2, 2, 0, dtype=torch.float32))


def test_conv_errors():
    x, weight = torch.zeros(1, 3, 5), torch.zeros(3, 4)
    with pytest.raises(ValueError, match="activation"):
        causal_conv1d(x, weight, activation="gelu")
    with pytest.raises(ValueError, match="weight must have the shape"):
        causal_conv1d(x, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="bias must have the shape"):
        causal_conv1d(x, weight, torch.zeros(4))
