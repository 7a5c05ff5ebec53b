"""BigGAN-deep as a GPU computes it. Without one, the same steps are taken on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepviz.errors import FramesError
from deepviz.frames import render_frames
from deepviz.generators import biggan_cuda, biggan_openvino
from deepviz.generators.biggan import BigGAN, pick_runtime
from deepviz.generators.biggan_cuda import CudaRuntime, choose_precision, fitting_batch, psnr
from deepviz.generators.biggan_folded import Colours, fold
from deepviz.generators.biggan_torch import EagerRuntime, forward, in_precision
from deepviz.generators.checkpoint import read_checkpoint
from deepviz.vectors import Vectors
from tests.checkpoints import make_checkpoint

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=on_a_gpu)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    make_checkpoint(folder, 128)
    return fold(read_checkpoint(folder), 1.0)


@pytest.fixture(params=DEVICES)
def runtime(request, network):
    return CudaRuntime(network, request.param, "float32")


def some_conditions(network, count):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, 128)).clip(-2, 2)
    embedded = network.embedding.numpy()[rng.integers(1000, size=count)]
    return np.hstack([noise, embedded]).astype(np.float32)


def split(conditions, sizes):
    return np.split(conditions, np.cumsum(sizes)[:-1])


def test_it_paints_what_the_cpu_paints(network, runtime):
    conditions = some_conditions(network, 3)
    expected = EagerRuntime(network, part=1).paint(conditions)
    painted = runtime.paint(conditions)
    assert painted.dtype == np.float32
    assert np.abs(painted - expected).max() < 1e-4


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1, 2, 4], [5, 1, 1]])
def test_batches_of_any_size_are_painted_in_order(network, runtime, sizes):
    conditions = some_conditions(network, 7)
    exact = (runtime.paint(conditions).astype(np.float64) + 1) * 127.5
    batches = list(runtime.render(split(conditions, sizes)))
    assert [len(batch) for batch in batches] == sizes
    frames = np.concatenate(batches)
    assert frames.dtype == np.uint8
    assert np.abs(frames - exact).max() <= 0.5 + 0.02


def test_a_last_batch_of_fewer_frames_paints_the_same_frames(network, runtime):
    conditions = some_conditions(network, 8)
    whole = np.concatenate(list(runtime.render(split(conditions, [4, 4]))))
    for last in (1, 2, 3):
        part = runtime.render(split(conditions[: 4 + last], [4, last]))
        np.testing.assert_array_equal(np.concatenate(list(part)), whole[: 4 + last])


@pytest.mark.parametrize("enough_for", [0, 2])
def test_after_running_out_of_memory_it_goes_on_with_smaller_batches(
    network, runtime, enough_for, monkeypatch, caplog
):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((11, 128)).astype(np.float32)
    vectors = Vectors(noise, rng.random((11, 2)).astype(np.float32), np.array([3, 7]))
    generator = BigGAN(128, network.embedding.numpy(), runtime)
    expected = list(render_frames(vectors, generator, range(11), batch_size=2))

    calls = []

    def forward_with_little_memory(condition):
        calls.append(len(condition))
        if len(condition) > 2 and len(calls) > enough_for:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return type(runtime)._forward(runtime, condition)

    monkeypatch.setattr(runtime, "_forward", forward_with_little_memory)
    frames = list(render_frames(vectors, generator, range(11), batch_size=5))
    assert "smaller batches, of 2" in caplog.text
    assert len(frames) == 11
    assert np.abs(np.subtract(frames, expected, dtype=int)).max() <= 1  # batches of another size


def test_a_network_that_does_not_fit_the_gpu_is_an_error_that_says_what_does(network, monkeypatch):
    def place(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(biggan_cuda, "place", place)
    with pytest.raises(FramesError, match="--device cpu"):
        pick_runtime(network, "cpu:0")


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_ends_before_the_colours(network, precision):
    half = in_precision(network, precision)
    assert half.blocks[0].kernels[0].dtype == half.attention.g.dtype == getattr(torch, precision)
    assert half.norms[0].dtype == half.colours.rows.dtype == torch.float32
    conditions = torch.from_numpy(some_conditions(network, 2))
    pictures = forward(half, conditions)
    assert pictures.dtype == torch.float32
    assert 45 < psnr(pictures, forward(network, conditions)) < 90


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_precision_that_openvino_lacks_is_computed_by_torch(
    network, precision, monkeypatch, caplog
):
    monkeypatch.setitem(biggan_openvino.PRECISIONS, precision, "none of this processor's")
    runtime = pick_runtime(network, "cpu", precision=precision)
    assert isinstance(runtime, EagerRuntime)
    assert precision in runtime.device
    assert f"no {precision}" in caplog.text
    conditions = some_conditions(network, 1)
    expected = torch.from_numpy(pick_runtime(network, "cpu").paint(conditions))
    assert psnr(torch.from_numpy(runtime.paint(conditions)), expected) > 45


def test_half_precision_is_taken_where_it_paints_the_same(network, monkeypatch, caplog):
    caplog.set_level("INFO", logger="deepviz")
    assert choose_precision(network) == "float16"
    assert not caplog.text
    monkeypatch.setattr(biggan_cuda, "HALF_PSNR", 100)
    assert choose_precision(network) == "float32"
    assert "precision float32: float16 is" in caplog.text


def test_where_float16_overflows_bfloat16_is_taken(network, caplog):
    caplog.set_level("INFO", logger="deepviz")
    weight, bias = network.first
    colours = network.colours
    loud = replace(
        network,
        first=(weight * 1e6, bias * 1e6),
        colours=Colours(colours.rows / 1e6, colours.columns, colours.bias),
    )
    assert choose_precision(loud) == "bfloat16"
    assert "precision bfloat16: float16 is" in caplog.text


def test_a_batch_is_as_large_as_fits_the_memory_with_some_to_spare():
    assert fitting_batch(free=0, each=1) == 1
    assert fitting_batch(free=8e9, each=0.5e9) == 8
    assert fitting_batch(free=24e9, each=0.5e9) == 24
    assert fitting_batch(free=140e9, each=0.1e9) == 64


@on_a_gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_recorded_kernels_paint_what_kernels_called_one_by_one_paint(network, precision):
    runtime = CudaRuntime(network, "cuda", precision)
    conditions = some_conditions(network, 4)
    painted = runtime.paint(conditions)
    assert runtime._recorded._graph is not None
    with torch.inference_mode():
        pictures, _ = runtime._forward(torch.from_numpy(conditions).cuda())
    np.testing.assert_array_equal(painted, pictures.cpu().numpy())


@on_a_gpu
def test_a_gpu_paints_with_the_precision_and_the_batch_that_suit_it(network):
    runtime = CudaRuntime(network, "cuda")
    assert torch.cuda.get_device_name() in runtime.device
    assert runtime.batch_size in biggan_cuda.BATCH_SIZES
    conditions = some_conditions(network, 9)
    painted, expected = (r.paint(conditions) for r in (runtime, EagerRuntime(network, part=3)))
    assert psnr(torch.from_numpy(painted), torch.from_numpy(expected)) >= biggan_cuda.HALF_PSNR


@on_a_gpu
def test_buffers_of_another_batch_size_are_freed(network):
    runtime = CudaRuntime(network, "cuda", "float32", batch_size=8)
    conditions = some_conditions(network, 32)
    reserved = []
    for _ in range(3):
        for size in (32, 4):
            list(runtime.render(np.split(conditions, 32 // size)))
            torch.cuda.empty_cache()
            reserved.append(torch.cuda.memory_reserved())
    assert reserved[1] < reserved[0]
    assert reserved[-1] <= 1.1 * reserved[1]
