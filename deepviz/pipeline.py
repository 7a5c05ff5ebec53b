"""The way from a song to a video: song → features → vectors → frames → file."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from deepviz import audio, classes, frames, generators, plan, runs, sheet, vectors, video
from deepviz.errors import SettingsError, VideoError
from deepviz.settings import SONG_MARK, Settings

SEED_BITS = 31  # of a seed that we draw: short enough to be typed again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One song on its way to one file."""

    settings: Settings
    target: Path
    folder: Path  #: what the work folder remembers of the song
    samples: int  #: of the song, at ``audio.SAMPLE_RATE``
    shown: range  #: the part of the song's frames that was asked for
    numbers: Sequence[int]  #: the frames to paint: all of ``shown``, or some for a contact sheet

    @property
    def fps(self) -> Fraction:
        return audio.frame_rate(self.settings.frame_length)

    @property
    def is_sheet(self) -> bool:
        return self.target.suffix.lower() == ".png"


def render(
    settings: Settings,
    load_generator: Callable[[Settings], generators.Generator] | None = None,
) -> Path:
    """Make the video, or the contact sheet, that ``settings`` ask for.

    Progress and the plan go to the logger ``deepviz`` and, on a terminal, to progress bars.

    Parameters
    ----------
    load_generator : callable, optional
        In place of :func:`deepviz.generators.load_generator`, to share one between songs.

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
    target = target_of(settings)
    _check_target(target, Path(settings.song))
    waveform = audio.load_waveform(settings.song)
    job = _make_job(settings, target, len(waveform))
    plan.announce_song(settings, job.samples / audio.SAMPLE_RATE, len(job.numbers), job.fps)
    with runs.lock(job.folder):
        features = None
        if job.is_sheet or not (settings.save_only or settings.use_previous_vectors):
            features = audio.analyse(waveform, settings.frame_length)
        del waveform  # a third of a gigabyte an hour, which the frames can use
        if settings.save_only:
            stored = runs.stored_frames(job.folder, settings.frame_length)
            _write(job, frames.read_frames(stored, job.numbers), features)
        else:
            _paint_and_write(job, features, load_generator or generators.load_generator)
    runs.remember_output(job.folder, target, settings)
    made = None if job.is_sheet else job.fps
    plan.announce_end(target, len(job.numbers), made, time.monotonic() - began)
    return target


def target_of(settings: Settings) -> Path:
    """The file that ``--output_file`` names for the song."""
    return Path(settings.output_file.replace(SONG_MARK, Path(settings.song).stem))


def _check_target(target: Path, song: Path) -> None:
    """Find out before hours of work whether the output can be written."""
    try:
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
    except OSError as error:  # a name longer than the file system takes
        raise VideoError(f"--output_file {target}: {error.strerror}") from error
    if is_folder:
        raise VideoError(f"--output_file {target} is a folder; name a file")
    if target.exists() and song.exists() and target.samefile(song):
        raise VideoError(f"--output_file {target} is the song itself; name another file")
    if not has_folder:
        raise VideoError(
            f"--output_file {target}: there is no folder {target.parent}; make it first"
        )
    if not os.access(target.parent, os.W_OK):
        raise VideoError(f"--output_file {target}: nothing can be written to {target.parent}")


def _make_job(settings: Settings, target: Path, samples: int) -> Job:
    in_song = audio.count_frames(samples, settings.frame_length)
    shown = _choose_part(settings, in_song, audio.frame_rate(settings.frame_length))
    is_sheet = target.suffix.lower() == ".png"
    return Job(
        settings,
        target,
        runs.song_folder(settings.work_dir, settings.song),
        samples,
        shown,
        sheet.choose_frames(shown) if is_sheet else shown,
    )


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


def _paint_and_write(
    job: Job,
    features: audio.Features | None,
    load_generator: Callable[[Settings], generators.Generator],
) -> None:
    settings, seed, shown = _compose(job, features)
    generator = load_generator(settings)
    names = [f"{number} {classes.class_name(number)}" for number in shown.classes]
    plan.announce_look(generator.name, generator.device, names, seed)
    picture = runs.describe_picture(generator.fingerprint, vectors.digest(shown))
    run = runs.new_run(job.settings, seed, shown.classes, generator.name, picture)
    if not settings.use_disk:
        _write(job, _paint(job, generator, shown, job.numbers), features)
    else:
        kept, reason = runs.begin_frames(job.folder, run)
        if reason:
            log.info("fresh     the frames kept of an earlier run are not this one's: %s", reason)
        _write(job, _paint_missing(job, generator, shown, kept), features)
        runs.write_run(kept, run.as_finished())
    vectors.save_vectors(shown, runs.make_folder(job.folder) / runs.VECTORS_FILE)
    runs.write_run(job.folder, run.as_finished(settings))


def _compose(job: Job, features: audio.Features | None) -> tuple[Settings, int, vectors.Vectors]:
    """The vectors of the whole song, with the seed that they came from, and the settings: with
    ``--use_previous_vectors`` those that shaped them then."""
    settings = job.settings
    if settings.use_previous_vectors:
        run = runs.previous_run(job.folder)
        settings = runs.adopt_run(settings, run)
        in_song = audio.count_frames(job.samples, settings.frame_length)
        shown = vectors.load_vectors(job.folder / runs.VECTORS_FILE, in_song)
        return settings, run.seed, shown
    assert features is not None
    seed = _choose_seed(job)
    shown = vectors.make_vectors(
        features.pitches.values,
        features.power,
        features.onset,
        _choose_classes(settings, job.folder, seed),
        settings,
        seed,
    )
    return settings, seed, shown


def _choose_seed(job: Job) -> int:
    """The seed that was given, else that of the run with ``-d`` to go on with, else a fresh one."""
    if job.settings.seed is not None:
        return job.settings.seed
    if job.settings.use_disk and (run := runs.unfinished_run(job.folder, job.settings)):
        return run.seed
    return secrets.randbits(SEED_BITS)


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


def _paint(
    job: Job, generator: generators.Generator, shown: vectors.Vectors, numbers: Sequence[int]
) -> Iterator[np.ndarray]:
    batch_size = job.settings.batch_size or generator.batch_size
    stream = frames.render_frames(shown, generator, numbers, batch_size)
    return plan.with_estimate(stream, len(numbers), job.settings, batch_size)


def _paint_missing(
    job: Job, generator: generators.Generator, shown: vectors.Vectors, kept: Path
) -> Iterator[np.ndarray]:
    """All frames of a run with ``-d``: those that are there and whole are read, not painted."""
    missing = frames.find_missing(kept, job.numbers, generator.resolution)
    if len(missing) < len(job.numbers):
        there = len(job.numbers) - len(missing)
        log.info("resume    %d of %d frames are there already", there, len(job.numbers))
    frames.check_space(kept, len(missing), generator.resolution)
    painted = frames.keep_frames(_paint(job, generator, shown, missing), missing, kept)
    return frames.fill_in(painted, missing, job.numbers, kept)


def _write(job: Job, stream: Iterator[np.ndarray], features: audio.Features | None) -> None:
    # Closed here, whatever happens: an error that a batch of songs keeps would keep it at work.
    with closing(frames.run_ahead(frames.scale_frames(stream, job.settings.scaling))) as ahead:
        shown = plan.with_progress(ahead, len(job.numbers))
        if job.is_sheet:
            assert features is not None
            _write_sheet(job, shown, features)
        else:
            _write_video(job, shown)


def _write_video(job: Job, stream: Iterator[np.ndarray]) -> None:
    end = min(job.shown.stop / job.fps, Fraction(job.samples, audio.SAMPLE_RATE))
    sound = video.Sound(Path(job.settings.song), job.shown.start / job.fps, end)
    side = job.settings.resolution * job.settings.scaling
    encoder = video.pick_encoder(job.settings.encoder, side)
    video.write_video(stream, job.target, fps=job.fps, sound=sound, encoder=encoder)


def _write_sheet(job: Job, stream: Iterator[np.ndarray], features: audio.Features) -> None:
    part = slice(job.shown.start, job.shown.stop)
    sheet.write_sheet(
        stream,
        job.target,
        labels=[plan.format_time(number / job.fps) for number in job.numbers],
        positions=[(number - job.shown.start) / len(job.shown) for number in job.numbers],
        names=features.pitches.names,
        track=features.pitches.values[part],
        power=features.power[part],
    )
