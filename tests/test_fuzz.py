"""Anything that settings allow renders; anything that they do not is refused; no file crashes."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import fields
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deepviz
from deepviz import Settings, audio
from deepviz.errors import SettingsError, SongError

SOUND = np.sin(np.cumsum(np.linspace(0.02, 0.4, 22_050))) * np.linspace(0, 0.9, 22_050)

VALID = {
    "resolution": st.sampled_from([64, 66, 98]),
    "classes": st.none() | st.lists(st.integers(0, 999), min_size=1, max_size=12),
    "sort_classes_by_power": st.booleans(),
    "depth": st.floats(0.01, 1),
    "truncation": st.floats(0.1, 1),
    "seed": st.none() | st.integers(0, 2**63 - 1),
    "pitch_sensitivity": st.floats(1, 299),
    "tempo_sensitivity": st.floats(0, 10),
    "jitter": st.floats(0, 1),
    "smooth_factor": st.floats(0, 1000, exclude_min=True),
    "frame_length": st.integers(1, 344).map(lambda n: 64 * n),
    "batch_size": st.none() | st.integers(1, 100),
    "start": st.floats(0, 0.99),
    "duration": st.none() | st.floats(0, 2, exclude_min=True),
    "scaling": st.integers(1, 3),
    "use_disk": st.booleans(),
    "output_file": st.sampled_from(["x.mp4", "{song} x.MP4", "x.png"]),
}
WRONG = st.one_of(
    st.integers(max_value=-1),
    st.integers(min_value=2**64),
    st.sampled_from([float("nan"), float("inf"), "much", [], ["cat"], object(), -0.5]),
)


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(path, SOUND, 22_050)
    return path


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=st.fixed_dictionaries({}, optional=VALID))
def test_any_valid_combination_renders(song, chosen):
    if chosen.get("use_disk") and chosen.get("output_file", "").endswith(".png"):
        chosen["use_disk"] = False
    if chosen.get("frame_length", 512) > 11_025:
        chosen["start"] = 0  # or the song might end before
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        path = deepviz.render(song, model="cppn", **chosen)
        assert path.stat().st_size > 500
        assert not list(Path().glob("*.part"))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([f.name for f in fields(Settings) if f.name != "song"]),
    value=WRONG,
)
def test_any_invalid_value_is_refused_by_the_name_of_its_flag(name, value):
    kind = deepviz.settings.value_type(next(f for f in fields(Settings) if f.name == name))
    if kind is str and isinstance(value, str):
        value = ""  # "much" is a folder like any other
    with pytest.raises(SettingsError) as caught:
        Settings(song="x.mp3", **{name: value})
    assert f"--{name} " in str(caught.value)


@pytest.fixture(scope="module")
def encoded(song, tmp_path_factory) -> dict[str, bytes]:
    """The same second of sound in several formats."""
    folder, found = tmp_path_factory.mktemp("encoded"), {}
    for suffix in ("wav", "flac", "ogg", "mp3", "m4a", "mkv", "wma"):
        path = folder / f"song.{suffix}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(song)]
        subprocess.run([*command, str(path)], check=True)
        found[suffix] = path.read_bytes()
    return found


@settings(max_examples=60, deadline=10_000)  # ms: what is damaged must not hang
@given(
    suffix=st.sampled_from(["wav", "flac", "ogg", "mp3", "m4a", "mkv", "wma"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=20),
    keep=st.floats(0, 1),
)
def test_a_damaged_file_is_read_or_refused(encoded, suffix, changes, keep):
    data = bytearray(encoded[suffix])
    for where, patch in changes:
        # Half of the damage goes to the first kilobyte: headers are what parsers trust.
        at = int(where * 2 * 1024) if where < 0.5 else int(where * len(data))
        data[at : at + len(patch)] = patch
    data = data[: max(1, int(keep * len(data)))]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"song.{suffix}"
        path.write_bytes(data)
        try:
            waveform = audio.load_waveform(path)
        except SongError:
            return
        assert np.isfinite(waveform).all()
        assert waveform.nbytes < 1e9
