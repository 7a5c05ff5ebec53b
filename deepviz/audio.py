"""The song as numbers: file → mono waveform → chromagram, power and onset, a row each frame."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from deepviz.errors import SongError

SAMPLE_RATE = 22_050  # Hz; pitches up to 8 kHz are all that the features look at
N_MELS = 128  # bands of the mel spectrogram
MEL_FMAX = 8_000  # Hz, its upper end
PITCHES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")

N_FFT = 2048  # samples in a window of the mel spectrogram
TUNING_HOP = N_FFT // 4  # samples between the windows in which the tuning is estimated
CHROMA_BINS = 36  # bins an octave of the constant-Q transform under the chromagram
BLOCK_SECONDS = 20.0  # analysed at a time: shorter ones spend more on their surroundings
CONTEXT_SECONDS = 2.0  # around a block: four times the longest filter, that of C1 (0.5 s)
LONG_SONG = 9  # blocks, 3 minutes; analysing them takes long enough for a progress bar
RATES = (1_000, 1_000_000)  # Hz; a damaged header with less would make hours of a second
LOUDEST = 100.0  # times full scale; beyond it a sample is damage, and its square no float32
SHORTEST_BLOCK = 1 << 17  # samples, 6 s: twice the longest window after 6 halvings of the rate
AU_HEADER = struct.Struct(">4s5I")  # magic, offset and size of the data, encoding, rate, channels
READ_FRAMES = 1 << 18  # samples decoded at a time, 6 s at 44.1 kHz


@dataclass(frozen=True)
class FeatureTrack:
    """A driver of the video.

    Attributes
    ----------
    names : tuple of str
        What each column is.
    values : np.ndarray, float32, shape = (frames, columns)
        In [0, 1], one row a video frame.
    """

    names: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Features:
    """What a song gives the vectors: all of the same number of frames.

    Attributes
    ----------
    pitches : FeatureTrack
        The chromagram, 12 columns from A to G#.
    power, onset : np.ndarray, float32, shape = (frames,)
        Loudness and its rise, in [0, 1].
    """

    pitches: FeatureTrack
    power: np.ndarray
    onset: np.ndarray


def frame_rate(frame_length: int) -> Fraction:
    """Video frames a second, exactly, for frames of ``frame_length`` samples."""
    return Fraction(SAMPLE_RATE, frame_length)


def count_frames(samples: int, frame_length: int) -> int:
    """How many frames of ``frame_length`` samples cover a song: ceil(samples / frame_length)."""
    return -(-samples // frame_length)


def load_waveform(song: str | Path) -> np.ndarray:
    """Decode a song to a mono waveform at ``SAMPLE_RATE``.

    soundfile reads what it knows (wav, flac, ogg, mp3 and more); the ffmpeg that comes with
    moviepy reads everything else, such as m4a or the sound of a video. The song is read in pieces,
    so that memory holds the mono waveform only.

    Returns
    -------
    np.ndarray, float32, shape = (samples,)
        The mean of the channels. Samples that are no numbers are taken as silence.

    Raises
    ------
    SongError
        If there is no such file, or it holds no sound that can be decoded.
    """
    path = Path(song)
    if path.is_dir():
        raise SongError(f"{path} is a folder, not a song; give one file at a time")
    if not path.exists():
        raise SongError(f"there is no song {path}")
    try:
        if path.stat().st_size == 0:
            raise SongError(f"{path} is an empty file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise SongError(f"{path} cannot be read: {error.strerror}") from error
    waveform = _decode_with_soundfile(path)
    if waveform is None:
        waveform = _decode_with_ffmpeg(path)
    if not len(waveform):
        raise SongError(f"{path} holds no sound")
    return waveform


def _decode_with_soundfile(path: Path) -> np.ndarray | None:
    """The mono waveform of a file; None if soundfile does not know its format."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            blocks = file.blocks(READ_FRAMES, dtype="float32", always_2d=True)
            return _to_mono(blocks, file.samplerate, path)
    except soundfile.LibsndfileError:
        return None


def _decode_with_ffmpeg(path: Path) -> np.ndarray:
    """The mono waveform of a file that ffmpeg decodes, handed over in Sun's au format."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"]
    # "file:" keeps a name such as "a:b.m4a" from being taken for a protocol.
    command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        assert process.stdout is not None
        header = process.stdout.read(AU_HEADER.size)
        if len(header) < AU_HEADER.size:
            process.wait()
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            reason = lines[-1].strip() if lines else "ffmpeg finds no sound in it"
            raise SongError(f"{path} is no song that can be decoded: {reason}")
        _, data_offset, _, _, rate, channels = AU_HEADER.unpack(header)
        process.stdout.read(data_offset - AU_HEADER.size)
        return _to_mono(_read_samples(process.stdout, channels), rate, path)


def _read_samples(stream: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    """Blocks of samples, shape = (samples, channels), from a stream of big-endian floats."""
    frame_bytes = 4 * channels
    while data := stream.read(frame_bytes * READ_FRAMES):
        whole = len(data) // frame_bytes * frame_bytes  # the last one may be cut off
        yield np.frombuffer(data[:whole], ">f4").reshape(-1, channels)


def _to_mono(blocks: Iterable[np.ndarray], rate: int, path: Path) -> np.ndarray:
    """The mean of the channels at ``SAMPLE_RATE``, of blocks of shape = (samples, channels)."""
    import soxr

    if not RATES[0] <= rate <= RATES[1]:
        raise SongError(f"{path} is damaged, or no song: it claims a sample rate of {rate} Hz")
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    pieces: deque[np.ndarray] = deque()
    samples = 0
    for block in blocks:
        samples += len(block)
        with np.errstate(invalid="ignore"):  # infinities of both signs have no mean
            mono = np.nan_to_num(block.mean(axis=1, dtype=np.float64))
        mono = np.clip(mono, -LOUDEST, LOUDEST).astype(np.float32)
        pieces.append(resampler.resample_chunk(mono))
    pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    # The filter's tail may be a sample more or less than the song: the song's length counts.
    waveform = np.zeros(-(-samples * SAMPLE_RATE // rate), np.float32)
    filled = 0
    while pieces:  # each is let go as it is copied: a long song is never in memory twice
        piece = pieces.popleft()[: len(waveform) - filled]
        waveform[filled : filled + len(piece)] = piece
        filled += len(piece)
    return waveform


def analyse(
    waveform: np.ndarray, frame_length: int, *, block_seconds: float = BLOCK_SECONDS
) -> Features:
    """Chromagram, power and onset of a waveform, a row each video frame.

    The chromagram is librosa's ``chroma_cqt``; the power is the mean over the bands of a mel power
    spectrogram, scaled to [0, 1] by its minimum and maximum; the onset is the gradient of the
    unscaled power, divided by its maximum, negatives set to 0. A silent or constant song gives
    zeros.

    The song is taken in blocks with as much of their surroundings as the longest filter sees, so
    that memory does not grow with it and the blocks join without a seam.

    Parameters
    ----------
    waveform : np.ndarray, float32, shape = (samples,)
        Mono, at ``SAMPLE_RATE``.
    frame_length : int
        Samples between two rows, a multiple of 64.
    block_seconds : float
        Length of a block.

    Raises
    ------
    SongError
        If the waveform is shorter than one frame.
    """
    if len(waveform) < frame_length:
        raise SongError(
            f"the song is shorter than one frame: {len(waveform) / SAMPLE_RATE:.3f} s of sound, "
            f"{frame_length / SAMPLE_RATE:.3f} s a frame; a smaller --frame_length would show it"
        )
    frames = count_frames(len(waveform), frame_length)
    tuning = _estimate_tuning(waveform, block_seconds)
    chroma = np.zeros((frames, len(PITCHES)), np.float32)
    power = np.zeros(frames)
    blocks = _blocks(waveform, frames, frame_length, block_seconds, "pitches")
    for block, rows, wanted in blocks:
        chroma[rows], power[rows] = (
            values[wanted] for values in _analyse_block(block, frame_length, tuning)
        )
    return Features(
        pitches=FeatureTrack(PITCHES, chroma),
        power=scale_to_unit(power),
        onset=_onset(power),
    )


def _blocks(
    waveform: np.ndarray, frames: int, hop: int, block_seconds: float, label: str
) -> Iterator[tuple[np.ndarray, slice, slice]]:
    """Pieces of a waveform with their surroundings: samples, the frames that the piece stands for,
    and where those are among the frames that lie in the samples."""
    context = -(-int(CONTEXT_SECONDS * SAMPLE_RATE) // hop)
    step = max(1, int(block_seconds * SAMPLE_RATE / hop))
    starts = range(0, frames, step)
    # disable=None: no bar where there is no terminal; and none for a song that is soon done
    quiet = True if len(starts) < LONG_SONG else None
    for start in tqdm(starts, desc=label, unit="block", leave=False, disable=quiet):
        stop = min(start + step, frames)
        first = max(0, min(start - context, stop - SHORTEST_BLOCK // hop - 2))
        block = waveform[first * hop : (stop + context) * hop]
        # A song shorter than the longest window: silence after it changes next to nothing.
        block = np.pad(block, (0, max(0, SHORTEST_BLOCK - len(block))))
        yield block, slice(start, stop), slice(start - first, stop - first)


def _analyse_block(block: np.ndarray, hop: int, tuning: float) -> tuple[np.ndarray, np.ndarray]:
    """Chromagram, shape = (frames, 12), from A to G#, and power, shape = (frames,)."""
    import librosa

    chroma = librosa.feature.chroma_cqt(
        y=block, sr=SAMPLE_RATE, hop_length=hop, tuning=tuning, bins_per_octave=CHROMA_BINS
    )
    mel = librosa.feature.melspectrogram(
        y=block, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=hop, n_mels=N_MELS, fmax=MEL_FMAX
    )
    from_a = np.roll(chroma, PITCHES.index("C"), axis=0)  # librosa begins at C
    return from_a.T, mel.mean(axis=0)


def _estimate_tuning(waveform: np.ndarray, block_seconds: float) -> float:
    """How far the song is off concert pitch, in bins: ``librosa.estimate_tuning``, in blocks."""
    import librosa

    pitches, magnitudes = [], []
    frames = 1 + len(waveform) // TUNING_HOP
    for block, _, wanted in _blocks(waveform, frames, TUNING_HOP, block_seconds, "tuning"):
        pitch, magnitude = librosa.piptrack(
            y=block, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=TUNING_HOP
        )
        pitch, magnitude = pitch[:, wanted], magnitude[:, wanted]
        pitches.append(pitch[pitch > 0])
        magnitudes.append(magnitude[pitch > 0])
    pitch, magnitude = np.concatenate(pitches), np.concatenate(magnitudes)
    if not len(pitch):
        return 0.0
    clear = pitch[magnitude >= np.median(magnitude)]
    return float(librosa.pitch_tuning(clear, bins_per_octave=CHROMA_BINS))


def scale_to_unit(values: np.ndarray) -> np.ndarray:
    """``values`` scaled to [0, 1] by their minimum and maximum; zeros if they are all the same."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros(values.shape, np.float32)
    return ((values - low) / (high - low)).astype(np.float32)


def _onset(power: np.ndarray) -> np.ndarray:
    if len(power) < 2:
        return np.zeros(len(power), np.float32)
    gradient = np.gradient(power)
    steepest = gradient.max()
    if not steepest > 0:
        return np.zeros(len(power), np.float32)
    return np.clip(gradient / steepest, 0, None).astype(np.float32)
