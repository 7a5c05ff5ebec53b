"""The work folder: what a run remembers for the next one.

Each song has a folder there, named for its file and its content, with ``vectors.npz``,
``settings.json`` and, after a run with ``-d``, ``frames/``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from deepviz.errors import PreviousRunError, SettingsError
from deepviz.files import file_digest, whole_file
from deepviz.settings import Settings

SETTINGS_FILE = "settings.json"
VECTORS_FILE = "vectors.npz"
FRAMES_FOLDER = "frames"
STEM_LENGTH = 60  # characters of the song's name in its folder's: every file system takes them

# Settings that shape the vectors of a song. With --use_previous_vectors they are those of the
# earlier run, and one given by hand that differs would be ignored: it is refused.
VECTOR_SETTINGS = (
    "sort_classes_by_power",
    "depth",
    "truncation",
    "pitch_sensitivity",
    "tempo_sensitivity",
    "jitter",
    "smooth_factor",
)


@dataclass(frozen=True)
class Run:
    """What an earlier run left: its settings, with the seed and the classes that it drew."""

    settings: dict[str, Any]
    seed: int
    classes: tuple[int, ...]
    model: str


def song_folder(work_dir: str | Path, song: str | Path) -> Path:
    """The folder of a song: its stem and the first 8 hex digits of its content's SHA-256."""
    path = Path(song)
    return Path(work_dir) / f"{path.stem[:STEM_LENGTH]}-{file_digest(path)[:8]}"


def save_run(
    folder: Path, settings: Settings, seed: int, classes: Iterable[int], model: str
) -> Run:
    """Remember a run in ``folder``, which is made where it is missing.

    Raises
    ------
    SettingsError
        If the work folder cannot be written.
    """
    run = Run(asdict(settings), seed, tuple(int(number) for number in classes), model)
    text = json.dumps(asdict(run), indent=2) + "\n"
    with whole_file(make_folder(folder) / SETTINGS_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return run


def load_run(folder: Path) -> Run | None:
    """The run that ``folder`` remembers, None if there is none.

    Raises
    ------
    PreviousRunError
        If the file is damaged.
    """
    path = folder / SETTINGS_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Run(
            settings=dict(record["settings"]),
            seed=int(record["seed"]),
            classes=tuple(int(number) for number in record["classes"]),
            model=str(record["model"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreviousRunError(f"{path} is damaged ({error}); remove it") from error


def previous_run(folder: Path) -> Run:
    """The last run of the song of ``folder``.

    Raises
    ------
    PreviousRunError
        If there is none.
    """
    run = load_run(folder)
    if run is None:
        raise PreviousRunError(
            f"--use_previous_vectors: this song has no earlier run in {folder.parent}"
        )
    return run


def last_run(work_dir: str | Path, folder: Path) -> Run:
    """The last run of the song of ``folder``, else of any song in the work folder.

    Raises
    ------
    PreviousRunError
        If there is none.
    """
    records = sorted(Path(work_dir).glob(f"*/{SETTINGS_FILE}"), key=lambda p: p.stat().st_mtime_ns)
    run = load_run(folder) or (load_run(records[-1].parent) if records else None)
    if run is None:
        raise PreviousRunError(
            f"--use_previous_classes: no earlier run left its classes in {work_dir}"
        )
    return run


def adopt_run(settings: Settings, run: Run) -> Settings:
    """``settings`` with those that shape the vectors taken from an earlier run.

    Raises
    ------
    PreviousRunError
        If a setting was given that differs from the earlier run's.
    """
    given: dict[str, Any] = {"seed": run.seed, "num_classes": len(run.classes)}
    for name, earlier in given.items():
        wanted = getattr(settings, name)
        if wanted not in (None, earlier):
            raise _does_not_fit(name, wanted, earlier)
    if settings.frame_length != run.settings["frame_length"]:
        raise _does_not_fit("frame_length", settings.frame_length, run.settings["frame_length"])
    defaults = {spec.name: spec.default for spec in fields(settings) if spec.default is not MISSING}
    for name in VECTOR_SETTINGS:
        wanted, earlier = getattr(settings, name), run.settings[name]
        if wanted not in (defaults[name], earlier):
            raise _does_not_fit(name, wanted, earlier)
        given[name] = earlier
    return replace(settings, **given)


def _does_not_fit(name: str, wanted: object, earlier: object) -> PreviousRunError:
    return PreviousRunError(
        f"the earlier run does not fit: its {name} was {earlier}, not {wanted}; "
        f"give --{name} {earlier}, or render afresh without --use_previous_vectors"
    )


def begin_frames(folder: Path) -> Path:
    """An empty folder for the frames of the run that ``folder`` remembers.

    Frames of different runs never mix: those of an earlier one are removed.
    """
    frames = folder / FRAMES_FOLDER
    shutil.rmtree(frames, ignore_errors=True)
    make_folder(frames)
    shutil.copyfile(folder / SETTINGS_FILE, frames / SETTINGS_FILE)
    return frames


def stored_frames(folder: Path, frame_length: int) -> Path:
    """The folder with the frames that an earlier run with ``-d`` wrote.

    Raises
    ------
    PreviousRunError
        If there are none, or they last another number of samples.
    """
    frames = folder / FRAMES_FOLDER
    run = load_run(frames)
    if run is None:
        raise PreviousRunError(f"no earlier run with -d left frames of this song in {folder}")
    earlier = run.settings["frame_length"]
    if earlier != frame_length:
        raise PreviousRunError(
            f"the stored frames last {earlier} samples each, not {frame_length}: "
            f"give --frame_length {earlier}"
        )
    return frames


def make_folder(folder: Path) -> Path:
    """``folder``, made with its parents where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--work_dir: {folder} cannot be made: {error.strerror}") from error
    return folder
