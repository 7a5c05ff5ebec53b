"""What a run says of itself: the plan before, how long it will take, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deepviz.settings import BIGGAN_RESOLUTIONS, Settings

LONG_WAIT = 600  # seconds; over this the plan says what would shorten it

log = logging.getLogger(__name__)


def announce_song(settings: Settings, seconds: float, count: int, fps: Fraction) -> None:
    """Say what is to be made of which song."""
    side = settings.resolution * settings.scaling
    log.info("song      %s, %s", settings.song, format_time(seconds))
    log.info("frames    %d at %.2f a second, %d by %d", count, fps, side, side)


def announce_look(model: str, device: str, names: Sequence[str], seed: int) -> None:
    """Say what paints, and what it shows."""
    log.info("model     %s on %s", model, device)
    log.info("classes   %s", ", ".join(names))
    log.info("seed      %d", seed)


def with_estimate(
    stream: Iterable[np.ndarray], count: int, settings: Settings, batch_size: int
) -> Iterator[np.ndarray]:
    """Pass ``count`` frames on; after the first batch say how long all of them will take."""
    batch = min(batch_size, count)
    began = time.monotonic()
    for index, frame in enumerate(stream):
        if index + 1 == batch:
            seconds = (time.monotonic() - began) * count / batch
            log.info("estimate  %s", format_duration(seconds))
            if seconds > LONG_WAIT:
                log.info("          shorter with: %s", _what_shortens(settings))
        yield frame


def _what_shortens(settings: Settings) -> str:
    hints = [
        f"--frame_length {settings.frame_length * 2} (half the frames)",
        "--duration (a trial first)",
    ]
    if settings.resolution > min(BIGGAN_RESOLUTIONS):
        hints.insert(0, f"--resolution {min(BIGGAN_RESOLUTIONS)}")
    if not settings.device.startswith("cuda"):
        hints.append("a machine with an NVIDIA GPU")
    if settings.model != "cppn":
        hints.append("--model cppn")
    return ", ".join(hints)


def with_progress(stream: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Pass ``count`` frames on under a progress bar, where there is a terminal to draw it on."""
    yield from tqdm(stream, total=count, desc="frames", unit="frame", disable=None, smoothing=0.1)


def announce_end(target: Path, count: int, fps: Fraction | None, seconds: float) -> None:
    """Say what was made: of a video, with ``fps``, also how long it is."""
    length = f"{format_time(count / fps)}, " if fps else ""
    size = target.stat().st_size / 1e6
    log.info("%s: %s%.1f MB, made in %s", target, length, size, format_duration(seconds))


def format_time(seconds: float | Fraction) -> str:
    """A moment as minutes, seconds and tenths.

    Examples
    --------
    >>> format_time(65.25)
    '1:05.2'
    """
    tenths = int(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def format_duration(seconds: float) -> str:
    """A time span in the two largest units that it fills.

    Examples
    --------
    >>> format_duration(3725)
    '1 h 2 min'
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole} s"
