"""BigGAN-deep (Brock et al. 2019) as a generator of frames.

The pictures are those of pytorch-pretrained-biggan, computed from a :class:`FoldedNetwork` by
OpenVINO on a CPU where it is installed, else by torch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepviz.errors import WeightsError
from deepviz.generators import NOISE_DIM, NUM_CLASSES
from deepviz.generators.biggan_folded import (
    NORMS_PER_BLOCK,
    Affine,
    Attention,
    Block,
    FoldedNetwork,
    fold,
    map_tensors,
)
from deepviz.generators.checkpoint import FIRST_SIDE, read_checkpoint
from deepviz.generators.weights import find_weights

# Pictures at a time on a CPU: a larger batch is no faster, and each needs 0.4 GB at 512 pixels.
CPU_BATCH = 2


log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What computes a folded network."""

    device: str  #: in words, such as "cpu (2 threads)"
    batch: int | None  #: pictures in each call, None if any number is taken

    def __call__(self, condition: np.ndarray) -> Tensor:
        """float32 noise and class embeddings, shape = (B, 256), to RGB in [-1, 1].

        The result, float32, shape = (B, side, side, 3), may be overwritten by the next call.
        """
        ...


class BigGAN:
    """A loaded BigGAN-deep; see :class:`deepviz.generators.Generator`."""

    noise_dim = NOISE_DIM
    num_classes = NUM_CLASSES

    def __init__(self, side: int, embedding: np.ndarray, runtime: Runtime) -> None:
        self.name = f"biggan-deep-{side}"
        self.resolution = side
        self.device = runtime.device
        self._embedding = embedding
        self._runtime = runtime

    def render(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Paint batches of frames, in order, as a stream.

        Parameters
        ----------
        batches : iterable of (noise, class_vectors)
            float32, shapes = (B, noise_dim) and (B, num_classes).

        Yields
        ------
        np.ndarray, uint8, shape = (B, resolution, resolution, 3)
            RGB; -1 of the network is 0, and 1 is 255.
        """
        for noise, class_vectors in batches:
            frames = np.empty((len(noise), self.resolution, self.resolution, 3), np.uint8)
            done = 0
            for part in self._paint(noise, class_vectors):
                frames[done : done + len(part)] = to_uint8(part).cpu().numpy()
                done += len(part)
            yield frames

    def paint(self, noise: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        """Paint one batch as the network gives it: float32 in [-1, 1]."""
        parts = [part.cpu().numpy().copy() for part in self._paint(noise, class_vectors)]
        return np.concatenate(parts)

    def _paint(self, noise: np.ndarray, class_vectors: np.ndarray) -> Iterator[Tensor]:
        """Paint a batch in parts of the runtime's size.

        The last part is filled up with pictures that nobody sees: at a fixed size a frame is
        computed by the same steps, and so to the same bits, whatever stands beside it.
        """
        condition = self._condition(noise, class_vectors)
        step = self._runtime.batch or max(1, len(condition))
        for start in range(0, len(condition), step):
            part = condition[start : start + step]
            filled = np.resize(part, (step, part.shape[1])) if self._runtime.batch else part
            yield self._runtime(filled)[: len(part)]

    def _condition(self, noise: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        """Noise and class embedding side by side, shape = (B, 256)."""
        condition = np.zeros((len(noise), 2 * self.noise_dim), np.float32)
        condition[:, : self.noise_dim] = noise
        for row, weights in zip(condition, class_vectors, strict=True):
            used = np.flatnonzero(weights)  # a dozen classes of a thousand
            row[self.noise_dim :] = weights[used] @ self._embedding[used]
        return condition


def load_biggan(
    resolution: int,
    truncation: float,
    weights: str | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
) -> BigGAN:
    """Load BigGAN-deep, downloading its weights into the cache if they are nowhere.

    Parameters
    ----------
    resolution : int
        Height and width of a frame in pixels: 128, 256 or 512.
    truncation : float
        In (0, 1]; chooses the batch statistics.
    weights : str, optional
        Folder of a checkpoint.
    device : str
        "cpu", or one that torch knows, such as "cuda:0".
    batch_size : int, optional
        The most frames to paint at a time on a CPU, where no more than ``CPU_BATCH`` are.

    Raises
    ------
    WeightsError
        If there are no weights, or they are damaged or of another size.
    """
    folder = find_weights(resolution, weights)
    checkpoint = read_checkpoint(folder)
    a = checkpoint.architecture
    if a.output_dim != resolution:
        raise WeightsError(
            f"{folder} holds weights for {a.output_dim} pixels, not {resolution}: "
            f"give --resolution {a.output_dim} or another folder"
        )
    if (a.z_dim, a.num_classes) != (NOISE_DIM, NUM_CLASSES):
        raise WeightsError(
            f"{folder} holds weights for {a.z_dim} noise units and {a.num_classes} classes, "
            f"not {NOISE_DIM} and {NUM_CLASSES}"
        )
    network = fold(checkpoint, truncation)
    runtime = pick_runtime(network, device, min(CPU_BATCH, batch_size or CPU_BATCH))
    return BigGAN(network.side, network.embedding.numpy(), runtime)


def pick_runtime(network: FoldedNetwork, device: str, cpu_batch: int = CPU_BATCH) -> Runtime:
    """The fastest runtime that is there: OpenVINO on a CPU, else torch."""
    if device != "cpu":
        return EagerRuntime(network, device, batch=None)
    try:
        from deepviz.generators.biggan_openvino import OpenVinoRuntime
    except ImportError:
        return EagerRuntime(network, device, cpu_batch)
    try:
        return OpenVinoRuntime(network, cpu_batch)
    except RuntimeError as error:  # a processor that it does not know, say
        log.warning("OpenVINO cannot be used here, torch is slower: %s", error)
        return EagerRuntime(network, device, cpu_batch)


def to_uint8(pictures: Tensor) -> Tensor:
    """[-1, 1] to 0 to 255, rounded; on the device of ``pictures``."""
    return ((pictures + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


class EagerRuntime:
    """Computes a folded network with torch, operation by operation, on any device."""

    def __init__(self, network: FoldedNetwork, device: str, batch: int | None) -> None:
        self.batch = batch
        self._device = torch.device(device)
        self._network: FoldedNetwork = map_tensors(self._place, network)
        if self._device.type == "cuda":
            self.device = f"{device} ({torch.cuda.get_device_name(self._device)})"
        else:
            self.device = f"{device} ({torch.get_num_threads()} threads)"

    def _place(self, tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(self._device, memory_format=layout)

    @torch.inference_mode()
    def __call__(self, condition: np.ndarray) -> Tensor:
        return forward(self._network, torch.from_numpy(condition).to(self._device))


def forward(network: FoldedNetwork, condition: Tensor) -> Tensor:
    """Noise and class embeddings, shape = (B, 256), to RGB, shape = (B, side, side, 3)."""
    x = _affine(condition, network.first).view(len(condition), FIRST_SIDE, FIRST_SIDE, -1)
    x = x.permute(0, 3, 1, 2)
    widths = [width for width in network.norm_widths for _ in range(2)]
    norms = iter(_affine(condition, network.norms)[..., None, None].split(widths, 1))
    for i, block in enumerate(network.blocks):
        if i == network.attention_before:
            x = _attend(network.attention, x)
        x = _run_block(block, x, list(itertools.islice(norms, 2 * NORMS_PER_BLOCK)))
    colours = network.colours
    rows = F.conv2d(x.relu_(), colours.rows, padding=(0, 1))
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
