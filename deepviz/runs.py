"""The work folder: what a run remembers for the next one.

Each song has a folder there, named for its file and its content, with ``vectors.npz``,
``settings.json`` and, after a run with ``-d``, ``frames/``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from deepviz.errors import PreviousRunError, RunningError, SettingsError
from deepviz.files import file_digest, whole_file
from deepviz.settings import Settings

SETTINGS_FILE = "settings.json"
VECTORS_FILE = "vectors.npz"
FRAMES_FOLDER = "frames"
OUTPUTS_FILE = "outputs.json"
LOCK_FILE = "lock"
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
    picture: str  #: changes whenever a frame would: see :func:`describe_picture`
    finished: bool = False

    def as_finished(self, settings: Settings | None = None) -> Run:
        """This run, done; with the settings that it ended up with, where it took over others."""
        stored = self.settings if settings is None else _as_stored(settings)
        return replace(self, settings=stored, finished=True)


def song_folder(work_dir: str | Path, song: str | Path) -> Path:
    """The folder of a song: its stem and the first 8 hex digits of its content's SHA-256."""
    path = Path(song)
    return Path(work_dir) / f"{path.stem[:STEM_LENGTH]}-{file_digest(path)[:8]}"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a song's folder to one run at a time; the system ends the lock of one that crashed.

    Raises
    ------
    RunningError
        If another run has the folder.
    """
    from filelock import FileLock, Timeout

    path = make_folder(folder) / LOCK_FILE
    try:
        with FileLock(path, blocking=False):
            yield
    except Timeout:
        raise RunningError(
            f"another run is at work on this song, in {folder}: wait for it, or give this one "
            "another --work_dir"
        ) from None
    except OSError as error:
        if error.filename != str(path):
            raise
        raise SettingsError(f"--work_dir: {folder} cannot be used: {error.strerror}") from error


def new_run(settings: Settings, seed: int, classes: Iterable[int], model: str, picture: str) -> Run:
    """What is to be remembered of a run with these settings, of which nothing is done yet."""
    numbers = tuple(int(number) for number in classes)
    return Run(_as_stored(settings), seed, numbers, model, picture)


def describe_picture(generator: str, vectors: str) -> str:
    """One word for all that decides what frames look like: fingerprints of network and vectors."""
    return hashlib.sha256(f"{generator} {vectors}".encode()).hexdigest()


def _as_stored(settings: Settings) -> dict[str, Any]:
    """Settings as they come back from a file: JSON has lists for tuples."""
    stored: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return stored


def write_run(folder: Path, run: Run) -> None:
    """Remember a run in ``folder``, which is made where it is missing.

    Raises
    ------
    SettingsError
        If the work folder cannot be written.
    """
    text = json.dumps(asdict(run), indent=2) + "\n"
    try:
        with whole_file(make_folder(folder) / SETTINGS_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--work_dir: {folder} cannot be written: {error.strerror}") from error


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
            picture=str(record["picture"]),
            finished=bool(record["finished"]),
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


def remember_output(folder: Path, target: Path, settings: Settings) -> None:
    """Remember that ``target`` was made with ``settings`` from the song of ``folder``."""
    made = _outputs(folder)
    made[str(target.absolute())] = [_output_settings(settings), target.stat().st_size]
    with whole_file(folder / OUTPUTS_FILE) as temporary:
        temporary.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def was_made(settings: Settings, target: Path) -> bool:
    """Whether ``target`` is there as an earlier run with the same settings and song left it."""
    try:
        folder = song_folder(settings.work_dir, settings.song)
        earlier = _outputs(folder).get(str(target.absolute()))
        return earlier == [_output_settings(settings), target.stat().st_size]
    except OSError:
        return False


def _outputs(folder: Path) -> dict[str, Any]:
    try:
        made = json.loads((folder / OUTPUTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def _output_settings(settings: Settings) -> dict[str, Any]:
    """The settings that make an output what it is; the song's content is its folder's name."""
    stored = _as_stored(settings)
    return {name: stored[name] for name in stored if name not in ("song", "work_dir", "overwrite")}


def begin_frames(folder: Path, run: Run) -> tuple[Path, str]:
    """The folder for a run's frames, with those that an earlier, broken off run of it left.

    Frames of different runs never mix: where the frames there are of another run, or cannot be
    told, they are removed.

    Returns
    -------
    frames : Path
        The folder.
    reason : str
        Why frames were removed, in words; empty if none were.
    """
    frames = folder / FRAMES_FOLDER
    try:
        earlier = load_run(frames)
        reason = _what_differs(earlier, run) if earlier else ""
    except PreviousRunError as error:
        reason = str(error)
    if reason:
        shutil.rmtree(frames, ignore_errors=True)
    write_run(frames, run)
    return frames, reason


def _what_differs(earlier: Run, run: Run) -> str:
    """Why two runs paint different frames, in words; empty if they paint the same."""
    if earlier.picture == run.picture:
        return ""
    before, now = _look(earlier), _look(run)
    changes = [
        f"{name} was {before.get(name)} and is {now[name]}"
        for name in now
        if before.get(name) != now[name]
    ]
    return ", ".join(changes) or "the network or its weights are others"


def _look(run: Run) -> dict[str, Any]:
    """All that a user chose or was told of what a run paints."""
    names = [s.name for s in fields(Settings) if s.metadata["group"] in ("look", "motion")]
    known = {name: run.settings.get(name) for name in names if name not in ("model", "weights")}
    return {**known, "model": run.model, "classes": list(run.classes), "seed": run.seed}


def unfinished_run(folder: Path, settings: Settings) -> Run | None:
    """The run with ``-d`` that was broken off in ``folder``, if the same command is given again.

    A run without ``--seed`` draws a seed; to go on with it, the one that it drew is needed.
    """
    try:
        earlier = load_run(folder / FRAMES_FOLDER)
    except PreviousRunError:
        return None
    if earlier is None or earlier.finished or earlier.settings != _as_stored(settings):
        return None
    return earlier


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
