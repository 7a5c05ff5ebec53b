"""Feature tracks and settings → the noise vectors and class weights of every frame of a song."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepviz.errors import PreviousRunError
from deepviz.files import whole_file
from deepviz.settings import Settings

NOISE_DIM = 128  # units of a noise vector
NOISE_BOUND = 2.0  # noise is drawn from, and kept in, this many standard deviations
REFERENCE_HOP = 512  # frame length for which sensitivities and lengths in frames are given
JITTER_FRAMES = 200  # reference frames that one jitter vector lasts, 4.6 s
FEW_CLASSES = 6  # up to this many classes a row keeps its faint ones: scaled by the maximum alone
TIE_BREAK = 0.01  # added to the first class where all are equal, so that the row has a maximum

NOISE_STREAM, JITTER_STREAM = 1, 2  # independent random streams of one seed; 0 draws the classes


@dataclass(frozen=True)
class Vectors:
    """What a generator is to paint, for every frame of a song.

    Attributes
    ----------
    noise : np.ndarray, float32, shape = (frames, 128)
        Within 2 · truncation on either side of 0.
    class_weights : np.ndarray, float32, shape = (frames, K)
        In [0, depth]; column j belongs to ``classes[j]``.
    classes : np.ndarray, int64, shape = (K,)
        ImageNet class numbers, 0 to 999; a class may stand for several pitches.
    """

    noise: np.ndarray
    class_weights: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.noise)

    def dense(self, frames: slice | np.ndarray, num_classes: int) -> np.ndarray:
        """Class vectors of some frames, float32, shape = (frames, num_classes)."""
        weights = self.class_weights[frames]
        dense = np.zeros((len(weights), num_classes), np.float32)
        for column, number in enumerate(self.classes):  # of a class named twice, the larger counts
            np.maximum(dense[:, number], weights[:, column], out=dense[:, number])
        return dense


def make_vectors(
    drivers: np.ndarray,
    power: np.ndarray,
    onset: np.ndarray,
    classes: np.ndarray,
    settings: Settings,
    seed: int,
) -> Vectors:
    """The vectors of a whole song.

    Parameters
    ----------
    drivers : np.ndarray, float32, shape = (frames, columns)
        In [0, 1]; the columns with the largest mean drive one class each. For the chromagram the
        columns go from A to G#.
    power, onset : np.ndarray, float32, shape = (frames,)
        In [0, 1].
    classes : np.ndarray, int, shape = (K,)
        In the order of the driving columns, or, with ``sort_classes_by_power``, from the strongest
        driver to the weakest.
    settings : Settings
        Sensitivities, smoothing, depth, jitter, truncation and frame length.
    seed : int
        Fixes the noise and the jitter.
    """
    kept = _strongest(drivers, len(classes), by_power=settings.sort_classes_by_power)
    weights = _class_weights(drivers[:, kept].astype(np.float64), settings)
    bin_frames = max(1, round(settings.smooth_factor * REFERENCE_HOP / settings.frame_length))
    return Vectors(
        noise=_noise(power, onset, settings, seed),
        class_weights=smooth(weights, bin_frames).astype(np.float32),
        classes=np.asarray(classes, np.int64),
    )


def _strongest(drivers: np.ndarray, count: int, *, by_power: bool) -> np.ndarray:
    """The ``count`` columns of largest mean: in their own order, or from strongest to weakest."""
    strongest = np.argsort(-drivers.mean(axis=0), kind="stable")[:count]
    return strongest if by_power else np.sort(strongest)


def _class_weights(drivers: np.ndarray, settings: Settings) -> np.ndarray:
    """Unsmoothed class weights, shape = (frames, K): w(t) = (w(t−1) + c(t)/P) / (1 + 1/P), scaled.

    P = (300 − pitch_sensitivity) · 512 / hop; w(t−1) is the scaled row before.
    """
    inertia = (300 - settings.pitch_sensitivity) * REFERENCE_HOP / settings.frame_length
    sounding = np.flatnonzero(drivers.any(axis=1))
    row = drivers[sounding[0]] if len(sounding) else drivers[0]
    row = _scale_row(row, settings.depth)
    weights = np.empty_like(drivers)
    weights[0] = row
    for t in range(1, len(drivers)):
        row = (row + drivers[t] / inertia) / (1 + 1 / inertia)
        weights[t] = row = _scale_row(row, settings.depth)
    return weights


def _scale_row(row: np.ndarray, depth: float) -> np.ndarray:
    """A row of class weights, scaled so that its largest is ``depth``."""
    low, high = row.min(), row.max()
    if high == low:
        row = row.copy()
        row[0] += TIE_BREAK
        high = row[0]
    if len(row) <= FEW_CLASSES:
        return row / high * depth
    return (row - low) / (high - low) * depth


def smooth(rows: np.ndarray, bin_frames: int) -> np.ndarray:
    """Means over consecutive bins of rows, joined by straight lines between the bins' centres.

    Parameters
    ----------
    rows : np.ndarray, shape = (frames, columns)
    bin_frames : int
        Rows in a bin; the last bin holds what is left. 1 changes nothing.

    Returns
    -------
    np.ndarray, shape = (frames, columns)
        As many rows as came in, without lag, held before the first and after the last centre.
    """
    starts = np.arange(0, len(rows), bin_frames)
    ends = np.minimum(starts + bin_frames, len(rows))
    means = np.add.reduceat(rows, starts, axis=0) / (ends - starts)[:, None]
    centres = (starts + ends - 1) / 2
    at = np.arange(len(rows))
    return np.stack([np.interp(at, centres, column) for column in means.T], axis=1)


def _noise(power: np.ndarray, onset: np.ndarray, settings: Settings, seed: int) -> np.ndarray:
    """A bounded walk through noise, shape = (frames, 128), as fast as the music is loud.

    u(t) = (S · (g(t) + p(t)) · d · jitter + 3 u(t−1)) / 4 and z(t) = z(t−1) + u(t), with onset g,
    power p, S = tempo_sensitivity · hop / 512 and directions d that turn at the bounds.
    """
    from scipy.stats import truncnorm

    hop_ratio = settings.frame_length / REFERENCE_HOP
    sensitivity = settings.tempo_sensitivity * hop_ratio
    bound = NOISE_BOUND * settings.truncation
    jitter_frames = max(1, round(JITTER_FRAMES / hop_ratio))
    jitters = np.random.default_rng([seed, JITTER_STREAM])

    rng = np.random.default_rng([seed, NOISE_STREAM])
    noise = np.empty((len(power), NOISE_DIM), np.float32)
    z: np.ndarray = settings.truncation * truncnorm.rvs(
        -NOISE_BOUND, NOISE_BOUND, size=NOISE_DIM, random_state=rng
    )
    direction = -np.sign(z)
    update: np.ndarray = np.zeros(NOISE_DIM)
    jitter: np.ndarray = np.ones(NOISE_DIM)
    for t, drive in enumerate(sensitivity * (onset.astype(np.float64) + power)):
        if t % jitter_frames == 0:
            jitter = 1 - settings.jitter * jitters.integers(0, 2, NOISE_DIM)
        if t > 0:
            update = (drive * direction * jitter + 3 * update) / 4
            z = np.clip(z + update, -bound, bound)
        direction[z >= bound - sensitivity] = -1
        direction[z < -bound + sensitivity] = 1
        noise[t] = z
    return noise


def digest(vectors: Vectors) -> str:
    """A fingerprint of the vectors: the same for the same frames, bit by bit."""
    content = hashlib.sha256()
    for array in (vectors.noise, vectors.class_weights, vectors.classes):
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def save_vectors(vectors: Vectors, path: Path) -> None:
    """Write the arrays of ``vectors``, by their names, to an npz file, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            noise=vectors.noise,
            class_weights=vectors.class_weights,
            classes=vectors.classes,
        )


def load_vectors(path: Path, frames: int) -> Vectors:
    """Read what :func:`save_vectors` wrote for a song of ``frames`` frames.

    Raises
    ------
    PreviousRunError
        If there is no such file, it is damaged, or it is of a song of another length.
    """
    try:
        with np.load(path) as arrays:
            vectors = Vectors(arrays["noise"], arrays["class_weights"], arrays["classes"])
    except FileNotFoundError:
        raise PreviousRunError(f"no earlier run left its vectors in {path}") from None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PreviousRunError(f"{path} is damaged ({error}); render the song afresh") from error
    shapes = (vectors.noise.shape, vectors.class_weights.shape)
    if shapes != ((frames, NOISE_DIM), (frames, len(vectors.classes))):
        raise PreviousRunError(f"{path} does not fit the song's {frames} frames; render it afresh")
    return vectors
