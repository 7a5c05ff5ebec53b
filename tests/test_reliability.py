"""Faults injected for real: killed processes, full disks, damaged files, a second run."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import deepviz
from deepviz import generators, video
from deepviz.errors import FramesError, RunningError, VideoError

ROOT = Path(__file__).parent.parent
SMALL = {"model": "cppn", "resolution": 64}
COMMAND = [sys.executable, str(ROOT / "visualize.py"), "--model", "cppn", "--resolution", "64"]
PATIENCE = 60  # seconds after which a test gives up; none passes or fails by time alone


@pytest.fixture
def long_song(tmp_path_factory) -> Path:
    """Forty seconds: long enough to be in the middle of it when something happens."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.normal(0, 0.1, 40 * 8000), 8000)
    return path


def start(folder: Path, *flags: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, flags)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happened, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def frames_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(".deepviz/*/frames/*.png"))


def encoders_of(folder: Path) -> list[int]:
    """Processes that write to a file in ``folder``: the encoders."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(w.startswith(bytes(folder)) and w.endswith(b".part") for w in words):
                found.append(int(entry.name))
    return found


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".deepviz")


def painted_by(monkeypatch) -> list[int]:
    """A list that grows by the number of frames in each batch that is painted."""
    counts: list[int] = []
    load = generators.load_generator

    def counting(settings):
        generator = load(settings)
        render = generator.render

        def counted(batches):
            for batch in render(batches):
                counts.append(len(batch))
                yield batch

        generator.render = counted
        return generator

    monkeypatch.setattr(generators, "load_generator", counting)
    return counts


def test_a_killed_run_goes_on_at_its_first_missing_frame(
    folder, long_song, monkeypatch, caplog, read_video
):
    caplog.set_level("INFO", logger="deepviz")
    process = start(folder, "-d", "--song", long_song)
    wait_until(lambda: len(frames_in(folder)) > 60, process)
    process.kill()
    process.communicate()
    there = frames_in(folder)
    there[3].write_bytes(there[3].read_bytes()[:-40])  # a power cut in the middle of a frame
    there[5].write_bytes(b"")

    counts = painted_by(monkeypatch)
    path = deepviz.render(long_song, use_disk=True, **SMALL)  # the same command: no seed is given
    kept = [np.asarray(Image.open(frame)) for frame in frames_in(folder)]
    total = -(-40 * 22050 // 512)
    assert len(kept) == total
    assert sum(counts) == total - len(there) + 2
    assert f"{len(there) - 2} of {total} frames are there already" in caplog.text

    seed = int(caplog.text.split("seed ")[1].split()[0])
    other = folder / "uninterrupted"
    again = deepviz.render(
        long_song, use_disk=True, seed=seed, work_dir=other, output_file="b.mp4", **SMALL
    )
    whole = [np.asarray(Image.open(frame)) for frame in sorted(other.glob("*/frames/*.png"))]
    np.testing.assert_array_equal(kept, whole)
    np.testing.assert_array_equal(read_video(path).frames, read_video(again).frames)


def test_a_finished_run_is_not_painted_again_with_the_same_seed(folder, melody, monkeypatch):
    deepviz.render(melody, use_disk=True, seed=1, **SMALL)
    counts = painted_by(monkeypatch)
    deepviz.render(melody, use_disk=True, seed=1, output_file="again.mp4", scaling=2, **SMALL)
    assert not counts


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"classes": [7] * 12}, "classes was"),
        ({"resolution": 66}, "resolution was 64 and is 66"),
        ({"tempo_sensitivity": 0.7}, "tempo_sensitivity was 0.25 and is 0.7"),
        ({"truncation": 0.4}, "truncation was 1.0 and is 0.4"),
        ({"frame_length": 1024}, "frame_length was 512 and is 1024"),
    ],
)
def test_frames_of_other_settings_are_not_taken_and_the_reason_is_said(
    folder, melody, monkeypatch, caplog, changed, reason
):
    caplog.set_level("INFO", logger="deepviz")
    deepviz.render(melody, use_disk=True, duration=0.3, seed=1, **SMALL)
    counts = painted_by(monkeypatch)
    settings = {**SMALL, "seed": 1, "duration": 0.2, **changed}
    deepviz.render(melody, use_disk=True, **settings)
    assert reason in caplog.text
    assert sum(counts) == len(frames_in(folder))


def test_another_song_under_the_same_name_has_frames_of_its_own(folder, melody):
    shutil.copy(melody, "song.wav")
    deepviz.render("song.wav", use_disk=True, duration=0.1, **SMALL)
    samples, rate = soundfile.read(melody)
    soundfile.write("song.wav", samples[::-1], rate)
    deepviz.render("song.wav", use_disk=True, duration=0.1, **SMALL)
    assert len(list(Path(".deepviz").glob("song-*/frames"))) == 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_and_leaves_nothing_behind(folder, long_song, number, code):
    Path("output.mp4").write_bytes(b"an older video")
    process = start(folder, "--song", long_song, "--scaling", 4)
    wait_until(lambda: encoders_of(folder), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert err.count("\n") == 1
    assert left_in(folder) == ["output.mp4"]
    assert Path("output.mp4").read_bytes() == b"an older video"
    assert not encoders_of(folder)


def test_an_interrupted_run_without_d_loses_nothing_of_an_earlier_one(folder, long_song):
    deepviz.render(long_song, duration=0.2, seed=1, **SMALL)
    (song,) = Path(".deepviz").iterdir()
    before = {p.name: p.read_bytes() for p in song.iterdir() if p.suffix in (".npz", ".json")}
    process = start(folder, "--song", long_song, "--scaling", 4, "--seed", 2)
    wait_until(lambda: encoders_of(folder), process)
    process.kill()
    process.communicate()
    after = {p.name: p.read_bytes() for p in song.iterdir() if p.suffix in (".npz", ".json")}
    assert after == before


def test_a_second_run_on_the_same_song_says_that_the_first_is_at_work(folder, long_song):
    process = start(folder, "--song", long_song, "--scaling", 4)
    wait_until(lambda: encoders_of(folder), process)
    with pytest.raises(RunningError, match="another run is at work on this song"):
        deepviz.render(long_song, duration=0.1, output_file="second.mp4", **SMALL)
    other = folder / "other.wav"
    soundfile.write(other, np.zeros(8000), 8000)
    deepviz.render(other, output_file="other.mp4", **SMALL)  # another song in the same work folder
    process.kill()  # no lock stays behind
    process.communicate()
    deepviz.render(long_song, duration=0.1, output_file="third.mp4", **SMALL)


def test_an_encoder_that_dies_is_reported_and_s_makes_the_video(folder, long_song, read_video):
    process = start(folder, "-d", "--song", long_song, "--duration", 20, "--scaling", 4)
    wait_until(lambda: encoders_of(folder) and len(frames_in(folder)) > 100, process)
    os.kill(encoders_of(folder)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "could not be encoded" in err
    assert err.count("\n") == 1
    assert left_in(folder) == []
    count = len(frames_in(folder))
    seconds = (count - 1) * 512 / 22050
    path = deepviz.render(long_song, save_only=True, duration=seconds)
    assert len(read_video(path).frames) in (count - 1, count)


def test_an_encoder_that_cannot_start_is_reported(folder, melody, monkeypatch):
    monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", "/nowhere/ffmpeg")
    with pytest.raises(VideoError, match="ffmpeg could not be started"):
        deepviz.render(melody, duration=0.1, **SMALL)
    assert left_in(folder) == []


def test_a_file_size_limit_in_the_encoder_is_one_line(folder, long_song):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = subprocess.run(
        [*COMMAND, "--song", str(long_song), "--resolution", "256"],
        cwd=folder,
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert left_in(folder) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_fills_up_under_the_video_is_one_line(folder, long_song, small_disk):
    process = start(
        folder, "--song", long_song, "--resolution", 256, "--output_file", small_disk / "x.mp4"
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert list(small_disk.iterdir()) == []


def test_a_disk_too_small_for_the_frames_is_refused_before_the_first(
    folder, long_song, small_disk, monkeypatch
):
    counts = painted_by(monkeypatch)
    with pytest.raises(FramesError, match=r"-d may need 0\.0 GB for 1723 frames"):
        deepviz.render(long_song, use_disk=True, work_dir=small_disk, **SMALL)
    assert not counts


def test_a_disk_that_others_fill_meanwhile_is_one_line(folder, melody, small_disk, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1 << 40))
    with pytest.raises(FramesError, match="No space left on device"):
        deepviz.render(melody, use_disk=True, work_dir=small_disk, resolution=256, model="cppn")
    assert left_in(folder) == ["disk"]
    assert not list(small_disk.rglob("*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_are_one_line(folder, melody):
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(VideoError, match="nothing can be written"):
        deepviz.render(melody, output_file=locked / "x.mp4", **SMALL)
    with pytest.raises(deepviz.DeepvizError, match="--work_dir"):
        deepviz.render(melody, work_dir=locked, duration=0.1, **SMALL)


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        'it\'s "quoted"',
        "a\nnew line",
        "100% %d %06d",
        "-dash",
        "--resolution",
        "a:b",
        "http:",
        "ünïcödé 音楽 🎵",
        "*?[x]{y}",
        "back\\slash",
        "n" * 240,
    ],
)
def test_odd_names_of_songs_and_videos_work(folder, melody, read_video, name):
    song = f"{name}.wav"
    shutil.copy(melody, folder / song)
    path = deepviz.render(song, output_file=f"{name} .mp4", duration=0.1, use_disk=True, **SMALL)
    assert path == Path(f"{name} .mp4")
    assert len(read_video(folder / path).frames) == 5
    assert left_in(folder) == sorted([song, path.name])


def test_a_name_that_no_file_can_have_is_one_line(folder, melody):
    with pytest.raises(VideoError, match="too long"):
        deepviz.render(melody, output_file="n" * 300 + ".mp4", **SMALL)


def test_a_song_is_never_overwritten_by_its_video(folder, melody):
    shutil.copy(melody, "song.mp4")
    before = Path("song.mp4").read_bytes()
    with pytest.raises(VideoError, match="is the song itself"):
        deepviz.render("song.mp4", output_file="song.mp4", **SMALL)
    assert Path("song.mp4").read_bytes() == before


def test_a_shell_loop_keeps_its_standard_input(folder, melody):
    for name in ("a", "b", "c"):
        shutil.copy(melody, folder / f"{name}.wav")
    flags = "--model cppn --resolution 64 --duration 0.1"
    loop = (
        "printf 'a\\nb\\nc\\n' | while read -r s; do "
        f'"{sys.executable}" "{ROOT}/visualize.py" --song "$s.wav" --output_file "$s.mp4" {flags}; '
        "done"
    )
    done = subprocess.run(["sh", "-c", loop], cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["a.mp4", "b.mp4", "c.mp4"]


def test_the_trial_of_an_encoder_that_hangs_is_given_up(monkeypatch, tmp_path):
    import imageio_ffmpeg

    sleeper = tmp_path / "ffmpeg"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(sleeper))
    monkeypatch.setattr(video, "has_graphics_driver", lambda: True)
    monkeypatch.setattr(video, "TRIAL_TIMEOUT", 0.1)
    assert video.pick_encoder("auto", 256) == "libx264"
