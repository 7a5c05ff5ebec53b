"""What computes a folded BigGAN-deep: the protocol, and what the runtimes for a CPU share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deepviz.errors import is_out_of_memory
from deepviz.generators import BATCH_SIZE

log = logging.getLogger(__name__)


class Runtime(Protocol):
    """Computes a folded network. A condition is noise and class embedding side by side."""

    device: str  #: in words, such as "cpu (2 threads)"
    batch_size: int  #: pictures that it likes to be given at a time

    def render(self, conditions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Batches of conditions, float32, shape = (B, 256), to frames, in order, as a stream.

        Yields
        ------
        np.ndarray, uint8, shape = (N, side, side, 3)
            All frames of the batches, any number at a time. They belong to the caller.
        """
        ...

    def paint(self, condition: np.ndarray) -> np.ndarray:
        """One batch as the network gives it, float32 in [-1, 1], shape = (B, side, side, 3)."""
        ...


class CpuRuntime:
    """Computes batches of any size in parts of a fixed one, which bounds the memory they need."""

    device: str
    batch_size = BATCH_SIZE

    def __init__(self, part: int) -> None:
        self._part = part

    def _compute(self, condition: np.ndarray) -> Tensor:
        """One part to pictures in [-1, 1], which the next call may overwrite."""
        raise NotImplementedError

    def render(self, conditions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See :class:`Runtime`."""
        for condition in conditions:
            for part in self._parts(condition):
                yield to_uint8(part).numpy()

    def paint(self, condition: np.ndarray) -> np.ndarray:
        """See :class:`Runtime`."""
        return np.concatenate([part.numpy().copy() for part in self._parts(condition)])

    def _parts(self, condition: np.ndarray) -> Iterator[Tensor]:
        """The pictures of a batch, part by part.

        The last part is filled up with pictures that nobody sees: at a fixed size a frame is
        computed by the same steps, and so to the same bits, whatever stands beside it.
        """
        start = 0
        while start < len(condition):
            part = condition[start : start + self._part]
            filled = np.resize(part, (self._part, part.shape[1]))
            try:
                pictures = self._compute(filled)
            except (MemoryError, RuntimeError) as error:
                if self._part == 1 or not is_out_of_memory(error):
                    raise
                log.warning("out of memory: going on with one picture at a time")
                self._set_part(1)
                continue
            yield pictures[: len(part)]
            start += len(part)

    def _set_part(self, part: int) -> None:
        self._part = part


def to_uint8(pictures: Tensor) -> Tensor:
    """[-1, 1] to 0 to 255, rounded; on the device of ``pictures``."""
    return ((pictures + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
