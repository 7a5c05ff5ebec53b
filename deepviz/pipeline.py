"""The way from a song to a video: song → features → vectors → frames → file."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deepviz import audio, classes, frames, generators, runs, sheet, vectors, video
from deepviz.errors import SettingsError, VideoError
from deepviz.settings import BIGGAN_RESOLUTIONS, Settings

SEED_BITS = 31  # of a seed that we draw: short enough to be typed again
LONG_WAIT = 600  # seconds; over this the plan says what would shorten it

log = logging.getLogger(__name__)


def render(settings: Settings) -> Path:
    """Make the video, or the contact sheet, that ``settings`` ask for.

    Progress and the plan go to the logger ``deepviz`` and, on a terminal, to progress bars.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    DeepvizError
        With a message for the user: see :mod:`deepviz.errors`.
    """
    began = time.monotonic()
    target = Path(settings.output_file)
    _check_target(target)
    waveform = audio.load_waveform(settings.song)
    fps = audio.frame_rate(settings.frame_length)
    samples = len(waveform)
    in_song = audio.count_frames(samples, settings.frame_length)
    shown = _choose_part(settings, in_song, fps)
    is_sheet = target.suffix.lower() == ".png"
    numbers = sheet.choose_frames(shown) if is_sheet else shown
    _announce_song(settings, samples, numbers, fps)

    folder = runs.song_folder(settings.work_dir, settings.song)
    features = None
    if is_sheet or not (settings.save_only or settings.use_previous_vectors):
        features = audio.analyse(waveform, settings.frame_length)
    del waveform  # a third of a gigabyte an hour, which the frames can use
    if settings.save_only:
        stored = runs.stored_frames(folder, settings.frame_length)
        stream = frames.read_frames(stored, numbers)
    else:
        stream = _paint(settings, features, in_song, folder, numbers)
    stream = frames.run_ahead(frames.scale_frames(stream, settings.scaling))
    stream = _with_progress(stream, len(numbers))

    if is_sheet:
        assert features is not None
        _write_sheet(stream, target, numbers, shown, features, fps)
    else:
        _write_video(stream, target, settings, shown, samples, fps)
    _announce_end(target, len(numbers), None if is_sheet else fps, time.monotonic() - began)
    return target


def _check_target(target: Path) -> None:
    """Find out before hours of work whether the output can be written."""
    if target.is_dir():
        raise VideoError(f"--output_file {target} is a folder; name a file")
    if not target.parent.is_dir():
        raise VideoError(
            f"--output_file {target}: there is no folder {target.parent}; make it first"
        )
    if not os.access(target.parent, os.W_OK):
        raise VideoError(f"--output_file {target}: nothing can be written to {target.parent}")


def _choose_part(settings: Settings, in_song: int, fps: Fraction) -> range:
    """The frames of the song that ``--start`` and ``--duration`` ask for."""
    first = math.floor(Fraction(str(settings.start)) * fps)
    if first >= in_song:
        raise SettingsError(
            f"--start {settings.start:g} is past the end of the song, "
            f"which is {float(in_song / fps):.1f} s long"
        )
    if settings.duration is None:
        return range(first, in_song)
    count = math.ceil(Fraction(str(settings.duration)) * fps)
    return range(first, min(first + count, in_song))


def _paint(
    settings: Settings,
    features: audio.Features | None,
    in_song: int,
    folder: Path,
    numbers: Sequence[int],
) -> Iterator[np.ndarray]:
    """A stream of painted frames; what it takes to paint them again is remembered first."""
    if settings.use_previous_vectors:
        run = runs.previous_run(folder)
        settings, seed = runs.adopt_run(settings, run), run.seed
        shown = vectors.load_vectors(folder / runs.VECTORS_FILE, in_song)
    else:
        assert features is not None
        seed = secrets.randbits(SEED_BITS) if settings.seed is None else settings.seed
        shown = vectors.make_vectors(
            features.pitches.values,
            features.power,
            features.onset,
            _choose_classes(settings, folder, seed),
            settings,
            seed,
        )
    generator = generators.load_generator(settings)
    _announce_look(generator, settings, shown, seed)

    runs.make_folder(folder)
    vectors.save_vectors(shown, folder / runs.VECTORS_FILE)
    runs.save_run(folder, settings, seed, shown.classes, generator.name)
    stream = frames.render_frames(shown, generator, numbers, settings.batch_size)
    stream = _with_estimate(stream, len(numbers), settings)
    if settings.use_disk:
        stream = frames.keep_frames(stream, numbers, runs.begin_frames(folder))
    return stream


def _choose_classes(settings: Settings, folder: Path, seed: int) -> np.ndarray:
    if settings.classes is not None:
        return np.array(settings.classes)
    if settings.use_previous_classes:
        earlier = runs.last_run(settings.work_dir, folder).classes
        if settings.num_classes not in (None, len(earlier)):
            raise SettingsError(
                f"--num_classes {settings.num_classes} does not fit --use_previous_classes: "
                f"the earlier run had {len(earlier)}"
            )
        return np.array(earlier)
    return classes.draw_classes(settings.class_count, seed)


def _write_video(
    stream: Iterable[np.ndarray],
    target: Path,
    settings: Settings,
    shown: range,
    samples: int,
    fps: Fraction,
) -> None:
    end = min(shown.stop / fps, Fraction(samples, audio.SAMPLE_RATE))
    sound = video.Sound(Path(settings.song), shown.start / fps, end)
    encoder = video.pick_encoder(settings.encoder, settings.resolution * settings.scaling)
    video.write_video(stream, target, fps=fps, sound=sound, encoder=encoder)


def _write_sheet(
    stream: Iterable[np.ndarray],
    target: Path,
    numbers: Sequence[int],
    shown: range,
    features: audio.Features,
    fps: Fraction,
) -> None:
    part = slice(shown.start, shown.stop)
    sheet.write_sheet(
        stream,
        target,
        labels=[format_time(number / fps) for number in numbers],
        positions=[(number - shown.start) / len(shown) for number in numbers],
        names=features.pitches.names,
        track=features.pitches.values[part],
        power=features.power[part],
    )


def _announce_song(settings: Settings, samples: int, numbers: Sequence[int], fps: Fraction) -> None:
    length = format_time(samples / audio.SAMPLE_RATE)
    side = settings.resolution * settings.scaling
    log.info("song      %s, %s", settings.song, length)
    log.info("frames    %d at %.2f a second, %d by %d", len(numbers), fps, side, side)


def _announce_look(
    generator: generators.Generator, settings: Settings, shown: vectors.Vectors, seed: int
) -> None:
    log.info("model     %s on %s", generator.name, generator.device)
    names = ", ".join(f"{number} {classes.class_name(number)}" for number in shown.classes)
    log.info("classes   %s", names)
    log.info("seed      %d", seed)


def _with_estimate(
    stream: Iterator[np.ndarray], count: int, settings: Settings
) -> Iterator[np.ndarray]:
    """Pass frames on; after the first batch say how long all of them will take."""
    batch = min(settings.batch_size, count)
    began = time.monotonic()
    for index, frame in enumerate(stream):
        if index == 0:
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
    if settings.device != "cuda":
        hints.append("a machine with an NVIDIA GPU")
    if settings.model != "cppn":
        hints.append("--model cppn")
    return ", ".join(hints)


def _with_progress(stream: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    # disable=None: no bar where there is no terminal to draw it on
    yield from tqdm(stream, total=count, desc="frames", unit="frame", disable=None, smoothing=0.1)


def _announce_end(target: Path, count: int, fps: Fraction | None, seconds: float) -> None:
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
