"""BigGAN-deep folded to the least arithmetic that paints the same pictures.

Batch statistics, biases, upsampling and all else that is constant in a run go into the weights
once, when a network is loaded. What is left is a list of products for a runtime to compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from deepviz.generators.checkpoint import Architecture, Checkpoint

NORMS_PER_BLOCK = 4

Affine = tuple[Tensor, Tensor]  # weight, shape = (in, out), and bias, shape = (out,)


@dataclass(frozen=True)
class Block:
    """A residual block: four times a norm, a relu and a convolution."""

    upsamples: bool
    kernels: tuple[Tensor, ...]  #: of the four convolutions; see :func:`upsampling_kernel`
    bias: Tensor  #: of the last convolution; those of the others are in the norms
    skip_scale: Tensor | None = None  #: for the skip connection; only the last block has one


@dataclass(frozen=True)
class Attention:
    """Kernels of self-attention; shapes = (out, in, 1, 1)."""

    theta: Tensor
    phi: Tensor
    g: Tensor
    out: Tensor  #: times gamma, which weighs attention against its input


@dataclass(frozen=True)
class Colours:
    """The 3x3 convolution to colours as one along rows, and sums of its results down columns.

    As one convolution it has 3 channels out, of the 16 or so that a processor computes at a time;
    in two it has 9, and a third of the products.
    """

    rows: Tensor  #: shape = (9, C, 1, 3): for each row above, at and below a pixel, 3 colours
    columns: Tensor  #: shape = (3, 9, 3, 1): ones and zeros, that pick and add
    bias: Tensor  #: shape = (3,)


@dataclass(frozen=True)
class FoldedNetwork:
    """BigGAN-deep at one truncation, as a list of products.

    A norm with statistics (mean, var) and learned (scale, offset) is x * a + b, where a and b are
    affine in the condition: noise and class embedding. So those of all norms are one matrix
    product.
    """

    side: int  #: height and width of a picture, pixels
    truncation: float
    embedding: Tensor  #: shape = (num_classes, z_dim)
    first: Affine  #: the condition to the first feature map, shape = (4, 4, C) flattened
    norms: Affine  #: the condition to a and b of each norm, in order
    norm_widths: tuple[int, ...]  #: channels of each norm
    blocks: tuple[Block, ...]
    attention: Attention
    attention_before: int  #: index of a block
    colours: Colours


def fold(checkpoint: Checkpoint, truncation: float) -> FoldedNetwork:
    """Fold into a checkpoint's weights its statistics at one truncation, and all that is constant.

    Sums and products are taken in float64, so that a folded weight is rounded once.
    """
    a = checkpoint.architecture
    t = {name.removeprefix("generator."): value for name, value in checkpoint.tensors.items()}
    names = [f"layers.{i + (i >= a.attention_layer_position)}" for i in range(len(a.layers))]
    norms = [
        _fold_norm(t, a, truncation, f"{name}.bn_{j}", f"{name}.conv_{j - 1}.bias" if j else None)
        for name in names
        for j in range(NORMS_PER_BLOCK)
    ]
    blocks = [_fold_block(t, name, up) for name, (up, _, _) in zip(names, a.layers, strict=True)]
    blocks[-1] = _absorb_last_norm(blocks[-1], t, a, truncation)
    network = FoldedNetwork(
        side=a.output_dim,
        truncation=truncation,
        embedding=t["embeddings.weight"].T,
        first=(t["gen_z.weight"].T, t["gen_z.bias"]),
        norms=(torch.cat([w for w, _ in norms], 1), torch.cat([b for _, b in norms])),
        norm_widths=tuple(len(b) // 2 for _, b in norms),
        blocks=tuple(blocks),
        attention=_fold_attention(t, f"layers.{a.attention_layer_position}.snconv1x1"),
        attention_before=a.attention_layer_position,
        colours=_fold_colours(t["conv_to_rgb.weight"][:3], t["conv_to_rgb.bias"][:3]),
    )
    return map_tensors(lambda tensor: tensor.float().contiguous(), network)


def _fold_norm(
    t: dict[str, Tensor], a: Architecture, truncation: float, name: str, bias: str | None
) -> Affine:
    """A conditional norm, and the bias of the convolution before it, as one affine map.

    (x + bias - mean) / s * (1 + S c) + O c for the condition c is x * a + b with a = (1 + S c) / s
    and b = O c - (mean - bias) * a.

    Returns
    -------
    weight : Tensor, shape = (condition_dim, 2 * channels)
    bias : Tensor, shape = (2 * channels,)
    """
    mean, inverse = _moments(t, a, truncation, name)
    if bias is not None:
        mean = mean - t[bias]
    scale = t[f"{name}.scale.weight"].T * inverse
    offset = t[f"{name}.offset.weight"].T - scale * mean
    return torch.cat([scale, offset], 1).float(), torch.cat([inverse, -inverse * mean])


def _moments(
    t: dict[str, Tensor], a: Architecture, truncation: float, norm: str
) -> tuple[Tensor, Tensor]:
    """Mean, and one over the standard deviation, of a norm's input; float64."""
    mean = at_truncation(t[f"{norm}.running_means"].double(), truncation)
    var = at_truncation(t[f"{norm}.running_vars"].double(), truncation)
    return mean, (var + a.eps).rsqrt()


def at_truncation(table: Tensor, truncation: float) -> Tensor:
    """Row of a table of statistics, whose rows are those of truncations evenly from 0 to 1.

    Linear between two rows, the nearer one weighing more.
    """
    position = truncation * (len(table) - 1)
    if abs(position - round(position)) < 1e-6:  # 0.3 * 50 is 15, whatever floats make of it
        return table[round(position)]
    below = int(position)
    return torch.lerp(table[below], table[below + 1], position - below)


def _fold_block(t: dict[str, Tensor], name: str, upsamples: bool) -> Block:
    kernels = [t[f"{name}.conv_{j}.weight"] for j in range(NORMS_PER_BLOCK)]
    if upsamples:
        kernels[1] = upsampling_kernel(kernels[1].double())
    return Block(upsamples, tuple(kernels), t[f"{name}.conv_3.bias"])


def upsampling_kernel(kernel: Tensor) -> Tensor:
    """The stride-2 transposed convolution that equals nearest x2 upsampling and a 3x3 convolution.

    Each pixel of the small image stands four times in the large one, so that along each axis an
    output pixel sees only two of them: weights (k0, k1 + k2) where it is even, (k0 + k1, k2) where
    it is odd. That is 16 products for each small pixel in place of 36.

    Parameters
    ----------
    kernel : Tensor, shape = (out, in, 3, 3)

    Returns
    -------
    Tensor, shape = (in, out, 4, 4)
        For a transposed convolution with stride 2 and padding 1.
    """
    spread = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]).to(kernel)
    return torch.einsum("yk,xl,oikl->ioyx", spread, spread, kernel)


def _absorb_last_norm(
    block: Block, t: dict[str, Tensor], a: Architecture, truncation: float
) -> Block:
    """The last block with the unconditional norm behind it in its weights."""
    mean, inverse = _moments(t, a, truncation, "bn")
    scale = t["bn.weight"] * inverse
    offset = t["bn.bias"] - mean * scale
    kernels = (*block.kernels[:-1], block.kernels[-1] * scale.view(-1, 1, 1, 1))
    return Block(block.upsamples, kernels, block.bias * scale + offset, skip_scale=scale)


def _fold_attention(t: dict[str, Tensor], name: str) -> Attention:
    gamma = t[f"{name.rpartition('.')[0]}.gamma"].double()
    return Attention(
        t[f"{name}_theta.weight"],
        t[f"{name}_phi.weight"],
        t[f"{name}_g.weight"],
        t[f"{name}_o_conv.weight"] * gamma,
    )


def _fold_colours(kernel: Tensor, bias: Tensor) -> Colours:
    """Split a kernel, shape = (3, C, 3, 3), into rows and columns."""
    rows = kernel.permute(2, 0, 1, 3).reshape(9, -1, 1, 3)
    same = torch.eye(3)  # a channel goes to its own colour, from its own row
    columns = torch.einsum("oc,ry->orcy", same, same).reshape(3, 9, 3, 1)
    return Colours(rows, columns, bias)


def map_tensors(function: Callable[[Tensor], Tensor], item: Any) -> Any:
    """``item`` with ``function`` applied to each tensor in its tuples and dataclasses."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, tuple):
        return tuple(map_tensors(function, part) for part in item)
    if is_dataclass(item) and not isinstance(item, type):
        parts = {f.name: map_tensors(function, getattr(item, f.name)) for f in fields(item)}
        return type(item)(**parts)
    return item
