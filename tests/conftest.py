"""What the tests share: songs, and a reader of what was written."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

EXAMPLE = Path(__file__).parent.parent / "examples" / "prelude.ogg"
RATE = 44_100


@dataclass
class Video:
    """A video file as a player sees it."""

    frames: np.ndarray  # uint8, shape = (frames, height, width, 3)
    times: list[Fraction]  # of each frame, seconds
    rate: Fraction
    pixel_format: str
    colour_matrix: int
    sound: np.ndarray  # float32, shape = (samples, channels)
    sound_rate: int
    sound_bit_rate: int


@pytest.fixture(scope="session")
def read_video():
    """A function that decodes a whole MP4."""

    def read(path: Path) -> Video:
        with av.open(str(path)) as file:
            video, audio = file.streams.video[0], file.streams.audio[0]
            decoded = list(file.decode(video))
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
            times = [frame.pts * frame.time_base for frame in decoded]
            about = (video.average_rate, video.codec_context.pix_fmt)
            matrix = video.codec_context.colorspace
            sound_rate, bit_rate = audio.rate, audio.bit_rate
        with av.open(str(path)) as file:
            sound = np.concatenate([f.to_ndarray() for f in file.decode(audio=0)], axis=1).T
        return Video(frames, times, *about, int(matrix), sound, sound_rate, bit_rate)

    return read


@pytest.fixture(scope="session")
def melody(tmp_path_factory) -> Path:
    """Three seconds in stereo: a rising scale that grows louder, with a click each half second."""
    time = np.arange(3 * RATE) / RATE
    steps = np.array([0, 2, 4, 5, 7, 9])[(time * 2).astype(int)]
    tone = np.sin(2 * np.pi * 440 * 2 ** (steps / 12) * time) * (0.1 + 0.2 * time)
    tone[:: RATE // 2] += 0.3
    path = tmp_path_factory.mktemp("songs") / "melody.wav"
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), RATE)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
