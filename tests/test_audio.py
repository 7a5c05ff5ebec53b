import subprocess

import imageio_ffmpeg
import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from deepviz import audio
from deepviz.errors import SongError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def convert(source, target, *options: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(source)]
    subprocess.run([*command, *options, str(target)], check=True)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_any_sample_rate_gives_the_same_mono_waveform(tmp_path, rate, suffix):
    path = tmp_path / f"song{suffix}"
    soundfile.write(path, tone(1.5, rate), rate)
    waveform = audio.load_waveform(path)
    assert waveform.dtype == np.float32
    assert len(waveform) == int(1.5 * audio.SAMPLE_RATE)
    inner = slice(500, -500)
    np.testing.assert_allclose(waveform[inner], tone(1.5, audio.SAMPLE_RATE)[inner], atol=2e-3)


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    left, right = tone(1, 22_050, 440), tone(1, 22_050, 660)
    soundfile.write(tmp_path / "song.wav", np.stack([left, right], axis=1), 22_050, subtype="FLOAT")
    waveform = audio.load_waveform(tmp_path / "song.wav")
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".m4a", ".wma", ".mkv"])
def test_compressed_songs_and_the_sound_of_videos_are_read(melody, tmp_path, suffix):
    path = tmp_path / f"a:song % {suffix}"
    picture = ["-f", "lavfi", "-i", "color=s=64x64:d=3"] if suffix == ".mkv" else []
    convert(melody, f"file:{path}", *picture)
    original, decoded = audio.load_waveform(melody), audio.load_waveform(path)
    padding = int(0.06 * audio.SAMPLE_RATE)  # what an encoder may put before and after the song
    assert abs(len(decoded) - len(original)) < 2 * padding
    piece = original[20_000:50_000]
    around = decoded[20_000 - padding : 50_000 + padding]
    match = scipy.signal.correlate(around, piece, mode="valid").max() / (piece @ piece)
    assert match == pytest.approx(1, abs=0.05)


def test_a_long_song_read_in_pieces_equals_librosa_load(melody, monkeypatch):
    monkeypatch.setattr(audio, "READ_FRAMES", 5000)
    expected, _ = librosa.load(melody, sr=audio.SAMPLE_RATE)
    np.testing.assert_allclose(audio.load_waveform(melody), expected, atol=1e-6)


def test_the_chromagram_is_librosas_whatever_the_block_length(melody):
    waveform = np.tile(audio.load_waveform(melody), 7)
    waveform = waveform[: len(waveform) - 123]
    expected = librosa.feature.chroma_cqt(y=waveform, sr=audio.SAMPLE_RATE, hop_length=512)
    for block_seconds in (60, 7, 5):
        features = audio.analyse(waveform, 512, block_seconds=block_seconds)
        frames = audio.count_frames(len(waveform), 512)
        assert features.pitches.values.shape == (frames, 12)
        for row, name in enumerate(["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A"]):
            column = features.pitches.values[:, features.pitches.names.index(name)]
            np.testing.assert_allclose(column, expected[row, :frames], atol=1e-4)


def test_the_power_is_the_mean_mel_power_scaled_to_one(melody):
    waveform = audio.load_waveform(melody)
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=audio.SAMPLE_RATE, n_mels=128, fmax=8000, hop_length=256
    )
    power = mel.mean(axis=0)[: audio.count_frames(len(waveform), 256)]
    features = audio.analyse(waveform, 256, block_seconds=1)
    np.testing.assert_allclose(
        features.power, (power - power.min()) / (power.max() - power.min()), atol=1e-4
    )
    gradient = np.gradient(power)
    np.testing.assert_allclose(features.onset, np.maximum(gradient / gradient.max(), 0), atol=1e-4)


def test_an_a_sounds_in_the_column_of_a():
    features = audio.analyse(tone(3, audio.SAMPLE_RATE).astype(np.float32), 512)
    assert features.pitches.names[features.pitches.values.mean(axis=0).argmax()] == "A"


@pytest.mark.parametrize("samples", [512, 513, 1000, 30_000])
def test_silence_gives_zeros_and_never_nan(samples):
    features = audio.analyse(np.zeros(samples, np.float32), 512)
    assert len(features.power) == -(-samples // 512)
    for values in (features.pitches.values, features.power, features.onset):
        assert not values.any()


def test_samples_that_are_no_numbers_are_silence(tmp_path):
    samples = tone(1, 22_050).astype(np.float32)
    samples[100:200] = np.nan
    samples[300] = np.inf
    soundfile.write(tmp_path / "song.wav", samples, 22_050, subtype="FLOAT")
    waveform = audio.load_waveform(tmp_path / "song.wav")
    assert np.isfinite(waveform).all()


def test_each_file_that_is_no_song_is_a_clear_error(tmp_path):
    text = tmp_path / "text.mp3"
    text.write_text("this is not music\n" * 300)
    empty = tmp_path / "empty.wav"
    empty.touch()
    silent_film = tmp_path / "film.mp4"
    source = ["-f", "lavfi", "-i", "color=s=64x64:d=1"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *source, str(silent_film)],
        check=True,
    )
    expected = {
        tmp_path / "nowhere.mp3": "there is no song",
        tmp_path: "is a folder",
        empty: "is an empty file",
        text: "no song that can be decoded",
        silent_film: "no song that can be decoded",
    }
    for path, message in expected.items():
        with pytest.raises(SongError, match=message):
            audio.load_waveform(path)


def test_a_song_shorter_than_a_frame_is_refused():
    with pytest.raises(SongError, match="shorter than one frame"):
        audio.analyse(np.zeros(1023, np.float32), 1024)
