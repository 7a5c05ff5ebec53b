"""What a viewer would check of the built-in generator's pictures."""

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from deepviz.generators import NOISE_DIM, NUM_CLASSES
from deepviz.generators.cppn import load_cppn
from deepviz.generators.cppn_scene import Scene, compose
from deepviz.hardware import has_graphics_driver

TWELVE = [3, 96, 207, 281, 340, 417, 514, 621, 701, 829, 933, 985]


def draw_noise(count, truncation=1.0, seed=0):
    noise = np.random.default_rng(seed).standard_normal((count, NOISE_DIM))
    return (truncation * np.clip(noise, -2, 2)).astype(np.float32)


def class_vectors(*rows):
    """Dense class vectors from rows of {class: weight}."""
    dense = np.zeros((len(rows), NUM_CLASSES), np.float32)
    for vector, row in zip(dense, rows, strict=True):
        vector[list(row)] = list(row.values())
    return dense


def draw_classes(count, depth=1.0, seed=0):
    """Twelve classes a row, weighted as a song weights them: the weakest 0, the strongest 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        weights = rng.random(12)
        weights = depth * (weights - weights.min()) / np.ptp(weights)
        rows.append(dict(zip(rng.choice(NUM_CLASSES, 12, replace=False), weights, strict=True)))
    return class_vectors(*rows)


def there_is_a_gpu():
    if not has_graphics_driver():
        return False
    import torch  # as late as that, for the processes that a test starts

    return torch.cuda.is_available()


on_a_gpu = pytest.mark.skipif(not there_is_a_gpu(), reason="there is no GPU")


def paint(noise, classes, resolution=64, device="cpu"):
    return np.concatenate(list(load_cppn(resolution, device).render([(noise, classes)])))


def difference(a, b):
    """Mean absolute difference of pictures, in grey levels."""
    return np.abs(a.astype(np.float32) - b).mean(axis=(-3, -2, -1))


@pytest.mark.parametrize("resolution", [64, 66, 130, 514])
def test_any_even_size(resolution):
    generator = load_cppn(resolution)
    frames = list(generator.render([(draw_noise(n), draw_classes(n)) for n in (2, 1)]))
    assert [f.shape for f in frames] == [(n, resolution, resolution, 3) for n in (2, 1)]
    assert all(f.dtype == np.uint8 and f.flags.writeable for f in frames)
    assert generator.resolution == resolution
    assert (generator.noise_dim, generator.num_classes) == (NOISE_DIM, NUM_CLASSES)
    assert "cpu" in generator.device


DEVICES = ["cpu", "cpu:0", pytest.param("cuda", marks=on_a_gpu)]  # the kernel, and torch


@pytest.mark.parametrize("device", DEVICES)
def test_a_frame_depends_on_its_own_row_alone(device):
    noise, classes = draw_noise(5), draw_classes(5)
    together = paint(noise, classes, device=device)
    alone = [paint(noise[i : i + 1], classes[i : i + 1], device=device)[0] for i in range(5)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], paint(noise[::-1], classes[::-1], device=device))


def test_frames_stay_as_they_were_when_more_are_painted():
    stream = load_cppn(64).render((draw_noise(2, seed=s), draw_classes(2)) for s in (1, 2))
    first = next(stream)
    kept = first.copy()
    assert (next(stream) != first).any()
    np.testing.assert_array_equal(first, kept)


def test_the_same_vectors_give_the_same_frames_in_another_process():
    code = (
        "import numpy as np, zlib; from tests.test_cppn import *;"
        "print(zlib.crc32(paint(draw_noise(2), draw_classes(2), 130).tobytes()))"
    )
    runs = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
    assert len(runs) == 1


def test_nearby_noise_gives_nearby_pictures():
    noise, classes = draw_noise(24), draw_classes(24)
    way = np.sign(draw_noise(24, seed=1))
    frames = paint(noise, classes, 128)
    tiny, small, loud = (
        difference(frames, paint(noise + np.float32(step) * way, classes, 128))
        for step in (0.005, 0.05, 0.5)
    )
    assert tiny.max() < 4
    assert small.max() < 25
    assert small.mean() < 13
    assert small.min() > 1  # it moves
    cut = difference(frames, paint(draw_noise(24, seed=2), classes, 128))
    # Even the loudest step keeps more of the picture than a cut to another noise does.
    assert loud.mean() < 0.9 * cut.mean()


def test_nearby_class_weights_give_nearby_pictures():
    noise, classes = draw_noise(24), draw_classes(24)
    moved = classes * np.random.default_rng(1).uniform(0.99, 1, classes.shape).astype(np.float32)
    assert difference(paint(noise, classes), paint(noise, moved)).max() < 12


def test_distinct_classes_differ_in_palette_and_form():
    noise = np.repeat(draw_noise(1), 12, axis=0)
    frames = paint(noise, class_vectors(*({c: 1} for c in TWELVE)), 128)
    palettes = [np.histogramdd(f.reshape(-1, 3), 4, [(0, 256)] * 3)[0] / 128**2 for f in frames]
    for i, j in combinations(range(12), 2):
        assert difference(frames[i], frames[j]) > 30
        assert np.minimum(palettes[i], palettes[j]).sum() < 0.8  # of the pixels share colours
        greys = [f.mean(axis=2) - f.mean() for f in (frames[i], frames[j])]
        assert abs(np.corrcoef(greys[0].ravel(), greys[1].ravel())[0, 1]) < 0.6


VECTORS = {
    "songs": (draw_noise(40), draw_classes(40)),
    "single classes": (draw_noise(40, seed=1), np.eye(NUM_CLASSES, dtype=np.float32)[::25]),
    "least depth": (draw_noise(10, seed=2), draw_classes(10, depth=0.01)),
    "least depth, one class": (draw_noise(12), class_vectors(*({c: 0.01} for c in TWELVE))),
    "least truncation": (draw_noise(10, truncation=0.1), draw_classes(10, seed=1)),
    "extreme noise": (2 * np.sign(draw_noise(10, seed=3)), draw_classes(10, seed=2)),
    "equal extremes": (np.full((2, NOISE_DIM), 2, np.float32) * [[1], [-1]], draw_classes(2)),
    "no noise": (np.zeros((10, NOISE_DIM), np.float32), draw_classes(10, seed=3)),
    "no class": (draw_noise(4), np.zeros((4, NUM_CLASSES), np.float32)),
    "every class": (draw_noise(4), np.ones((4, NUM_CLASSES), np.float32)),
    "nothing": (np.zeros((1, NOISE_DIM), np.float32), np.zeros((1, NUM_CLASSES), np.float32)),
}


@pytest.mark.parametrize("vectors", VECTORS.values(), ids=VECTORS.keys())
def test_a_frame_is_never_flat_black_white_or_grey(vectors):
    frames = paint(*vectors).astype(np.float32)
    brightness = frames.mean(axis=(1, 2, 3))
    contrast = frames.mean(axis=3).std(axis=(1, 2))
    colourfulness = np.ptp(frames, axis=3).mean(axis=(1, 2))
    detail = np.abs(np.diff(frames, axis=2)).mean(axis=(1, 2, 3))
    assert brightness.min() > 40
    assert brightness.max() < 200
    assert contrast.min() > 15
    assert colourfulness.min() > 30
    assert detail.min() > 2


def test_a_larger_frame_is_the_same_picture():
    noise, classes = draw_noise(6), draw_classes(6)
    small = paint(noise, classes, 128)
    for resolution in (256, 512, 1024):
        large = paint(noise, classes, resolution).astype(np.float32)
        side = resolution // 128
        reduced = large.reshape(6, 128, side, 128, side, 3).mean(axis=(2, 4))
        assert difference(small, reduced).max() < 8


@pytest.mark.parametrize("device", DEVICES[1:])
@pytest.mark.parametrize(("resolution", "count"), [(64, 19), (130, 3), (514, 3)])
def test_torch_paints_what_the_kernel_paints(resolution, count, device):
    # many frames in a tile, one, and a part of one; four points a pixel, and one
    noise, classes = draw_noise(count), draw_classes(count)
    kernel = paint(noise, classes, resolution).astype(int)
    torch = paint(noise, classes, resolution, device)
    assert np.abs(kernel - torch).mean() < 0.1
    assert (np.abs(kernel - torch) > 2).mean() < 1e-3


def test_torch_paints_batches_of_any_size_in_order():
    noise, classes = draw_noise(6), draw_classes(6)
    batches = [(noise[i:j], classes[i:j]) for i, j in ((0, 1), (1, 4), (4, 6))]
    frames = list(load_cppn(64, "cpu:0").render(batches))
    assert [len(batch) for batch in frames] == [1, 3, 2]
    expected = paint(noise, classes, device="cpu:0")
    np.testing.assert_array_equal(np.concatenate(frames), expected)


def test_a_gpu_is_handed_fewer_of_larger_frames():
    sizes = [load_cppn(resolution, "cpu:0").batch_size for resolution in (256, 2048, 4096)]
    assert sizes == [30, 10, 2]


def test_a_scene_holds_only_numbers():
    for noise, classes in VECTORS.values():
        for row in zip(noise, classes, strict=True):
            scene = compose(*row)
            assert all(np.isfinite(value).all() for value in scene)
            assert all(value.dtype == np.float32 for value in scene)


def test_the_kernel_has_the_shape_of_the_scene():
    from deepviz.generators import cppn_kernel as kernel

    scene: Scene = compose(np.zeros(NOISE_DIM), np.zeros(NUM_CLASSES))
    assert scene.weights.shape == (kernel.LAYERS, kernel.CHANNELS, kernel.CHANNELS)
    assert scene.readout.shape == (kernel.LAYERS, kernel.OUTPUTS, kernel.CHANNELS)


def test_loading_is_light():
    code = (
        "import sys, deepviz.generators.cppn;"
        "assert not {'torch', 'numba', 'librosa'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
