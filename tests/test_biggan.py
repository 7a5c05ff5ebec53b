"""BigGAN-deep paints the pictures of pytorch-pretrained-biggan, on either of a CPU's runtimes."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_pretrained_biggan import BigGAN as PackageBigGAN
from pytorch_pretrained_biggan.model import BigGANBatchNorm
from safetensors.torch import save_file

from deepviz.errors import WeightsError
from deepviz.generators.biggan import BigGAN, load_biggan, pick_runtime
from deepviz.generators.biggan_folded import at_truncation, fold, upsampling_kernel
from deepviz.generators.biggan_openvino import OpenVinoRuntime
from deepviz.generators.biggan_runtime import to_uint8
from deepviz.generators.biggan_torch import EagerRuntime
from deepviz.generators.checkpoint import read_checkpoint
from tests.checkpoints import make_checkpoint

TOLERANCE = 1e-4  # in [-1, 1]; a step of the 8-bit colours is 80 times as large
RUNTIMES = {
    "openvino": lambda network: OpenVinoRuntime(network, part=2),
    "torch": lambda network: EagerRuntime(network, part=2),
}
STORED_EXACTLY = (0.1, 0.4, 1.0)  # the package divides these by its step without a remainder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function: resolution -> folder of a checkpoint, and the package's network for it."""
    made: dict[int, tuple[Path, PackageBigGAN]] = {}

    def get(resolution: int) -> tuple[Path, PackageBigGAN]:
        if resolution not in made:
            folder = tmp_path_factory.mktemp("weights") / f"biggan-deep-{resolution}"
            made[resolution] = (folder, make_checkpoint(folder, resolution))
        return made[resolution]

    return get


def ours(folder: Path, truncation: float, runtime: str) -> BigGAN:
    network = fold(read_checkpoint(folder), truncation)
    return BigGAN(network.side, network.embedding.numpy(), RUNTIMES[runtime](network))


def some_input(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and vectors of up to four classes as a song would give them."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, 128)).clip(-2, 2).astype(np.float32)
    classes = np.zeros((count, 1000), np.float32)
    for row in classes:
        row[rng.integers(1000, size=4)] = rng.random(4)
    return noise, classes


@torch.no_grad()
def painted_by_package(
    model: PackageBigGAN, noise: np.ndarray, classes: np.ndarray, truncation: float
) -> np.ndarray:
    pictures = model(torch.from_numpy(noise), torch.from_numpy(classes), truncation)
    return pictures.permute(0, 2, 3, 1).numpy()


def with_statistics_between(model: PackageBigGAN, truncation: float) -> PackageBigGAN:
    """A copy of the package's network that has, at any truncation, the statistics of this one."""
    model = copy.deepcopy(model)
    for norm in model.modules():
        if isinstance(norm, BigGANBatchNorm):
            for table in (norm.running_means, norm.running_vars):
                columns = [np.interp(truncation * 50, np.arange(51), row) for row in table.T]
                table.copy_(torch.tensor(np.array(columns)).expand_as(table))
    return model


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("truncation", STORED_EXACTLY)
@pytest.mark.parametrize(("resolution", "count"), [(128, 7), (256, 3), (512, 1)])
def test_pictures_are_those_of_the_package(checkpoint, resolution, count, truncation, runtime):
    folder, model = checkpoint(resolution)
    noise, classes = some_input(count)
    expected = painted_by_package(model, noise, classes, truncation)
    got = ours(folder, truncation, runtime).paint(noise, classes)
    assert got.shape == (count, resolution, resolution, 3)
    assert got.dtype == np.float32
    assert expected.std((1, 2)).min() > 0.02, "the checkpoint paints flat pictures"
    assert np.abs(expected).mean() < 0.9, "the checkpoint paints clipped pictures"
    assert np.abs(got - expected).max() < TOLERANCE


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("resolution", [256, 512])
def test_any_number_of_pictures_can_be_painted(checkpoint, resolution, count):
    folder, model = checkpoint(resolution)
    noise, classes = some_input(count, seed=count)
    expected = painted_by_package(model, noise, classes, 0.4)
    assert np.abs(ours(folder, 0.4, "openvino").paint(noise, classes) - expected).max() < TOLERANCE


@pytest.mark.parametrize("truncation", [0.3, 0.7, 0.58, 0.375, 0.991])
@pytest.mark.parametrize("resolution", [128, 512])
def test_statistics_of_the_nearer_truncation_weigh_more(checkpoint, resolution, truncation):
    folder, model = checkpoint(resolution)
    noise, classes = some_input(2)
    mended = with_statistics_between(model, truncation)
    expected = painted_by_package(mended, noise, classes, 1.0)
    got = ours(folder, truncation, "torch").paint(noise, classes)
    assert np.abs(got - expected).max() < TOLERANCE
    other = painted_by_package(model, noise, classes, 0.4)
    assert np.abs(expected - other).max() > 0.05, "the checkpoint's statistics are all alike"


def test_every_stored_truncation_takes_its_own_row():
    table = torch.arange(51.0)[:, None]
    for percent in range(2, 101, 2):
        assert at_truncation(table, percent / 100).item() == percent // 2


def test_attention_matters_in_the_checkpoint(checkpoint):
    _, model = checkpoint(128)
    without = copy.deepcopy(model)
    without.generator.layers[8].gamma.data.zero_()
    noise, classes = some_input(2)
    pictures = [painted_by_package(m, noise, classes, 1.0) for m in (model, without)]
    assert np.abs(pictures[0] - pictures[1]).max() > 0.05


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("resolution", [128, 512])
def test_a_frame_does_not_depend_on_its_neighbours(checkpoint, resolution, runtime):
    network = ours(checkpoint(resolution)[0], 1.0, runtime)
    noise, classes = some_input(5)
    together = network.paint(noise, classes)
    for i in range(5):
        alone = network.paint(noise[i : i + 1], classes[i : i + 1])
        assert np.array_equal(alone[0], together[i])
    assert np.array_equal(network.paint(noise[::-1], classes[::-1])[::-1], together)


def test_frames_are_rounded_from_a_fixed_range(checkpoint):
    network = ours(checkpoint(128)[0], 1.0, "openvino")
    noise, classes = some_input(3)
    frames = np.concatenate(list(network.render([(noise, classes)])))
    assert frames.dtype == np.uint8
    assert frames.flags.writeable
    exact = (network.paint(noise, classes).astype(np.float64) + 1) * 127.5
    assert np.abs(frames - exact).max() <= 0.5 + 1e-4


def test_black_and_white_are_the_ends_of_the_range():
    values = torch.tensor([-1.0, -0.999, 0.0, 0.5, 1.0, 1.1])
    assert to_uint8(values).tolist() == [0, 0, 128, 191, 255, 255]


def test_frames_are_painted_as_they_are_asked_for_and_kept(checkpoint):
    network = ours(checkpoint(128)[0], 1.0, "openvino")
    asked = []

    def batches():
        for size in (3, 1, 2):
            asked.append(size)
            yield some_input(size, seed=size)

    stream = network.render(batches())
    first = next(stream)
    assert asked == [3]
    before = first.copy()
    rest = list(stream)
    assert len(first) + sum(len(part) for part in rest) == 6
    assert np.array_equal(first, before)


def test_safetensors_paint_the_same(checkpoint, tmp_path):
    folder, _ = checkpoint(128)
    shutil.copy(folder / "config.json", tmp_path)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(tensors, tmp_path / "model.safetensors")
    noise, classes = some_input(2)
    expected = load_biggan(128, 1.0, weights=str(folder)).paint(noise, classes)
    assert np.array_equal(load_biggan(128, 1.0, str(tmp_path)).paint(noise, classes), expected)


def test_torch_paints_where_openvino_is_missing(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "deepviz.generators.biggan_openvino")
    network = fold(read_checkpoint(checkpoint(128)[0]), 1.0)
    assert isinstance(pick_runtime(network, "cpu"), EagerRuntime)


def test_weights_of_another_size_say_which_resolution_to_give(checkpoint):
    with pytest.raises(WeightsError, match="--resolution 128"):
        load_biggan(512, 1.0, weights=str(checkpoint(128)[0]))


def test_one_transposed_convolution_upsamples_and_convolves():
    small = torch.randn(2, 3, 5, 6)
    kernel = torch.randn(4, 3, 3, 3)
    expected = F.conv2d(F.interpolate(small, scale_factor=2), kernel, padding=1)
    got = F.conv_transpose2d(small, upsampling_kernel(kernel), stride=2, padding=1)
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_out_of_memory_on_a_cpu_goes_on_with_one_picture_at_a_time(checkpoint, runtime, caplog):
    network = ours(checkpoint(128)[0], 1.0, runtime)
    noise, classes = some_input(5)
    expected = network.paint(noise, classes)
    compute, sizes = network._runtime._compute, []

    def scarce(condition):
        sizes.append(len(condition))
        if len(sizes) > 1 and len(condition) > 1:
            raise RuntimeError("std::bad_alloc")
        return compute(condition)

    network._runtime._compute = scarce
    frames = np.concatenate(list(network.render([(noise, classes)])))
    assert sizes == [2, 2, 1, 1, 1]
    assert np.abs(frames - (expected + 1) * 127.5).max() < 0.51
    assert caplog.text.count("out of memory") == 1
