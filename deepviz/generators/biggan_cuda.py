"""A folded BigGAN-deep on a GPU: half precision where it looks the same, recorded kernels."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from deepviz.generators import BATCH_SIZE
from deepviz.generators.biggan_folded import FoldedNetwork
from deepviz.generators.biggan_runtime import to_uint8
from deepviz.generators.biggan_torch import forward, in_precision, place
from deepviz.generators.gpu import (
    Recorded,
    describe_device,
    exact_arithmetic,
    on_device,
    pinned,
    stream_frames,
)

# dB from float32, of the worst picture: a colour is off by 1.4 steps of 255, root mean square,
# which nobody sees, and which is less than what the encoder takes away.
HALF_PSNR = 45
# Larger batches are hardly faster, and each second batch waits for the one before.
BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
MEMORY_SHARE = 0.6  # of the free memory; the fastest kernels may need more, and NVENC its own
WORTH_FILLING = 4  # times a batch: filled up to that it is painted sooner than a GPU is prepared
PROBE = 2  # pictures whose memory is measured

log = logging.getLogger(__name__)


class CudaRuntime:
    """Computes a folded network on a GPU; see :class:`.biggan_runtime.Runtime`.

    Parameters
    ----------
    network : FoldedNetwork
    device : str
        Of torch, such as "cuda:0". On "cpu" it does the same steps, one after the other.
    precision : str
        "auto", or the name of a type of torch's.
    batch_size : int, optional
        Pictures at a time; by default as many as fit the free memory.
    """

    def __init__(
        self,
        network: FoldedNetwork,
        device: str,
        precision: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._recorded: Recorded | None = None
        self._size = 0  # pictures in each call of what is recorded
        with on_device(self._device), torch.inference_mode():
            there = place(network, self._device)
            if precision == "auto":
                precision = choose_precision(there)
            self._network = in_precision(there, precision)
            del there  # or it would count against the batch
            self.batch_size = batch_size or self._find_batch_size()
            if self._device.type == "cuda":  # now, or the first batch would look like a slow one
                with suppress(torch.OutOfMemoryError):  # then render is asked for less
                    self._prepare(self.batch_size)
        self.device = describe_device(self._device, precision)

    def render(self, conditions: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See :class:`.biggan_runtime.Runtime`.

        Batches are filled up to the one size that the GPU is prepared for: a frame is computed by
        the same steps, whatever stands beside it.
        """
        size = 0

        def launch(condition: np.ndarray) -> Tensor:
            nonlocal size
            size = max(size, len(condition))
            try:
                _, frames = self._compute(condition, size)
                # A copy of its own, as the next batch is painted over what was recorded.
                return frames.clone(memory_format=torch.contiguous_format)
            except torch.OutOfMemoryError:
                self._recorded = None  # so that smaller batches get smaller buffers
                raise

        return stream_frames(conditions, launch, self._device)

    def paint(self, condition: np.ndarray) -> np.ndarray:
        """See :class:`.biggan_runtime.Runtime`."""
        with on_device(self._device), torch.inference_mode():
            pictures, _ = self._compute(condition, len(condition))
            painted: np.ndarray = pictures.cpu().numpy()
        return painted

    def _compute(self, condition: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        """Pictures in [-1, 1] and frames, uint8, of up to ``size`` conditions."""
        if self._recorded is None or not size <= self._size <= WORTH_FILLING * size:
            self._prepare(size)
        assert self._recorded is not None
        pictures, frames = self._recorded(pinned(condition, self._device))
        return pictures[: len(condition)], frames[: len(condition)]

    def _prepare(self, size: int) -> None:
        # The old buffers go first, when no kernel uses them any more: both may not fit together.
        torch.get_device_module(self._device).synchronize()
        self._recorded = None
        self._recorded = Recorded(self._forward, self._nothing(size))
        self._size = size

    def _forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        with exact_arithmetic():
            pictures = forward(self._network, condition)
        return pictures, to_uint8(pictures)

    def _nothing(self, count: int) -> Tensor:
        return torch.zeros(count, self._network.first[0].shape[0], device=self._device)

    def _find_batch_size(self) -> int:
        """As many pictures as fit the free memory, by what a few of them need."""
        if self._device.type != "cuda":
            return BATCH_SIZE
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            with exact_arithmetic():
                to_uint8(forward(self._network, self._nothing(PROBE)))
        except torch.OutOfMemoryError:
            return 1
        each = (torch.cuda.max_memory_allocated() - before) / PROBE
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        return fitting_batch(free, each)


def fitting_batch(free: float, each: float) -> int:
    """The largest of ``BATCH_SIZES`` whose pictures, of ``each`` bytes, fit ``free`` bytes."""
    return max([1, *(size for size in BATCH_SIZES if size * each <= MEMORY_SHARE * free)])


def choose_precision(network: FoldedNetwork) -> str:
    """The first of float16, bfloat16 and float32 that paints what float32 does.

    float16 rounds eight times finer than bfloat16, but ends at 65504. Both are judged on pictures
    as songs ask for them; at the ends of what a song can ask for, they must not overflow.
    """
    usual, extreme = probe_conditions(network)
    expected = _paint_each(network, usual)
    faults = []
    for precision in ("float16", "bfloat16"):
        if precision == "bfloat16" and not _has_bfloat16(usual.device):
            faults.append("this GPU has no bfloat16")
            continue
        half = in_precision(network, precision)
        quality = psnr(_paint_each(half, usual), expected)
        if not quality >= HALF_PSNR:  # NaN is no quality either
            faults.append(f"{precision} is {quality:.1f} dB from float32, not {HALF_PSNR}")
        elif not _paint_each(half, extreme).isfinite().all():
            faults.append(f"{precision} overflows")
        else:
            break
    else:
        precision = "float32"
    if faults:
        log.info("precision %s: %s", precision, ", ".join(faults))
    return precision


def probe_conditions(network: FoldedNetwork) -> tuple[Tensor, Tensor]:
    """Conditions to judge a precision by, the same at each load: usual ones, and extreme ones."""
    rng = np.random.RandomState(0)
    dim = network.embedding.shape[1]
    noise = rng.standard_normal((6, dim)).clip(-2, 2) * network.truncation
    weights = np.zeros((6, len(network.embedding)))
    for row in weights[:2]:  # a class alone
        row[rng.randint(len(row))] = 1
    for row in weights[2:]:  # a dozen at once
        row[rng.choice(len(row), min(12, len(row)), replace=False)] = 1
    weights[2:4] *= rng.random_sample(weights[2:4].shape)
    noise[4:] = 2 * np.sign(noise[4:]) * network.truncation
    embedded = weights @ network.embedding.double().cpu().numpy()
    conditions = torch.tensor(np.hstack([noise, embedded]), dtype=torch.float32)
    usual, extreme = conditions.to(network.embedding.device).split([4, 2])
    return usual, extreme


def _paint_each(network: FoldedNetwork, conditions: Tensor) -> Tensor:
    """Pictures of conditions, on the CPU, one after the other: that needs the least memory."""
    with exact_arithmetic():
        return torch.cat([forward(network, row).cpu() for row in conditions.split(1)])


def psnr(pictures: Tensor, expected: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the worst of pictures in [-1, 1]."""
    error = (pictures - expected).double().square().mean((1, 2, 3)).max().item()
    return 10 * math.log10(4 / error) if error else math.inf


def _has_bfloat16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
