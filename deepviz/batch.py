"""Several songs, one after the other: one that fails does not keep the others from being made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepviz import generators, pipeline, runs
from deepviz.errors import DeepvizError, SettingsError, SongError
from deepviz.settings import SONG_MARK, Settings, default_of

# What is taken for a song in a folder; a file that is named by itself is tried whatever it is.
SONG_SUFFIXES = (
    *(".aac", ".aif", ".aiff", ".alac", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka"),
    *(".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"),
)
# Settings of which a generator is made; songs that agree in them share one.
GENERATOR_SETTINGS = (
    "model", "resolution", "weights", "truncation", "device", "precision", "batch_size"
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of one song."""

    song: Path
    target: Path
    error: DeepvizError | None = None
    skipped: bool = False


def find_songs(names: Sequence[str]) -> list[Path]:
    """The songs named, in order; of a folder all that are in it and below it, by name.

    Raises
    ------
    SongError
        If a folder holds none.
    """
    songs: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            songs.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if _is_song(p.relative_to(path)) and p.is_file())
        if not inside:
            raise SongError(f"the folder {path} holds no songs")
        songs += inside
    return list(dict.fromkeys(songs))


def _is_song(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SONG_SUFFIXES and not hidden


def render_songs(songs: Sequence[Path], settings: Settings) -> list[Outcome]:
    """Render songs to ``--output_file``, in which ``{song}`` stands for a song's name.

    Songs that were rendered to the same file by the same settings before are skipped, unless
    ``settings.overwrite``.

    Returns
    -------
    list of Outcome
        One for each song, in order. Errors of a song are in its outcome, not raised.

    Raises
    ------
    SettingsError
        If two songs would be written to the same file.
    """
    pattern = pattern_of(settings)
    jobs = [replace(settings, song=str(song), output_file=pattern) for song in songs]
    # A video that an earlier run put among the songs is none of them.
    made = {pipeline.target_of(job).absolute() for job in jobs if not _is_its_own_target(job)}
    jobs = [job for job in jobs if Path(job.song).absolute() not in made]
    _check_targets(jobs)
    load_generator = share_generators()
    outcomes = []
    for number, job in enumerate(jobs, start=1):
        log.info("%s[%d of %d] %s", "\n" if number > 1 else "", number, len(jobs), job.song)
        outcomes.append(_render_one(job, load_generator))
    return outcomes


def _is_its_own_target(job: Settings) -> bool:
    return Path(job.song).absolute() == pipeline.target_of(job).absolute()


def pattern_of(settings: Settings) -> str:
    """``--output_file``, or, where it was left alone, a video of each song's own name."""
    if settings.output_file == default_of("output_file"):
        return f"{SONG_MARK}.mp4"
    return settings.output_file


def _check_targets(jobs: Sequence[Settings]) -> None:
    taken: dict[Path, str] = {}
    for job in jobs:
        target = pipeline.target_of(job)
        if target in taken:
            raise SettingsError(
                f"--output_file {job.output_file}: {taken[target]} and {job.song} would both be "
                f"written to {target}; put {SONG_MARK} into the name, or rename a song"
            )
        taken[target] = job.song


def _render_one(
    job: Settings, load_generator: Callable[[Settings], generators.Generator]
) -> Outcome:
    song, target = Path(job.song), pipeline.target_of(job)
    failure: DeepvizError | None = None
    try:
        if not job.overwrite and runs.was_made(job, target):
            log.info("%s is there already; --overwrite makes it again", target)
            return Outcome(song, target, skipped=True)
        pipeline.render(job, load_generator)
    except DeepvizError as error:
        failure = error
    except Exception as error:  # a fault of ours must not keep the other songs from being made
        log.debug("unexpected", exc_info=True)
        failure = DeepvizError(f"{type(error).__name__}: {error} (a fault of deepviz's own)")
    if failure is not None:
        log.error("%s", failure)
    return Outcome(song, target, failure)


def share_generators() -> Callable[[Settings], generators.Generator]:
    """A ``load_generator`` that hands out the last one again while its settings stay the same."""
    last: list[tuple[tuple[object, ...], generators.Generator]] = []

    def load(settings: Settings) -> generators.Generator:
        key = tuple(getattr(settings, name) for name in GENERATOR_SETTINGS)
        if not last or last[0][0] != key:
            last.clear()  # before the next one is loaded: two may not fit into memory
            last.append((key, generators.load_generator(settings)))
        return last[0][1]

    return load


def summarise(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each song, and one that counts them."""
    for outcome in outcomes:
        if outcome.error:
            yield f"failed   {outcome.song}: {outcome.error}"
        else:
            yield f"{'skipped' if outcome.skipped else 'made':8} {outcome.target}"
    failed = sum(outcome.error is not None for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    made = len(outcomes) - failed - skipped
    yield f"{made} made, {skipped} skipped, {failed} failed"
