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

from deepviz.generators import NOISE_DIM, NUM_CLASSES
from deepviz.generators.cppn_scene import compose
from deepviz.hardware import count_cores


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
        self.device = f"cpu ({count_cores()} threads)" if device == "cpu" else device
        self._torch_device = None if device == "cpu" else device

    def render(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Paint batches of frames, in order; see :class:`deepviz.generators.Generator`."""
        with ThreadPoolExecutor(count_cores()) as threads:
            for noise, class_vectors in batches:
                # Row by row: a product of the whole batch may round a row by its neighbours.
                scenes = [compose(*row) for row in zip(noise, class_vectors, strict=True)]
                if self._torch_device is None:
                    from deepviz.generators import cppn_kernel

                    yield cppn_kernel.paint(scenes, self.resolution, threads)
                else:
                    from deepviz.generators import cppn_torch

                    yield cppn_torch.paint(scenes, self.resolution, self._torch_device)


def load_cppn(resolution: int, device: str = "cpu") -> CPPN:
    """The generator at a resolution, ready to render."""
    return CPPN(resolution, device)
