"""A folded BigGAN-deep in torch, operation by operation, on any device and in any precision."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepviz.generators.biggan_folded import (
    NORMS_PER_BLOCK,
    Affine,
    Attention,
    Block,
    FoldedNetwork,
    map_tensors,
)
from deepviz.generators.biggan_runtime import CpuRuntime
from deepviz.generators.checkpoint import FIRST_SIDE


class EagerRuntime(CpuRuntime):
    """Computes a folded network on the CPU, ``part`` pictures at a time."""

    def __init__(self, network: FoldedNetwork, part: int, precision: str = "float32") -> None:
        super().__init__(part)
        self._network = in_precision(place(network, torch.device("cpu")), precision)
        words = [f"{torch.get_num_threads()} threads"]
        words += [precision] if precision != "float32" else []
        self.device = f"cpu ({', '.join(words)})"

    @torch.inference_mode()
    def _compute(self, condition: np.ndarray) -> Tensor:
        return forward(self._network, torch.from_numpy(condition))


def place(network: FoldedNetwork, device: torch.device) -> FoldedNetwork:
    """The network on a device, its kernels in the layout that is fastest there: channels last."""

    def move(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(device, memory_format=layout)

    moved: FoldedNetwork = map_tensors(move, network)
    return moved


def in_precision(network: FoldedNetwork, precision: str) -> FoldedNetwork:
    """The network with its blocks and attention, nearly all of the arithmetic, in a precision.

    What makes the first feature map, the norms and the colours stays in float32: little work, and
    an error there is in every pixel, or seen as it is.
    """
    dtype: torch.dtype = getattr(torch, precision)
    large = (network.blocks, network.attention)
    blocks, attention = map_tensors(lambda tensor: tensor.to(dtype), large)
    return replace(network, blocks=blocks, attention=attention)


def forward(network: FoldedNetwork, condition: Tensor) -> Tensor:
    """Noise and class embeddings, shape = (B, 256), to RGB, shape = (B, side, side, 3).

    Both float32; in between, the precision is that of the weights: see :func:`in_precision`.
    """
    dtype = network.attention.theta.dtype
    first = _affine(condition, network.first).to(dtype)
    x = first.view(len(condition), FIRST_SIDE, FIRST_SIDE, -1).permute(0, 3, 1, 2)
    widths = [width for width in network.norm_widths for _ in range(2)]
    scales_and_offsets = _affine(condition, network.norms).to(dtype)
    norms = iter(scales_and_offsets[..., None, None].split(widths, 1))
    for i, block in enumerate(network.blocks):
        if i == network.attention_before:
            x = _attend(network.attention, x)
        x = _run_block(block, x, list(itertools.islice(norms, 2 * NORMS_PER_BLOCK)))
    colours = network.colours
    rows = F.conv2d(x.relu_().to(colours.rows.dtype), colours.rows, padding=(0, 1))
    pictures = F.conv2d(rows, colours.columns, colours.bias, padding=(1, 0))
    return pictures.tanh_().permute(0, 2, 3, 1)


def _affine(x: Tensor, affine: Affine) -> Tensor:
    weight, bias = affine
    return torch.addmm(bias, x, weight)


def _run_block(block: Block, x: Tensor, norms: list[Tensor]) -> Tensor:
    """One block; ``norms`` are scale and offset of each of its norms, shapes = (B, C, 1, 1)."""
    h = x
    for j, kernel in enumerate(block.kernels):
        h = torch.addcmul(norms[2 * j + 1], h, norms[2 * j]).relu_()
        if block.upsamples and j == 1:
            h = F.conv_transpose2d(h, kernel, stride=2, padding=1)
        else:
            bias = block.bias if j == NORMS_PER_BLOCK - 1 else None
            h = F.conv2d(h, kernel, bias, padding=kernel.shape[-1] // 2)
    skip = x[:, : h.shape[1]]  # a narrower block drops the channels that it has no room for
    if block.skip_scale is not None:
        skip = skip * block.skip_scale.view(-1, 1, 1)
    if block.upsamples:
        skip = F.interpolate(skip, scale_factor=2, mode="nearest")
    return h.add_(skip)


def _attend(attention: Attention, x: Tensor) -> Tensor:
    """Self-attention (Zhang et al. 2019): each pixel looks at keys of half the size."""

    def rows(image: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H * W, C)
        return image.flatten(2).transpose(1, 2).unsqueeze(1)

    query = rows(F.conv2d(x, attention.theta))
    key = rows(F.max_pool2d(F.conv2d(x, attention.phi), 2))
    value = rows(F.max_pool2d(F.conv2d(x, attention.g), 2))
    seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    seen = seen.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
    return x + F.conv2d(seen, attention.out)
