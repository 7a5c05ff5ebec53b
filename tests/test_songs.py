"""Songs as people have them: odd, damaged, mislabelled. Each renders, or says why it cannot."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from PIL import Image

import deepviz
from deepviz.errors import SongError

ROOT = Path(__file__).parent.parent
RATE = 22_050
SMALL = {"model": "cppn", "resolution": 64}


def noise(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, (int(seconds * rate), channels))


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True)


def single_click(path: Path) -> None:
    samples = np.zeros(RATE)
    samples[RATE // 2] = 1
    soundfile.write(path, samples, RATE)


def direct_current(path: Path) -> None:
    soundfile.write(path, np.full(RATE, 0.9), RATE)


def clipping_noise(path: Path) -> None:
    soundfile.write(path, np.sign(noise()) * 40, RATE, subtype="FLOAT")


def not_numbers(path: Path) -> None:
    samples = noise()
    samples[::7], samples[1::7], samples[2::7] = np.nan, np.inf, -np.inf
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def huge_numbers(path: Path) -> None:
    soundfile.write(path, noise() * 1e30, RATE, subtype="FLOAT")


def telephone(path: Path) -> None:
    soundfile.write(path, noise(rate=8000), 8000)


def studio(path: Path) -> None:
    soundfile.write(path, noise(rate=192_000, channels=2), 192_000, subtype="PCM_24")


def surround(path: Path) -> None:
    soundfile.write(path, noise(rate=48_000, channels=6), 48_000)


def one_twentieth_of_a_second(path: Path) -> None:
    soundfile.write(path, noise(0.05), RATE)


ODD = {
    "click.wav": single_click,
    "dc.wav": direct_current,
    "clipping.wav": clipping_noise,
    "not numbers.wav": not_numbers,
    "huge.wav": huge_numbers,
    "telephone.wav": telephone,
    "studio.wav": studio,
    "surround.flac": surround,
    "short.wav": one_twentieth_of_a_second,
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_song_gives_a_whole_video_that_shows_something(folder, read_video, name):
    ODD[name](folder / name)
    path = deepviz.render(name, seed=1, **SMALL)
    video = read_video(path)
    info = soundfile.info(name)
    samples = math.ceil(info.frames * RATE / info.samplerate)
    assert len(video.frames) == math.ceil(samples / 512)
    assert video.frames.std(axis=(1, 2, 3)).min() > 8  # none is black or flat


def test_a_cut_off_file_renders_with_sound_and_picture_of_one_length(folder, melody, read_video):
    ffmpeg("-i", melody, "whole.mp3")
    Path("cut.mp3").write_bytes(Path("whole.mp3").read_bytes()[:20_000])
    video = read_video(deepviz.render("cut.mp3", **SMALL))
    assert 20 < len(video.frames) <= 130  # its header still tells the whole length
    seconds = len(video.sound) / video.sound_rate
    assert abs(seconds - len(video.frames) * 512 / RATE) < 512 / RATE + 1024 / video.sound_rate


def test_a_wrong_suffix_does_not_matter(folder, melody, read_video):
    ffmpeg("-i", melody, "-f", "flac", "song.mp3")
    assert len(read_video(deepviz.render("song.mp3", **SMALL)).frames) == 130


def test_a_video_is_shown_by_its_sound(folder, melody, read_video):
    picture = ("-f", "lavfi", "-i", "testsrc=size=320x240:duration=3")
    ffmpeg(*picture, "-i", melody, "-shortest", "film.mkv")
    video = read_video(deepviz.render("film.mkv", **SMALL))
    assert video.frames.shape[1:] == (64, 64, 3)  # not the film's own picture
    assert len(video.frames) in (129, 130, 131)


def test_a_video_without_sound_says_so(folder):
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:duration=1", "film.mp4")
    with pytest.raises(SongError, match=r"film\.mp4 is no song that can be decoded"):
        deepviz.render("film.mp4", output_file="x.mp4", **SMALL)


def test_variable_bit_rate_with_cover_art_keeps_its_length(folder, melody, read_video):
    Image.fromarray(np.zeros((600, 600, 3), np.uint8)).save("cover.png")
    cover = ("-i", "cover.png", "-map", "0:a", "-map", "1:v", "-c:v", "copy")
    ffmpeg("-i", melody, *cover, "-disposition:v", "attached_pic", "-q:a", 4, "song.mp3")
    video = read_video(deepviz.render("song.mp3", **SMALL))
    assert video.frames.shape == (130, 64, 64, 3)


@pytest.mark.parametrize("rate", [1, 999, 2_000_000])
def test_a_sample_rate_that_cannot_be_is_refused(folder, rate):
    """One that is far too low would make hours of a small damaged file."""
    soundfile.write("song.wav", noise(), rate)
    with pytest.raises(SongError, match=f"a sample rate of {rate} Hz"):
        deepviz.render("song.wav", **SMALL)


LISTEN = """
import sys
from pathlib import Path
from deepviz import audio
audio.analyse(audio.load_waveform(sys.argv[1]), 512)
print(next(s.split()[1] for s in Path("/proc/self/status").read_text().splitlines() if "HWM" in s))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory used")
def test_three_hours_would_take_less_than_three_gigabytes(folder):
    """Told from what a song of ten minutes takes more than one of a minute."""
    took = {}
    for minutes in (1, 10):
        soundfile.write("song.wav", np.tile(noise(60, 8000), (minutes, 1)), 8000)
        done = subprocess.run(
            [sys.executable, "-c", LISTEN, str(folder / "song.wav")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        took[minutes] = int(done.stdout) * 1024
    each = (took[10] - took[1]) / 9
    assert took[10] + 170 * each < 3e9
