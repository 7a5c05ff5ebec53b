"""The whole way from a song to a file, with the built-in network and the real ffmpeg."""

from __future__ import annotations

import itertools
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import deepviz
from deepviz import generators, plan, video
from deepviz.errors import FramesError, PreviousRunError, SettingsError, VideoError

FPS = Fraction(11025, 256)
SMALL = {"model": "cppn", "resolution": 64}


def frames_on_disk(work_dir: str = ".deepviz") -> list[np.ndarray]:
    (folder,) = Path(work_dir).glob("*/frames")
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.fixture
def no_generator(monkeypatch):
    def refuse(settings):
        raise AssertionError("a generator was loaded")

    monkeypatch.setattr(generators, "load_generator", refuse)


def test_the_video_covers_the_whole_song_at_the_exact_rate(folder, melody, read_video):
    path = deepviz.render(melody, output_file="x.mp4", **SMALL)
    assert path == Path("x.mp4")
    video = read_video(path)
    assert video.frames.shape == (-(-3 * 22050 // 512), 64, 64, 3)
    assert video.rate == FPS
    assert video.times == [n / FPS for n in range(len(video.frames))]
    assert video.pixel_format == "yuv420p"
    assert video.colour_matrix == 1  # BT.709, in ITU-T H.273
    assert [p.name for p in folder.iterdir() if p.name != ".deepviz"] == ["x.mp4"]


def test_the_sound_is_the_songs_own_and_ends_with_the_picture(folder, melody, read_video):
    video = read_video(deepviz.render(melody, **SMALL))
    original, rate = soundfile.read(melody)
    assert video.sound_rate == rate == 44_100
    assert video.sound_bit_rate > 150_000  # of silence-like test tones AAC needs less than it may
    assert video.sound.shape[1] == 2
    for channel in (0, 1):  # not a sample early or late
        lags = range(-40, 41)
        heard = [
            np.dot(
                video.sound[10_000 + lag : 90_000 + lag, channel], original[10_000:90_000, channel]
            )
            for lag in lags
        ]
        assert lags[int(np.argmax(heard))] == 0
    picture_ends = len(video.frames) / FPS
    assert abs(picture_ends - Fraction(len(original), rate)) < 1 / FPS
    assert abs(picture_ends - Fraction(len(video.sound), rate)) < 1 / FPS + Fraction(1024, rate)


def test_the_index_stands_before_the_media_so_that_a_browser_starts_at_once(folder, melody):
    data = deepviz.render(melody, duration=0.5, **SMALL).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("frame_length", [64, 576, 2048])
def test_other_frame_lengths_give_their_exact_rate(folder, melody, read_video, frame_length):
    video = read_video(deepviz.render(melody, frame_length=frame_length, duration=1, **SMALL))
    assert video.rate == Fraction(22050, frame_length)
    assert len(video.frames) == -(-22050 // frame_length)


def test_a_part_of_the_song_is_that_part_in_picture_and_sound(folder, melody, read_video):
    deepviz.render(melody, seed=1, use_disk=True, **SMALL)
    whole = frames_on_disk()
    settings = {**SMALL, "use_disk": True, "work_dir": "part"}
    path = deepviz.render(melody, seed=1, start=1.2, duration=0.7, **settings)
    first, count = int(1.2 * FPS), -int(-Fraction("0.7") * FPS // 1)
    part = frames_on_disk("part")
    assert len(part) == count
    for frame, same in zip(part, whole[first:], strict=False):
        np.testing.assert_array_equal(frame, same)
    video = read_video(path)
    assert len(video.frames) == count
    assert video.times[0] == 0
    original, rate = soundfile.read(melody)
    at = round(first / FPS * rate)
    expected, heard = original[at : at + 20_000, 0], video.sound[:20_000, 0]
    assert np.corrcoef(expected[2000:], heard[2000:])[0, 1] > 0.99


def test_previous_vectors_give_the_same_beginning_and_then_the_rest(folder, melody):
    settings = {**SMALL, "tempo_sensitivity": 0.5, "truncation": 0.8, "num_classes": 5}
    deepviz.render(melody, duration=1, use_disk=True, **settings)
    trial = frames_on_disk()
    shutil.rmtree(next(Path(".deepviz").glob("*/frames")))  # or they would be taken as they are
    # the look of the trial is remembered: nothing but the flag is needed
    deepviz.render(melody, use_previous_vectors=True, use_disk=True, **SMALL)
    full = frames_on_disk()
    assert len(trial) == 44
    assert len(full) == 130
    np.testing.assert_array_equal(trial, full[: len(trial)])
    assert any((frame != trial[-1]).any() for frame in full[len(trial) :])


def test_a_seed_fixes_every_frame(folder, melody):
    made = []
    for seed in (7, 7, 8):
        deepviz.render(melody, seed=seed, duration=0.2, use_disk=True, **SMALL)
        made.append(frames_on_disk())
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(np.subtract(made[0], made[2], dtype=float)).mean() > 5


def test_previous_classes_are_the_songs_own_else_the_last_in_the_folder(folder, melody, caplog):
    caplog.set_level("INFO", logger="deepviz")
    other = folder / "other.wav"
    samples, rate = soundfile.read(melody)
    soundfile.write(other, samples[::-1], rate)
    trial = {**SMALL, "duration": 0.1}

    def classes_of_last_run():
        line = [r.getMessage() for r in caplog.records if r.getMessage().startswith("classes")][-1]
        return [int(word) for word in line.split() if word.isdigit()]

    with pytest.raises(PreviousRunError, match="no earlier run"):
        deepviz.render(melody, use_previous_classes=True, **trial)
    deepviz.render(melody, classes=[207, 88, 980], **trial)
    deepviz.render(other, use_previous_classes=True, **trial)  # from the last run of any song
    assert classes_of_last_run() == [207, 88, 980]
    deepviz.render(other, classes=[1, 2], **trial)
    deepviz.render(melody, use_previous_classes=True, **trial)  # from its own last run
    assert classes_of_last_run() == [207, 88, 980]
    with pytest.raises(SettingsError, match="num_classes"):
        deepviz.render(melody, use_previous_classes=True, num_classes=4, **trial)


def test_a_previous_run_that_does_not_fit_is_refused(folder, melody):
    with pytest.raises(PreviousRunError, match="no earlier run"):
        deepviz.render(melody, use_previous_vectors=True, **SMALL)
    deepviz.render(melody, duration=0.1, seed=3, pitch_sensitivity=250, **SMALL)
    for name, value in {
        "frame_length": 1024,
        "pitch_sensitivity": 280,
        "seed": 4,
        "num_classes": 3,
        "truncation": 0.5,
    }.items():
        with pytest.raises(PreviousRunError, match=name):
            deepviz.render(melody, use_previous_vectors=True, **{name: value}, **SMALL)
    (record,) = Path(".deepviz").glob("*/settings.json")
    record.write_text("{")
    with pytest.raises(PreviousRunError, match="damaged"):
        deepviz.render(melody, use_previous_vectors=True, **SMALL)


def test_stored_frames_become_a_video_without_a_generator(folder, melody, read_video, request):
    deepviz.render(melody, duration=0.5, seed=1, use_disk=True, output_file="a.mp4", **SMALL)
    request.getfixturevalue("no_generator")
    path = deepviz.render(melody, duration=0.5, save_only=True, output_file="b.mp4")
    np.testing.assert_array_equal(read_video(path).frames, read_video(Path("a.mp4")).frames)


def test_without_an_earlier_run_on_disk_there_is_nothing_to_save(folder, melody, no_generator):
    with pytest.raises(PreviousRunError, match="no earlier run with -d"):
        deepviz.render(melody, save_only=True)


def test_frames_that_are_not_all_there_are_named(folder, melody):
    deepviz.render(melody, duration=0.5, use_disk=True, **SMALL)
    (frames,) = Path(".deepviz").glob("*/frames")
    for number in (3, 4, 5, 9):
        (frames / f"{number:06d}.png").unlink()
    with pytest.raises(FramesError, match=r"4 of 22 frames are missing .*: 3 to 5, 9;"):
        deepviz.render(melody, duration=0.5, save_only=True, output_file="s.mp4")
    with pytest.raises(FramesError, match="112 of 130"):
        deepviz.render(melody, save_only=True, output_file="s.mp4")
    with pytest.raises(PreviousRunError, match="--frame_length 512"):
        deepviz.render(melody, save_only=True, frame_length=1024)
    assert not Path("s.mp4").exists()


def test_frames_of_another_run_never_stay_behind(folder, melody):
    deepviz.render(melody, duration=0.5, use_disk=True, seed=1, **SMALL)
    deepviz.render(melody, duration=0.2, use_disk=True, seed=2, **SMALL)
    assert len(frames_on_disk()) == 9


def test_scaling_enlarges_by_lanczos(folder, melody, read_video):
    deepviz.render(melody, duration=0.1, use_disk=True, seed=1, **SMALL)
    small = frames_on_disk()[0]
    video = read_video(deepviz.render(melody, duration=0.1, seed=1, scaling=3, **SMALL))
    assert video.frames.shape[1:] == (192, 192, 3)
    wanted = np.asarray(Image.fromarray(small).resize((192, 192), Image.Resampling.LANCZOS))
    assert np.abs(wanted.astype(float) - video.frames[0]).mean() < 4  # of 255, H.264 included


def test_the_encoded_picture_looks_like_the_frames(folder, melody, read_video):
    settings = {"model": "cppn", "resolution": 256, "seed": 2, "duration": 0.3}
    path = deepviz.render(melody, use_disk=True, **settings)
    for frame, shown in zip(frames_on_disk(), read_video(path).frames, strict=True):
        difference = frame.astype(float) - shown
        assert np.abs(difference.mean(axis=(0, 1))).max() < 1.5  # no tint: the right colour matrix
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 30  # dB; chroma is halved


def test_a_contact_sheet_shows_the_song_in_twenty_four_frames(folder, melody):
    path = deepviz.render(melody, output_file="sheet.png", seed=1, **SMALL)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (8 + 4 * (128 + 22) + 8 + 12 * 12 + 56 + 22 + 8, 8 + 6 * 136, 3)
    tiles = [
        sheet[8 + row * 150 : 136 + row * 150, 8 + column * 136 : 136 + column * 136]
        for row, column in itertools.product(range(4), range(6))
    ]
    assert all(tile.std() > 10 for tile in tiles)
    assert all((a != b).any() for a, b in itertools.pairwise(tiles))
    chroma = sheet[616:760, 60:].astype(int)
    rows = chroma.sum(axis=2)[6::12]
    loudest = rows.argmax(axis=0)  # the scale rises: A, B, C#, D, E, F#
    assert [loudest[len(loudest) * (2 * n + 1) // 12] for n in range(6)] == [0, 2, 4, 5, 7, 9]


def test_a_short_part_gives_a_sheet_with_fewer_frames(folder, melody):
    path = deepviz.render(melody, output_file="sheet.png", duration=0.1, **SMALL)
    assert Image.open(path).height < 500


@pytest.mark.parametrize("name", ["old.mp4", "old.png"])
def test_a_failure_leaves_an_old_file_alone_and_no_temporary_one(folder, melody, monkeypatch, name):
    class Broken:
        name, device, resolution, noise_dim, num_classes = "broken", "cpu", 64, 128, 1000
        batch_size, fingerprint = 30, "broken"

        def render(self, batches):
            for noise, _ in itertools.islice(batches, 2):
                yield np.zeros((len(noise), 64, 64, 3), np.uint8)
            raise ValueError("broken on purpose")

    monkeypatch.setattr(generators, "load_generator", lambda settings: Broken())
    Path(name).write_bytes(b"a good old file")
    with pytest.raises(ValueError, match="on purpose"):
        deepviz.render(melody, output_file=name, batch_size=4)
    assert Path(name).read_bytes() == b"a good old file"
    assert sorted(path.name for path in folder.iterdir()) == [".deepviz", name]


def test_an_encoder_that_fails_is_reported_with_its_own_words(folder, melody, monkeypatch):
    monkeypatch.setitem(video.ENCODERS, "libx264", ("no_such_preset", []))
    with pytest.raises(VideoError, match="no_such_preset"):
        deepviz.render(melody, duration=0.5, **SMALL)
    assert sorted(path.name for path in folder.iterdir()) == [".deepviz"]


def test_outputs_that_cannot_be_written_are_refused_before_any_work(folder, melody, no_generator):
    (folder / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="is a folder"):
        deepviz.render(melody, output_file="folder.mp4")
    with pytest.raises(VideoError, match="no folder nowhere"):
        deepviz.render(melody, output_file="nowhere/x.mp4")


def test_a_start_past_the_end_is_refused(folder, melody, no_generator):
    with pytest.raises(SettingsError, match=r"past the end of the song, which is 3\.0 s"):
        deepviz.render(melody, start=3.1)


def test_the_shortest_song_gives_a_video_of_one_frame(folder, read_video):
    soundfile.write("click.wav", np.ones(1024) * 0.5, 44_100)
    assert len(read_video(deepviz.render("click.wav", **SMALL)).frames) == 1


@pytest.mark.parametrize("song", ["silence", "constant"])
def test_a_song_without_music_still_shows_something(folder, read_video, song):
    soundfile.write("song.wav", np.full(22_050, 0.0 if song == "silence" else 0.4), 22_050)
    video = read_video(deepviz.render("song.wav", **SMALL))
    assert len(video.frames) == 44
    assert video.frames.std() > 10


def test_durations_and_times_read_well():
    assert plan.format_time(3599.99) == "59:59.9"
    assert plan.format_time(0) == "0:00.0"
    assert [plan.format_duration(s) for s in (0.4, 59.6, 3600)] == [
        "0 s",
        "1 min 0 s",
        "1 h 0 min",
    ]
