"""Lets a network compute a part of a batch as it would compute the whole batch on one device.

Two things in a network depend on the whole batch. A mode of torch replaces both while the network runs:

- Random numbers, as in dropout and stochastic depth, are drawn for the whole batch; those of the part are used.
- Batch norm in training uses the statistics of all processes, if they share them.

Draws are recognised by their first dimension: the images, or a multiple of them where an image has several consecutive
rows, such as windows or stripes. Others, such as dropout inside an attention kernel, are not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.training.group import Group

DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout}
LIKE = {*DROPOUTS, torch.bernoulli, torch.rand_like, torch.randn_like}
"""Functions that draw one value per element of their first argument."""
IN_PLACE = {Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.exponential_}
DRAWS = LIKE | IN_PLACE
SIZED = {torch.rand, torch.randn}
"""Functions that draw a tensor of the size given by their arguments."""


class PartOfBatch(TorchFunctionMode):
    """While it is active, the images of a batch's part are treated as images of the whole batch.

    Args:
        start: first image of the part.
        size: number of images of the part.
        whole: number of images of the batch.
        group: processes that hold the other parts and share the statistics of batch norm; without one, batch norm uses
            the statistics of the part.
    """

    active: PartOfBatch | None = None

    def __init__(self, start: int, size: int, whole: int, group: Group | None = None) -> None:
        super().__init__()
        self.start, self.size, self.whole, self.group = start, size, whole, group

    def __enter__(self) -> PartOfBatch:
        self._outer, PartOfBatch.active = PartOfBatch.active, self
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        PartOfBatch.active = self._outer
        super().__exit__(*raised)

    def again(self) -> PartOfBatch:
        """Returns an equal mode, for activations that are computed again."""
        return PartOfBatch(self.start, self.size, self.whole, self.group)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.batch_norm and self.group is not None:
            return _batch_norm(self.group, *args, **given)
        if func in SIZED and (rows := self._rows_of_image(size := _size(args, given))):
            given.pop("size", None)
            return func((rows * self.whole, *size[1:]), **given)[self._own(rows)]
        if func in DRAWS and _draws(func, args, given) and (rows := self._rows_of_image(args[0].shape)):
            drawn = func(self._embedded(args[0], rows), *args[1:], **given)[self._own(rows)]
            return args[0].copy_(drawn) if func in IN_PLACE else drawn
        return func(*args, **given)

    def _own(self, rows: int) -> slice:
        return slice(rows * self.start, rows * (self.start + self.size))

    def _rows_of_image(self, shape: Sequence[int]) -> int:
        """The number of consecutive rows that each image has in a tensor; 0 if the rows are no images."""
        return shape[0] // self.size if len(shape) and shape[0] % self.size == 0 else 0

    def _embedded(self, part: Tensor, rows: int) -> Tensor:
        """Returns the whole [rows * images, ...] with zeros beside the part, in the memory format of the part."""
        channels_last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if channels_last else torch.contiguous_format
        size = (rows * self.whole, *part.shape[1:])
        whole = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=order).zero_()
        whole[self._own(rows)] = part
        return whole


def _size(args: Sequence[Any], given: Mapping[str, Any]) -> Sequence[int]:
    """The size of a tensor to draw, which is an argument or several."""
    if "size" in given:
        return cast(Sequence[int], given["size"])
    return args[0] if args and isinstance(args[0], Sequence) else args


def _draws(func: Callable[..., Any], args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether a call draws numbers; dropout does only in training, with a probability above 0."""
    if not (args and isinstance(args[0], Tensor)):
        return False
    if func not in DROPOUTS:
        return True
    call = inspect.signature(func).bind(*args, **given)
    call.apply_defaults()
    return bool(call.arguments["training"] and call.arguments["p"])


class _Gather(torch.autograd.Function):
    """Gathers equal tensors of all processes, [...] to [size, ...]; the gradient is the sum over all processes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, group: Group) -> Tensor:
        context.rank = group.rank
        return group.gather(tensor[None])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[context.rank], None


def _batch_norm(
    group: Group,
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm of [B, C, ...] with the statistics of all processes; the arguments are those of torch's function."""
    if not training:
        return F.batch_norm(images, running_mean, running_var, weight, bias, False, momentum, eps)
    if images.device.type == "cuda":
        from torch.nn.modules._functions import SyncBatchNorm

        channels = images.shape[1]
        weight = images.new_ones(channels, dtype=torch.float32) if weight is None else weight
        bias = images.new_zeros(channels, dtype=torch.float32) if bias is None else bias
        shared = (running_mean, running_var, eps, momentum, dist.group.WORLD, group.size)
        return cast(Tensor, SyncBatchNorm.apply(images, weight, bias, *shared))
    values = images if images.dtype == torch.float64 else images.float()
    others = [d for d in range(values.ndim) if d != 1]
    variance, mean = torch.var_mean(values, others, correction=0)
    all_means, all_variances = _Gather.apply(torch.stack([mean, variance]), group).unbind(1)
    mean = all_means.mean(0)
    variance = all_variances.mean(0) + (all_means - mean).square().mean(0)
    if running_mean is not None and running_var is not None:
        count = group.size * values.numel() // len(mean)
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / max(count - 1, 1), momentum)
    shape = [1, -1, *(1 for _ in others[1:])]
    normal = (values - mean.view(shape)) * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normal = normal * weight.view(shape)
    if bias is not None:
        normal = normal + bias.view(shape)
    return normal.to(images.dtype)
