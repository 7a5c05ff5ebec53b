"""The built-in generator: a compositional pattern-producing network. No download, any even size.

A CPPN (Stanley 2007, "Compositional pattern producing networks: a novel abstraction of
development") maps the coordinates of one pixel to its colour, so a picture has no resolution of
its own. :mod:`.cppn_scene` makes some 900 numbers of the vectors of a frame; :mod:`.cppn_kernel`
(CPU) and :mod:`.cppn_torch` (other devices) paint them pixel by pixel with the same formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deepviz.generators import BATCH_SIZE, NOISE_DIM, NUM_CLASSES
from deepviz.generators.cppn_scene import compose
from deepviz.hardware import count_cores

# Frames of a batch on a GPU, in bytes: 10 at 2048. Each is held four times on its way to the host,
# and more than a GPU is busy with for a tenth of a second only keep the encoder waiting.
GPU_BATCH_BYTES = 128 << 20
CPU_PIXELS = 1 << 20  # painted at a time on a CPU, a quarter of a second's work on two cores
VERSION = 1  # to be raised when the same vectors get other pictures


class CPPN:
    """The built-in generator, as :class:`deepviz.generators.Generator` describes one.

    Parameters
    ----------
    resolution : int
        Height and width of a frame, pixels.
    device : str
        ``"cpu"`` takes the compiled kernel; any other is a device of torch, such as ``"cuda"``.
    """

    noise_dim = NOISE_DIM
    num_classes = NUM_CLASSES

    def __init__(self, resolution: int, device: str = "cpu") -> None:
        self.name = "cppn"
        self.resolution = resolution
        self.fingerprint = f"cppn {VERSION} {resolution} {device}"
        self._torch_device = None if device == "cpu" else device
        if self._torch_device is None:
            self.device = f"cpu ({count_cores()} threads)"
            self.batch_size = BATCH_SIZE
        else:
            import torch

            from deepviz.generators.gpu import describe_device

            self.device = describe_device(torch.device(device))
            self.batch_size = max(1, min(BATCH_SIZE, GPU_BATCH_BYTES // (3 * resolution**2)))

    def render(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Paint batches of frames, in order; see :class:`deepviz.generators.Generator`."""
        # Row by row: a product of the whole batch may round a row by its neighbours.
        scenes = ([compose(*row) for row in zip(*batch, strict=True)] for batch in batches)
        if self._torch_device is None:
            from deepviz.generators import cppn_kernel

            step = max(1, CPU_PIXELS // self.resolution**2)
            with ThreadPoolExecutor(count_cores()) as threads:
                for some in scenes:
                    for i in range(0, len(some), step):
                        yield cppn_kernel.paint(some[i : i + step], self.resolution, threads)
        else:
            from deepviz.generators import cppn_torch

            yield from cppn_torch.render(scenes, self.resolution, self._torch_device)


def load_cppn(resolution: int, device: str = "cpu") -> CPPN:
    """The generator at a resolution, ready to render."""
    return CPPN(resolution, device)
