"""The selective scan of Mamba (arXiv 2312.00752, section 3) and the causal convolution before it.

One set of functions, several implementations that give the same values: a fast one for the CPU, a Triton one for
the GPU, the kernels of ``mamba-ssm`` where that package is installed, and plain PyTorch for every other device and
data type. ``README.md`` beside this file has the formulas, the choice between implementations and the measured speed.

    v_f = causal_conv1d(x, conv.weight, conv.bias)
    v_b = causal_conv1d(x, conv_b.weight, conv_b.bias, reverse=True)
    y = bidirectional_scan(
        ScanInputs(v_f, delta_f, A_f, B_f, C_f, D_f, bias_f),
        ScanInputs(v_b, delta_b, A_b, B_b, C_b, D_b, bias_b),
        z=z,
    )
"""

from backbones.selective_scan.choice import available_implementations, implementation_for, use_implementation
from backbones.selective_scan.operators import bidirectional_scan, causal_conv1d, selective_scan
from backbones.selective_scan.shapes import ScanInputs

__all__ = [
    "ScanInputs",
    "available_implementations",
    "bidirectional_scan",
    "causal_conv1d",
    "implementation_for",
    "selective_scan",
    "use_implementation",
]
