import numpy as np
import pytest

from deepviz import Settings
from deepviz.errors import PreviousRunError
from deepviz.vectors import Vectors, load_vectors, make_vectors, save_vectors, smooth

FRAMES = 700


def vectors_of(drivers=None, power=None, onset=None, classes=range(12), seed=1, **settings):
    rng = np.random.default_rng(0)
    drivers = rng.random((FRAMES, 12)).astype(np.float32) if drivers is None else drivers
    power = rng.random(len(drivers)).astype(np.float32) if power is None else power
    onset = rng.random(len(drivers)).astype(np.float32) if onset is None else onset
    settings = Settings(song="x.mp3", **settings)
    return make_vectors(drivers, power, onset, np.array(classes), settings, seed)


def test_shapes_and_bounds_are_those_that_generators_expect():
    for truncation in (1.0, 0.3):
        vectors = vectors_of(truncation=truncation, depth=0.7)
        assert vectors.noise.shape == (FRAMES, 128)
        assert vectors.noise.dtype == vectors.class_weights.dtype == np.float32
        assert vectors.class_weights.shape == (FRAMES, 12)
        assert np.abs(vectors.noise).max() <= np.float32(2 * truncation)
        assert vectors.class_weights.min() >= 0
        assert vectors.class_weights.max() <= np.float32(0.7)


def test_noise_follows_the_formula_step_by_step():
    power = np.linspace(0, 1, FRAMES, dtype=np.float32)
    onset = np.zeros(FRAMES, np.float32)
    onset[100] = 1
    vectors = vectors_of(power=power, onset=onset, jitter=0, frame_length=1024, seed=3)
    z = vectors.noise.astype(np.float64)
    sensitivity, bound = 0.25 * 1024 / 512, 2.0
    direction, update = -np.sign(z[0]), np.zeros(128)
    for t in range(1, FRAMES):
        direction[z[t - 1] >= bound - sensitivity] = -1
        direction[z[t - 1] < -bound + sensitivity] = 1
        update = (sensitivity * (onset[t] + power[t]) * direction + 3 * update) / 4
        np.testing.assert_allclose(z[t], np.clip(z[t - 1] + update, -bound, bound), atol=1e-5)


def test_jitter_slows_some_units_and_changes_after_two_hundred_frames():
    still = vectors_of(jitter=0)
    moved = vectors_of(jitter=1)
    steps = np.abs(np.diff(moved.noise, axis=0))
    frozen = steps[50:195].max(axis=0) < 1e-6  # the update decays by 3/4 a frame
    assert 30 < frozen.sum() < 98  # about half of 128 units
    later = steps[250:395].max(axis=0) < 1e-6
    assert (frozen != later).any()
    np.testing.assert_array_equal(still.noise[0], moved.noise[0])


def test_silence_stands_still():
    zeros = np.zeros(FRAMES, np.float32)
    vectors = vectors_of(drivers=np.zeros((FRAMES, 12), np.float32), power=zeros, onset=zeros)
    assert not np.diff(vectors.noise, axis=0).any()
    assert np.isfinite(vectors.class_weights).all()
    assert vectors.class_weights.max() == 1  # something is shown even then


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12])
def test_each_row_of_class_weights_has_the_depth_as_its_maximum(count):
    vectors = vectors_of(classes=range(count), depth=0.5, smooth_factor=1)
    np.testing.assert_allclose(vectors.class_weights.max(axis=1), 0.5, rtol=1e-6)
    if count > 6:
        np.testing.assert_allclose(vectors.class_weights.min(axis=1), 0, atol=1e-6)


def test_class_weights_follow_the_recursion():
    rng = np.random.default_rng(5)
    drivers = rng.random((50, 12)).astype(np.float32)
    drivers[:3] = 0  # the song begins with silence
    vectors = vectors_of(
        drivers=drivers, smooth_factor=0.5, pitch_sensitivity=250, frame_length=256
    )
    inertia = (300 - 250) * 512 / 256

    def scaled(row):
        return (row - row.min()) / (row.max() - row.min())

    row = scaled(drivers[3].astype(np.float64))
    np.testing.assert_allclose(vectors.class_weights[0], row, atol=1e-6)
    for t in range(1, 50):
        row = scaled((row + drivers[t] / inertia) / (1 + 1 / inertia))
        np.testing.assert_allclose(vectors.class_weights[t], row, atol=1e-5)


def test_a_higher_pitch_sensitivity_follows_the_pitch_faster():
    drivers = np.zeros((200, 12), np.float32)
    drivers[:100, 0], drivers[100:, 1] = 1, 1
    slow = vectors_of(drivers=drivers, pitch_sensitivity=270, smooth_factor=1)
    fast = vectors_of(drivers=drivers, pitch_sensitivity=295, smooth_factor=1)
    crossed = [int(np.argmax(v.class_weights[:, 1] > v.class_weights[:, 0])) for v in (slow, fast)]
    assert 100 < crossed[1] < crossed[0]


def test_the_strongest_pitches_get_the_classes():
    drivers = np.zeros((100, 12), np.float32)
    for pitch, strength in {2: 0.5, 7: 0.9, 11: 0.7}.items():
        drivers[:, pitch] = strength
    in_order = vectors_of(drivers=drivers, classes=[10, 20, 30])
    by_power = vectors_of(drivers=drivers, classes=[10, 20, 30], sort_classes_by_power=True)
    # in the order of the pitches, the second kept one is the strongest; sorted, the first is
    assert in_order.classes[in_order.class_weights[50].argmax()] == 20
    assert by_power.classes[by_power.class_weights[50].argmax()] == 10
    assert list(by_power.class_weights[50].argsort()) == [2, 1, 0]


@pytest.mark.parametrize(("frames", "bin_frames"), [(100, 10), (103, 10), (7, 20), (1, 5)])
def test_smoothing_keeps_length_mean_level_and_time(frames, bin_frames):
    ramp = np.arange(frames, dtype=float)[:, None] * np.ones((1, 2))
    smoothed = smooth(ramp, bin_frames)
    assert smoothed.shape == ramp.shape
    inner = slice(bin_frames // 2, frames - bin_frames)
    np.testing.assert_allclose(smoothed[inner], ramp[inner])  # a ramp has no lag
    np.testing.assert_allclose(smooth(np.ones((frames, 2)), bin_frames), 1)


def test_smoothing_with_bins_of_one_changes_nothing():
    rows = np.random.default_rng(0).random((31, 3))
    np.testing.assert_array_equal(smooth(rows, 1), rows)


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others():
    first, again, other = vectors_of(seed=4), vectors_of(seed=4), vectors_of(seed=5)
    np.testing.assert_array_equal(first.noise, again.noise)
    np.testing.assert_array_equal(first.class_weights, again.class_weights)
    assert np.abs(first.noise[0] - other.noise[0]).max() > 0.5


def test_dense_class_vectors_hold_the_weights_at_the_classes():
    weights = np.array([[0.2, 0.9, 0.4], [1.0, 0.0, 0.3]], np.float32)
    vectors = Vectors(np.zeros((2, 128), np.float32), weights, np.array([5, 999, 5]))
    dense = vectors.dense(slice(0, 2), 1000)
    assert dense.shape == (2, 1000)
    assert dense[0, 999] == np.float32(0.9)
    assert dense[0, 5] == np.float32(0.4)  # named twice: the larger counts
    assert dense[1, 5] == 1
    assert np.count_nonzero(dense) == 3


def test_saved_vectors_come_back_as_they_were(tmp_path):
    vectors = vectors_of()
    save_vectors(vectors, tmp_path / "vectors.npz")
    back = load_vectors(tmp_path / "vectors.npz", FRAMES)
    for name in ("noise", "class_weights", "classes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(vectors, name))
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


def test_vectors_that_cannot_be_used_are_a_clear_error(tmp_path):
    path = tmp_path / "vectors.npz"
    with pytest.raises(PreviousRunError, match="no earlier run"):
        load_vectors(path, FRAMES)
    save_vectors(vectors_of(), path)
    with pytest.raises(PreviousRunError, match="does not fit"):
        load_vectors(path, FRAMES + 1)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PreviousRunError, match="damaged"):
        load_vectors(path, FRAMES)
