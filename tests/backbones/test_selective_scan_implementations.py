"""Which implementation is chosen, and that the fast CPU one does not depend on threads, forks or a writable cache."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from backbones.selective_scan import (
    ScanInputs,
    available_implementations,
    bidirectional_scan,
    causal_conv1d,
    implementation_for,
    selective_scan,
    use_implementation,
)
from backbones.selective_scan import cpu as cpu_implementation
from tests.backbones.test_selective_scan import scan_tensors

REPOSITORY = Path(__file__).resolve().parents[2]


def results(batch=2, channels=130, states=4, length=40):
    """Outputs and all gradients of the three operators, on more than one task and one chunk of work."""
    one, two = (scan_tensors(batch, channels, states, length, dtype=torch.float32, seed=seed) for seed in (0, 1))
    leaves = [*one.values(), *two.values()]
    z = one.pop("z")
    del two["z"]
    outputs = [
        selective_scan(**one, z=z, delta_softplus=True),
        bidirectional_scan(ScanInputs(**one), ScanInputs(**two), z=z),
        causal_conv1d(one["u"], one["A"], one["D"]),
    ]
    total = sum((output * output).sum() for output in outputs)
    return [*outputs, *(g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None)]


@pytest.fixture
def threads():
    """Sets the number of threads for one test, and makes even small work use them."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_choice_by_device_and_type():
    assert implementation_for("cpu", torch.float32) == "cpu"
    assert implementation_for("cpu", torch.bfloat16) == "cpu"
    assert implementation_for("cpu", torch.float64) == "torch"
    assert implementation_for(torch.device("mps"), torch.float32) == "torch"


def test_every_implementation_is_available_or_says_why_not():
    states = available_implementations()
    assert set(states) == {"cpu", "mamba_ssm", "triton", "torch", "export"}
    assert states["torch"] == states["cpu"] == "available"
    for state in states.values():
        assert state == "available" or (state.endswith(".") and "Traceback" not in state)


def test_a_forced_implementation_is_used_and_forgotten():
    tensors = scan_tensors(1, 3, 2, 5, dtype=torch.float32)
    with use_implementation("torch"):
        assert implementation_for("cpu", torch.float32) == "torch"
        forced = selective_scan(**tensors)
    assert implementation_for("cpu", torch.float32) == "cpu"
    assert torch.equal(forced, selective_scan(**tensors, implementation="torch"))
    with pytest.raises(ValueError, match="no selective scan called"), use_implementation("fastest"):
        pass


def test_an_unfit_implementation_is_a_sentence():
    tensors = scan_tensors(1, 3, 2, 5)
    with pytest.raises(ValueError, match=r"does not serve torch\.float64 on cpu"):
        selective_scan(**tensors, implementation="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a CUDA device")
@pytest.mark.parametrize("name", ["mamba_ssm", "triton"])
def test_an_absent_implementation_is_a_sentence(name):
    if available_implementations()[name] == "available":
        pytest.skip("TRITON_INTERPRET is set; runs without it")
    with pytest.raises(ValueError, match=f'"{name}" cannot be used: .*GPU'):
        selective_scan(**scan_tensors(1, 3, 2, 5, dtype=torch.float32), implementation=name)


def test_bit_identical_for_any_number_of_threads(threads, monkeypatch):
    monkeypatch.setattr(cpu_implementation, "SMALL", 0)
    threads(1)
    one = results()
    for count in (2, 3, 8):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(one, results(), strict=True))


def test_calls_from_several_threads_at_once(threads, monkeypatch):
    monkeypatch.setattr(cpu_implementation, "SMALL", 0)
    threads(2)
    alone = results()
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: results(), range(12)):
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("length", [1, 7])
def test_the_exported_scan_is_the_scan(length):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    def inputs():
        wide = (draw(2, 5, length), draw(2, 5, length), -draw(5, 3).abs(), draw(2, 3, length), draw(2, 3, length))
        return ScanInputs(*wide, D=draw(5), delta_bias=draw(5))

    one, other, z, weight = inputs(), inputs(), draw(2, 5, length), draw(5, 4)

    def all_operators():
        return [
            bidirectional_scan(one, other, z=z),
            *(selective_scan(*one[:5], one.D, z=z, delta_bias=one.delta_bias, reverse=r) for r in (False, True)),
            *(causal_conv1d(one.u, weight, one.D, reverse=r) for r in (False, True)),
        ]

    expected = all_operators()
    with torch.no_grad(), use_implementation("export"):
        found = all_operators()
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, atol=2e-6, rtol=1e-5)


def test_torch_export_chooses_the_scan_that_it_understands():
    tensors = scan_tensors(1, 3, 2, 5, dtype=torch.float32)

    class Chooser(torch.nn.Module):
        def forward(self, x):
            chosen.append(implementation_for(x.device, x.dtype))
            return x + 1

    chosen = []
    torch.export.export(Chooser(), (tensors["u"],), strict=False)
    assert set(chosen) == {"export"}
    assert implementation_for("cpu", torch.float32) == "cpu"


FORK = """
import os, torch
from backbones.selective_scan import cpu
from tests.backbones.test_selective_scan_implementations import results
cpu.SMALL = 0
torch.set_num_threads(2)
before = results()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # PyTorch's own OpenMP threads do not survive a fork
    cpu.torch.get_num_threads = lambda: 2
    os._exit(0 if all(torch.equal(a, b) for a, b in zip(before, results())) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run_python(program: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
def test_works_in_a_forked_child():
    assert run_python(FORK) == "0"


DIGEST = """
import hashlib
from backbones.selective_scan.cpu_kernels import scan
from tests.backbones.test_selective_scan_implementations import results
digest = hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in results())).hexdigest()
print(type(scan._cache).__name__, sum(scan._cache_hits.values()), digest)
"""


@pytest.mark.slow
def test_compiling_and_loading_from_the_cache_give_the_same_bits():
    results()  # fills the cache
    cache, loaded, digest = run_python(DIGEST).split()
    assert cache == "FunctionCache" and int(loaded) > 0
    # The one place that this leaves for a cache exists in notebooks only, so it also tests a machine without one.
    cache, loaded, compiled = run_python(DIGEST, NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator").split()
    assert cache == "NullCache" and int(loaded) == 0
    assert compiled == digest


# -- mamba-ssm and causal-conv1d, which need a GPU: stand-ins with the modules and functions that are imported ---------

PACKAGES = ("mamba_ssm", "selective_scan_cuda", "causal_conv1d", "causal_conv1d_cuda")


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Installs modules with the given source, and pretends that PyTorch sees a GPU."""
    from backbones.selective_scan import mamba_ssm

    def forget():
        mamba_ssm._function.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
            del sys.modules[name]

    def install(**modules):
        for name, source in modules.items():
            path = tmp_path.joinpath(*name.split("__"))
            path.mkdir(parents=True, exist_ok=True)
            (path / "__init__.py").write_text(source)

    forget()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield install
    forget()


INTERFACE = {
    "mamba_ssm": "",
    "mamba_ssm__ops": "",
    "mamba_ssm__ops__selective_scan_interface": "def selective_scan_fn(): raise RuntimeError('not installed')\n",
}
BUILT = INTERFACE | {"selective_scan_cuda": ""}


@pytest.mark.parametrize(
    ("modules", "chosen", "reason"),
    [
        (BUILT, "mamba_ssm", "available"),
        (INTERFACE, "triton", "mamba-ssm cannot be used (No module named 'selective_scan_cuda'). Install it with: "
         "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm."),
        (INTERFACE | {"selective_scan_cuda": "raise OSError('undefined symbol: _ZN3c10\\nmore')"}, "triton",
         "mamba-ssm cannot be used (undefined symbol: _ZN3c10). Install it with: "),
        ({}, "triton", "mamba-ssm cannot be used (No module named 'selective_scan_cuda'). Install it with: "),
    ],
    ids=["built", "without its CUDA scan", "for another PyTorch", "absent"],
)  # fmt: skip
def test_mamba_ssm_is_chosen_only_if_it_can_be_called(stand_ins, modules, chosen, reason):
    pytest.importorskip("triton")
    stand_ins(**modules)
    assert available_implementations()["mamba_ssm"].startswith(reason)
    assert implementation_for("cuda", torch.float32) == chosen


def test_the_convolution_of_causal_conv1d_is_used_only_if_it_is_compiled(stand_ins):
    from backbones.selective_scan import mamba_ssm

    stand_ins(**BUILT, causal_conv1d="def causal_conv1d_fn(): ...\n")
    assert mamba_ssm.conv_function()[0] is None and "causal_conv1d_cuda" in mamba_ssm.conv_function()[1]
    stand_ins(causal_conv1d_cuda="")
    mamba_ssm._function.cache_clear()
    assert mamba_ssm.conv_function()[0].__name__ == "causal_conv1d_fn"
