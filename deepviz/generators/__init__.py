"""Generators: networks that paint one frame from one noise vector and one class vector."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from deepviz.errors import SettingsError, WeightsError
from deepviz.hardware import has_graphics_driver
from deepviz.settings import BIGGAN_RESOLUTIONS, Settings

if TYPE_CHECKING:
    import numpy as np

NOISE_DIM = 128  # units of a noise vector, as BigGAN-deep has them
NUM_CLASSES = 1000  # ImageNet classes, the units of a class vector
BATCH_SIZE = 30  # frames that a CPU is handed at a time

log = logging.getLogger(__name__)


class Generator(Protocol):
    """What the pipeline asks of a network that paints frames.

    The truncation is fixed when a generator is loaded. A frame depends on its own noise and class
    vector alone, never on its neighbours in a batch.
    """

    name: str  #: shown in the plan, such as "biggan-deep-512"
    resolution: int  #: height and width of a frame, pixels
    noise_dim: int
    num_classes: int
    device: str  #: what computes, in words for the plan, such as "cpu (2 threads)"
    batch_size: int  #: how many frames it likes to be asked for at a time
    fingerprint: str  #: changes whenever the frames of the same vectors would

    def render(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Paint batches of frames, in order, as a stream.

        Parameters
        ----------
        batches : iterable of (noise, class_vectors)
            float32, shapes = (B, noise_dim) and (B, num_classes); B may differ between batches.

        Yields
        ------
        np.ndarray, uint8, shape = (N, resolution, resolution, 3)
            RGB in host memory, as many frames at a time as suit the generator: they may be fewer
            than came in a batch. They belong to the caller: a generator never writes to them again.
        """
        ...


def load_generator(settings: Settings) -> Generator:
    """The generator that ``settings`` ask for, ready to paint.

    With ``model`` "auto" it is BigGAN-deep where its weights can be had; otherwise a warning says
    why they cannot, and the built-in CPPN paints.

    Raises
    ------
    WeightsError
        If BigGAN-deep was asked for by name or by its weights, and cannot be loaded.
    SettingsError
        If there is no such device.
    """
    device = pick_device(settings.device)
    if settings.model == "cppn":
        return _load_cppn(settings, device)
    by_hand = settings.model == "biggan-deep" or settings.weights is not None
    if not by_hand and settings.resolution not in BIGGAN_RESOLUTIONS:
        log.warning(
            "BigGAN-deep has no resolution %d (128, 256 and 512 it has): cppn paints instead",
            settings.resolution,
        )
        return _load_cppn(settings, device)
    try:
        from deepviz.generators.biggan import load_biggan

        return load_biggan(
            settings.resolution,
            settings.truncation,
            weights=settings.weights,
            device=device,
            batch_size=settings.batch_size,
            precision=settings.precision,
        )
    except WeightsError as error:
        if by_hand:
            raise
        log.warning("%s; until then cppn, the built-in network, paints", error)
        return _load_cppn(settings, device)


def _load_cppn(settings: Settings, device: str) -> Generator:
    from deepviz.generators.cppn import load_cppn

    return load_cppn(settings.resolution, device)


def pick_device(wanted: str) -> str:
    """A device of torch's: "cpu", or "cuda" or "cuda:N" where there is one.

    Raises
    ------
    SettingsError
        If a CUDA device is asked for that is not there.
    """
    if wanted == "cpu":
        return "cpu"
    count = 0
    if has_graphics_driver():
        import torch

        count = torch.cuda.device_count()
    if wanted == "auto":
        return "cuda" if count else "cpu"
    if int(wanted.partition(":")[2] or 0) >= count:
        raise SettingsError(f"--device {wanted}: torch finds {count or 'no'} CUDA devices here")
    return wanted
