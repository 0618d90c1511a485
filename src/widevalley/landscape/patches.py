"""Convolutions as matrix products of patches, for float64 on a CPU, where torch takes the images one by one.

A product with the Hessian of small-LeNet took 40 % of the time so with batches of 128 images, 70 % with 512.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# Of the patches of a batch, which are kernel-size times the images: beyond, torch's own way is as fast, and needs less.
PATCH_BYTES = 2**26


def convolve_patches(model: nn.Module) -> None:
    """Makes the model's plain convolutions compute in that way, if it is in float64 on a CPU; others stay."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _plain(module):
            module.__class__ = _ByPatches


class _ByPatches(nn.Conv2d):
    """A plain one: no groups, no dilation, padded with zeros."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, outputs, …), as ``nn.Conv2d.forward``."""
        if images.ndim != 4:
            return super().forward(images)
        (height, width), (down, right) = self.kernel_size, self.stride
        above, left = (int(side) for side in self.padding)
        padded = pad(images, (left, left, above, above)) if above or left else images
        # A view until it is reshaped.
        patches = padded.unfold(2, height, down).unfold(3, width, right)
        if patches.numel() * patches.element_size() > PATCH_BYTES:
            return super().forward(images)
        n, _, rows, columns = patches.shape[:4]
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, -1)
        found = flat @ self.weight.flatten(1).T
        if self.bias is not None:
            found = found + self.bias
        return found.view(n, rows, columns, -1).permute(0, 3, 1, 2)


def _plain(convolution: nn.Conv2d) -> bool:
    weight = convolution.weight
    return (
        weight.dtype == torch.float64
        and weight.device.type == "cpu"
        and convolution.groups == 1
        and convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )
