"""The selective scan of Mamba (arXiv 2312.00752, section 3) and the causal convolution before it.

The functions have several implementations with the same results: a fast one for the CPU, a Triton one for the GPU, the
kernels of ``mamba-ssm`` if that package is installed, and plain PyTorch for every other device and data type.
``README.md`` in this folder has the formulas, the choice of the implementation and the measured speed.

    y = selective_scan(u, delta, A, B, C, D, z=z, delta_bias=bias, delta_softplus=True)
    y = bidirectional_mixer(x, z, MixerWeights(...), MixerWeights(...))  # convolution, projections and both scans
"""

from backbones.selective_scan.choice import available_implementations, implementation_for, use_implementation
from backbones.selective_scan.operators import bidirectional_mixer, bidirectional_scan, causal_conv1d, selective_scan
from backbones.selective_scan.shapes import MixerWeights, ScanInputs

__all__ = [
    "MixerWeights",
    "ScanInputs",
    "available_implementations",
    "bidirectional_mixer",
    "bidirectional_scan",
    "causal_conv1d",
    "implementation_for",
    "selective_scan",
    "use_implementation",
]
