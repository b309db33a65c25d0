"""Training in several processes with the same result as in one: the same batches, the same statistics."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


def processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_of(whole: Tensor) -> Tensor:
    """Return this process's share of a batch ``(N, ...)`` that all processes have."""
    return whole.chunk(processes())[dist.get_rank()] if dist.is_initialized() else whole


class Total(Function):
    """The sum of a tensor over all processes; gradients are summed too."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        return Total.forward(ctx, gradients[0])


def total(value: Tensor) -> Tensor:
    """Return the sum over all processes; see `Total`."""
    answer: Tensor = Total.apply(value)
    return answer


def sum_of(value: Tensor) -> Tensor:
    """Return the sum over all processes, without a gradient."""
    return total(value.detach()) if processes() > 1 else value.detach()


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation over the batches of all processes, on any device.

    (torch's own SyncBatchNorm works only on GPUs.)
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name for it
        """Accept any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """``(N, C, ...)`` -> the same shape and type."""
        if not self.training or processes() == 1:
            return super().forward(input)
        values = input.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(values.dim())]
        count = processes() * values.numel() // values.shape[1]
        mean = total(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = total(centred.square().sum(axes)) / count
        with torch.no_grad():
            self._remember(mean, variance * count / (count - 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        scaled: Tensor = normal * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        for known, found in ((self.running_mean, mean), (self.running_var, variance)):
            if known is not None and self.momentum is not None:
                known.lerp_(found, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def share_statistics(network: nn.Module) -> None:
    """Replace every batch normalisation in ``network`` by a `SharedBatchNorm` with the same parameters."""
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            shared = SharedBatchNorm(module.num_features, module.eps, module.momentum)
            shared.load_state_dict(module.state_dict())
            setattr(network, name, shared)
        else:
            share_statistics(module)
