"""BigGAN-deep (Brock et al. 2019) as a generator of frames.

The pictures are those of pytorch-pretrained-biggan, computed from a :class:`FoldedNetwork` by
torch on a GPU, and on a CPU by OpenVINO where it is installed, else by torch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from deepviz.errors import FramesError, WeightsError
from deepviz.generators import NOISE_DIM, NUM_CLASSES
from deepviz.generators.biggan_folded import FoldedNetwork, fold
from deepviz.generators.biggan_runtime import Runtime
from deepviz.generators.checkpoint import read_checkpoint
from deepviz.generators.weights import find_weights

# Pictures at a time on a CPU: a larger batch is no faster, and each needs 0.4 GB at 512 pixels.
CPU_BATCH = 2

log = logging.getLogger(__name__)


class BigGAN:
    """A loaded BigGAN-deep; see :class:`deepviz.generators.Generator`."""

    noise_dim = NOISE_DIM
    num_classes = NUM_CLASSES

    def __init__(
        self, side: int, embedding: np.ndarray, runtime: Runtime, fingerprint: str = ""
    ) -> None:
        self.name = f"biggan-deep-{side}"
        self.fingerprint = f"{self.name} {fingerprint} {runtime.device}"
        self.resolution = side
        self.device = runtime.device
        self.batch_size = runtime.batch_size
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
        np.ndarray, uint8, shape = (N, resolution, resolution, 3)
            RGB; -1 of the network is 0, and 1 is 255.
        """
        conditions = (self._condition(*batch) for batch in batches)
        return self._runtime.render(conditions)

    def paint(self, noise: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        """Paint one batch as the network gives it: float32 in [-1, 1]."""
        return self._runtime.paint(self._condition(noise, class_vectors))

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
    precision: str = "auto",
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
        How many frames there will be at a time. On a CPU no more than ``CPU_BATCH`` are computed
        at once; on a GPU the default is as many as fit its free memory.
    precision : str
        Of the arithmetic: "float32", "float16", "bfloat16", or "auto": float32 on a CPU, and on a
        GPU half precision where the pictures stay the same.

    Raises
    ------
    WeightsError
        If there are no weights, or they are damaged or of another size.
    FramesError
        If the network does not fit into the memory of the device.
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
    runtime = pick_runtime(network, device, batch_size, precision)
    embedding = network.embedding.numpy()
    return BigGAN(network.side, embedding, runtime, f"{_fingerprint(network)} {precision}")


def _fingerprint(network: FoldedNetwork) -> str:
    """Tells two checkpoints, or truncations of one, apart: a digest of what they can't share."""
    content = hashlib.sha256()
    for tensor in (network.embedding, network.norms[1], network.colours.rows):
        content.update(tensor.contiguous().numpy().data)
    return content.hexdigest()


def pick_runtime(
    network: FoldedNetwork,
    device: str = "cpu",
    batch_size: int | None = None,
    precision: str = "auto",
) -> Runtime:
    """The fastest runtime that is there: on a CPU OpenVINO, else torch.

    Raises
    ------
    FramesError
        If the network does not fit into the memory of the device.
    """
    if device != "cpu":
        from deepviz.generators.biggan_cuda import CudaRuntime

        try:
            return CudaRuntime(network, device, precision, batch_size)
        except torch.OutOfMemoryError as error:
            raise FramesError(
                f"BigGAN-deep does not fit into the free memory of {device}; free some of it, or "
                "take --device cpu"
            ) from error
    part = min(CPU_BATCH, batch_size or CPU_BATCH)
    precision = "float32" if precision == "auto" else precision
    try:
        from deepviz.generators.biggan_openvino import OpenVinoRuntime

        return OpenVinoRuntime(network, part, precision)
    except ImportError:
        pass
    except RuntimeError as error:  # a processor, or a precision, that it does not know
        log.warning("OpenVINO cannot be used here, torch is slower: %s", error)
    from deepviz.generators.biggan_torch import EagerRuntime

    return EagerRuntime(network, part, precision)
