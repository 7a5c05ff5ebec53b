"""Several songs and folders of songs in one command."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deepviz import batch, generators
from deepviz.cli import main
from deepviz.errors import SettingsError, SongError
from deepviz.settings import Settings

TRIAL = ["--model", "cppn", "--resolution", "64", "--duration", "0.1"]


@pytest.fixture
def songs(folder, melody) -> Path:
    """A folder with two songs, one damaged file, one in a folder of its own, and other things."""
    inside = folder / "songs"
    (inside / "album").mkdir(parents=True)
    shutil.copy(melody, inside / "one.wav")
    soundfile.write(inside / "two.flac", np.sin(np.arange(22_050) / 9), 22_050)
    soundfile.write(inside / "album" / "three.ogg", np.sin(np.arange(22_050) / 7), 22_050)
    (inside / "broken.mp3").write_bytes(b"no music " * 1000)
    (inside / "cover.jpg").write_bytes(b"a picture")
    (inside / "._one.wav").write_bytes(b"what another system keeps beside a file")
    return inside


def run(capsys, *flags) -> tuple[int, str, str]:
    code = main([str(flag) for flag in flags])
    return code, *capsys.readouterr()


def test_one_song_that_fails_does_not_keep_the_others_from_being_made(songs, capsys):
    Path("out").mkdir()
    code, out, err = run(capsys, "--song", songs, "--output_file", "out/{song}.mp4", *TRIAL)
    assert code == 1
    assert sorted(p.name for p in Path("out").iterdir()) == ["one.mp4", "three.mp4", "two.mp4"]
    assert "broken.mp3 is no song that can be decoded" in err
    assert out.endswith("3 made, 0 skipped, 1 failed\n")
    summary = out.split("\n\n")[-1]
    for words in ("made     out/one.mp4", "made     out/three.mp4", "failed   ", "broken.mp3"):
        assert words in summary


def test_songs_that_were_made_by_the_same_settings_are_skipped(songs, capsys):
    (songs / "broken.mp3").unlink()
    flags = ["--song", songs, "--output_file", "{song}.mp4", *TRIAL]
    assert run(capsys, *flags)[0] == 0
    first = {path: path.stat().st_mtime_ns for path in Path().glob("*.mp4")}
    assert len(first) == 3
    code, out, _ = run(capsys, *flags)
    assert (code, out.splitlines()[-1]) == (0, "0 made, 3 skipped, 0 failed")
    assert {path: path.stat().st_mtime_ns for path in Path().glob("*.mp4")} == first
    Path("two.mp4").write_bytes(b"cut off")  # no longer what the earlier run left
    assert "1 made, 2 skipped" in run(capsys, *flags)[1]
    assert "3 made, 0 skipped" in run(capsys, *flags, "--overwrite")[1]
    assert "3 made, 0 skipped" in run(capsys, *flags, "--depth", "0.5")[1]


def test_the_generator_is_loaded_once_for_all_songs(songs, capsys, monkeypatch):
    loaded = []
    load = generators.load_generator
    monkeypatch.setattr(
        generators, "load_generator", lambda settings: loaded.append(1) or load(settings)
    )
    assert "3 made" in run(capsys, "--song", songs, *TRIAL)[1]
    assert len(loaded) == 1


def test_without_a_name_for_the_output_each_song_gets_its_own(songs, capsys):
    code, out, _ = run(capsys, "--song", songs / "one.wav", songs / "two.flac", *TRIAL)
    assert code == 0
    assert Path("one.mp4").exists()
    assert Path("two.mp4").exists()
    assert "2 made" in out


def test_one_song_may_name_its_video_too(songs, capsys):
    flags = ["--song", songs / "one.wav", "--output_file", "{song} at 64.mp4"]
    assert run(capsys, *flags, *TRIAL)[0] == 0
    assert Path("one at 64.mp4").exists()


def test_two_songs_for_one_file_are_refused_before_any_work(songs, capsys):
    code, _, err = run(capsys, "--song", songs, "--output_file", "x.mp4", *TRIAL)
    assert code == 2
    assert "{song}" in err
    assert not Path("x.mp4").exists()


def test_videos_beside_their_songs_are_not_taken_for_songs(songs, capsys):
    flags = ["--song", songs / "album", "--output_file", f"{songs}/album/{{song}}.mp4", *TRIAL]
    assert "1 made" in run(capsys, *flags)[1]
    assert "0 made, 1 skipped, 0 failed" in run(capsys, *flags)[1]


def test_a_folder_without_songs_is_one_line(folder, capsys):
    Path("empty").mkdir()
    code, _, err = run(capsys, "--song", "empty", *TRIAL)
    assert code == 1
    assert "holds no songs" in err
    assert err.count("\n") == 1
    with pytest.raises(SongError):
        batch.find_songs(["empty"])


def test_a_fault_of_our_own_in_one_song_does_not_end_the_night(songs, capsys, monkeypatch):
    (songs / "broken.mp3").unlink()
    real = batch.pipeline.render

    def faulty(settings, load_generator):
        if "two" in settings.song:
            raise ZeroDivisionError("by mistake")
        return real(settings, load_generator)

    monkeypatch.setattr(batch.pipeline, "render", faulty)
    code, out, err = run(capsys, "--song", songs, *TRIAL)
    assert code == 1
    assert "2 made, 0 skipped, 1 failed" in out
    assert "ZeroDivisionError: by mistake" in err


def test_the_same_target_is_found_in_python_too():
    settings = Settings(song="none", output_file="x.mp4")
    with pytest.raises(SettingsError, match="would both be written"):
        batch.render_songs([Path("a.mp3"), Path("b.mp3")], settings)


def test_a_song_that_failed_paints_no_more_while_the_next_one_is_made(songs, monkeypatch):
    from deepviz import frames, video

    monkeypatch.setattr(frames, "AHEAD_BYTES", 64 * 64 * 3)  # its thread has far to go
    monkeypatch.setitem(video.ENCODERS, "libx264", ("no_such_preset", []))
    settings = Settings(song="none", model="cppn", resolution=64)
    outcomes = batch.render_songs([songs / "one.wav", songs / "two.flac"], settings)
    assert all("could not be encoded" in str(outcome.error) for outcome in outcomes)
    # the errors are still held, with all that they refer to
    assert not [t for t in threading.enumerate() if t.name == "deepviz-frames"]
