"""Every setting of a run: its default, range and help text, and the checks that they fit together.

The command line, the Python API and the table in the README are all read from :class:`Settings`.
Nothing else in the project knows a default.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from deepviz.errors import SettingsError

BIGGAN_RESOLUTIONS = (128, 256, 512)  # the sizes for which BigGAN-deep was trained and released
LONGEST = 86_400  # seconds, a day
MAX_CLASSES = 12  # one for each pitch of the chromagram
NUM_IMAGENET_CLASSES = 1000
FRAME_LENGTH_STEP = 64  # the constant-Q transform halves the hop once for each of its 7 octaves
MAX_VIDEO_SIDE = 8192  # pixels; beyond it no common H.264 decoder plays the file
SONG_MARK = "{song}"  # in --output_file: the song's name without its suffix
OUTPUT_SUFFIXES = (".mp4", ".png")

GROUPS = {
    "song": "the song",
    "look": "what the video shows",
    "motion": "how it moves",
    "speed": "speed and memory",
    "rerun": "earlier runs",
    "output": "output",
}

# Flags of the command that are no settings of a run: flag, help.
COMMAND_FLAGS = {
    "list_classes": "print the ImageNet classes, or those whose name holds TEXT, and end",
    "debug": "on an error show the whole traceback",
    "version": "print the version and end",
}


def _setting(default: Any, help: str, group: str, **extra: Any) -> Any:
    """One setting. ``extra`` may hold ``low``, ``high``, ``above`` (an open lower end), ``step``,
    ``choices``, ``many`` (takes several values), ``short`` (a one-letter flag), ``metavar`` and
    ``shown`` (the default in words)."""
    return field(default=default, metadata={"help": help, "group": group, **extra})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run, checked when made.

    Raises
    ------
    SettingsError
        If a value is out of its range or two of them contradict each other. The message names
        the flag.

    Examples
    --------
    >>> Settings(song="x.mp3", resolution=256).frame_length
    512
    """

    song: str = field(
        metadata={
            "help": "audio file: wav, flac, ogg, mp3, or anything else that ffmpeg reads; "
            "several, or folders of them, are rendered one after the other",
            "group": "song",
            "metavar": "FILE",
            "several": True,
        }
    )
    start: float = _setting(
        0.0,
        "where in the song the video begins, in seconds",
        "song",
        low=0,
        high=LONGEST,
        metavar="SECONDS",
    )
    duration: float | None = _setting(
        None,
        "length of the video in seconds, for a short trial",
        "song",
        above=0,
        high=LONGEST,
        metavar="SECONDS",
        shown="to the end of the song",
    )

    resolution: int = _setting(
        512,
        "height and width of a frame; 128, 256 or 512 with BigGAN-deep, any even size with cppn",
        "look",
        low=64,
        high=4096,
        step=2,
        metavar="PIXELS",
    )
    model: str = _setting(
        "auto",
        "the network that paints; auto takes BigGAN-deep if its weights can be had, else cppn, "
        "which needs none",
        "look",
        choices=("auto", "biggan-deep", "cppn"),
    )
    weights: str | None = _setting(
        None,
        "folder with BigGAN-deep weights: config.json and pytorch_model.bin or model.safetensors",
        "look",
        metavar="FOLDER",
        shown="cached, else downloaded",
    )
    classes: tuple[int, ...] | None = _setting(
        None,
        "ImageNet classes to show, one for each pitch",
        "look",
        low=0,
        high=NUM_IMAGENET_CLASSES - 1,
        many=True,
        metavar="NUMBER",
        shown="drawn at random",
    )
    num_classes: int | None = _setting(
        None,
        "how many classes to show; the pitches with the most power get one each",
        "look",
        low=1,
        high=MAX_CLASSES,
        metavar="N",
        shown=f"as many as --classes names, else {MAX_CLASSES}",
    )
    sort_classes_by_power: bool = _setting(
        False,
        "give the first class to the strongest pitch, instead of in the order A, A#, B, ...",
        "look",
    )
    depth: float = _setting(
        1.0,
        "largest weight of a class; lower values drift from clear themes to dream-like shapes",
        "look",
        low=0.01,
        high=1,
    )
    truncation: float = _setting(
        1.0,
        "variability: near 1 more varied pictures, near 0 simpler and more recognisable ones",
        "look",
        low=0.1,
        high=1,
    )
    seed: int | None = _setting(
        None,
        "number that fixes every random choice",
        "look",
        low=0,
        high=2**63 - 1,
        metavar="N",
        shown="a fresh one, printed",
    )

    pitch_sensitivity: float = _setting(
        220.0,
        "how fast the classes follow the pitch; 200 to 295 is recommended",
        "motion",
        low=1,
        high=299,
    )
    tempo_sensitivity: float = _setting(
        0.25,
        "how fast the forms follow loudness and rhythm; 0.05 to 0.8 is recommended",
        "motion",
        low=0,
        high=10,
    )
    jitter: float = _setting(
        0.5,
        "how much repeated music varies its forms; 0 repeats them exactly",
        "motion",
        low=0,
        high=1,
    )
    smooth_factor: float = _setting(
        20.0,
        "frames over which class changes are averaged; 10 to 30 is recommended, fast music less",
        "motion",
        above=0,
        high=10_000,
    )
    frame_length: int = _setting(
        512,
        "samples at 22050 Hz that a frame lasts: 512 gives 43.07 frames a second, 1024 half of it",
        "motion",
        low=FRAME_LENGTH_STEP,
        high=22016,
        step=FRAME_LENGTH_STEP,
        metavar="SAMPLES",
    )

    batch_size: int | None = _setting(
        None,
        "frames painted at a time; fewer need less memory",
        "speed",
        low=1,
        high=4096,
        metavar="N",
        shown="30, on a GPU as many as fit its free memory",
    )
    device: str = _setting(
        "auto",
        "where the network runs: auto, cpu, cuda or cuda:N",
        "speed",
        pattern=r"auto|cpu|cuda(:\d+)?",
    )
    precision: str = _setting(
        "auto",
        "BigGAN-deep's arithmetic; auto takes half precision on a GPU where no eye sees it, else "
        "float32",
        "speed",
        choices=("auto", "float32", "float16", "bfloat16"),
    )

    encoder: str = _setting(
        "auto",
        "H.264 encoder; auto takes the graphics card's (h264_nvenc) where one works, else libx264",
        "speed",
        choices=("auto", "libx264", "h264_nvenc"),
    )

    use_previous_classes: bool = _setting(
        False, "show the classes of this song's last run, or of the last run of any song", "rerun"
    )
    use_previous_vectors: bool = _setting(
        False, "show the same video as this song's last run, such as a longer part of it", "rerun"
    )
    use_disk: bool = _setting(
        False, "also write each frame as a PNG to the work folder", "rerun", short="d"
    )
    save_only: bool = _setting(
        False, "make the video from the frames that an earlier -d run wrote", "rerun", short="s"
    )
    work_dir: str = _setting(
        ".deepviz", "folder that remembers runs for later ones", "rerun", metavar="FOLDER"
    )

    output_file: str = _setting(
        "output.mp4",
        "file to write: .mp4 is the video, .png a contact sheet to judge settings in seconds; "
        "{song} in it stands for the song's name",
        "output",
        metavar="FILE",
    )
    overwrite: bool = _setting(
        False, "of several songs, also render those again that these settings made before", "output"
    )
    scaling: int = _setting(
        1,
        "enlarge each frame by this whole number (Lanczos)",
        "output",
        low=1,
        high=64,
        metavar="N",
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = _as_declared(spec, getattr(self, spec.name))
            object.__setattr__(self, spec.name, value)
            for number in value if isinstance(value, tuple) else (value,):
                _check_value(spec, number)
        _check_together(self)

    @property
    def class_count(self) -> int:
        """How many classes the song gets, unless it has fewer pitches."""
        if self.num_classes is not None:
            return self.num_classes
        return len(self.classes) if self.classes else MAX_CLASSES


def describe_range(spec: Field[Any]) -> str:
    """The range of a setting in words, empty if it has none."""
    meta = spec.metadata
    if "choices" in meta:
        return ", ".join(meta["choices"])
    words = ""
    if "low" in meta and "high" in meta:
        words = f"{_plain(meta['low'])} to {_plain(meta['high'])}"
    elif "above" in meta:
        words = f"above {_plain(meta['above'])}, up to {_plain(meta['high'])}"
    if meta.get("step", 1) == 2:
        words += ", even"
    elif "step" in meta:
        words += f", multiples of {meta['step']}"
    return words


def describe_default(spec: Field[Any]) -> str:
    """The default of a setting in words, empty if it must be given or is just off."""
    if "shown" in spec.metadata:
        return str(spec.metadata["shown"])
    if not isinstance(spec.default, (int, float, str)) or isinstance(spec.default, bool):
        return ""
    return _plain(spec.default)


def default_of(name: str) -> Any:
    """The default of a setting by its name."""
    return next(spec.default for spec in fields(Settings) if spec.name == name)


def value_type(spec: Field[Any]) -> type:
    """The plain type of a setting's value, or of each of its values: bool, int, float or str."""
    declared = str(spec.type)
    return next(kind for kind in (bool, int, float, str) if kind.__name__ in declared)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_declared(spec: Field[Any], value: Any) -> Any:
    """``value`` as the type that the setting declares, so that the API takes 1 for True, a Path
    for a str and a list for a tuple."""
    if value is None and "None" in str(spec.type):
        return None
    kind = value_type(spec)
    if spec.metadata.get("many"):
        if isinstance(value, str) or (
            not isinstance(value, Sequence) and not hasattr(value, "tolist")
        ):
            raise SettingsError(f"--{spec.name} takes a list of numbers, not {value!r}")
        return tuple(_as_number(spec, kind, item) for item in value)
    if kind is str:
        if not isinstance(value, (str, Path)):
            raise SettingsError(f"--{spec.name} takes a text, not {value!r}")
        return str(value)
    return _as_number(spec, kind, value)


def _as_number(spec: Field[Any], kind: type, value: Any) -> Any:
    try:
        number = kind(value)
        if isinstance(value, str) or number != value:  # 1.5 for an int, 2 for a bool, NaN
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = {bool: "0 or 1", int: "a whole number", float: "a number"}[kind]
        raise SettingsError(f"--{spec.name} takes {wanted}, not {value}") from None
    return number


def _check_value(spec: Field[Any], value: Any) -> None:
    meta = spec.metadata
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        fits = value in meta.get("choices", (value,)) and (
            "pattern" not in meta or re.fullmatch(meta["pattern"], value)
        )
        if not fits or value == "":
            wanted = describe_range(spec) or meta["help"]
            raise SettingsError(f"--{spec.name} {value!r} is none of its values: {wanted}")
        return
    if (
        not math.isfinite(value)
        or value < meta.get("low", -math.inf)
        or value <= meta.get("above", -math.inf)
        or value > meta.get("high", math.inf)
        or ("step" in meta and value % meta["step"])
    ):
        raise SettingsError(
            f"--{spec.name} {_plain(value)} is out of its range: {describe_range(spec)}"
        )


def _check_together(s: Settings) -> None:
    """Refuse settings of which one would have to be ignored."""
    if s.classes is not None and s.num_classes not in (None, len(s.classes)):
        raise SettingsError(
            f"--classes names {len(s.classes)} classes, but --num_classes is {s.num_classes}"
        )
    if s.classes is not None and not 1 <= len(s.classes) <= MAX_CLASSES:
        raise SettingsError(f"--classes names {len(s.classes)} classes; 1 to {MAX_CLASSES} fit")
    if s.classes is not None and s.use_previous_classes:
        raise SettingsError("--classes and --use_previous_classes contradict each other")
    if s.classes is not None and s.use_previous_vectors:
        raise SettingsError(
            "--classes and --use_previous_vectors contradict each other: "
            "the vectors of a run belong to its classes"
        )
    if s.model == "biggan-deep" and s.resolution not in BIGGAN_RESOLUTIONS:
        raise SettingsError(
            f"--resolution {s.resolution} does not exist for BigGAN-deep: take 128, 256 or 512, "
            "or --model cppn for any even size"
        )
    if s.model == "cppn" and s.weights is not None:
        raise SettingsError("--weights and --model cppn contradict each other: cppn needs none")
    if s.model == "cppn" and s.precision != "auto":
        raise SettingsError(
            f"--precision {s.precision} and --model cppn contradict each other: cppn computes in "
            "float32 alone"
        )
    if s.use_disk and s.save_only:
        raise SettingsError("-d writes frames and -s only reads them: give one of them")
    suffix = Path(s.output_file).suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise SettingsError(
            f"--output_file {s.output_file!r} must end in {' or '.join(OUTPUT_SUFFIXES)}"
        )
    if s.use_disk and suffix == ".png":
        raise SettingsError("-d keeps the frames of a video; a contact sheet (.png) has none")
    if s.resolution * s.scaling > MAX_VIDEO_SIDE:
        raise SettingsError(
            f"--resolution {s.resolution} times --scaling {s.scaling} is over {MAX_VIDEO_SIDE} "
            "pixels, which players cannot show"
        )
