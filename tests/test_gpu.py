"""Frames stream from a device while it computes. Without a GPU the same code runs on the CPU."""

import numpy as np
import pytest
import torch

from deepviz.frames import run_ahead
from deepviz.generators import gpu
from deepviz.generators.gpu import Recorded, stream_frames

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=on_a_gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


def stream_numbers(sizes, device):
    """Batches of 2 by 2 frames, each filled with its number, and the list of what was launched."""
    launched = []

    def launch(size):
        first = sum(launched)
        launched.append(size)
        numbers = torch.arange(first, first + size, dtype=torch.uint8, device=device)
        return numbers[:, None, None, None].expand(size, 2, 2, 3).clone()

    return stream_frames(sizes, launch, device), launched


@pytest.mark.parametrize("sizes", [[], [1], [4, 4, 4, 4, 3], [1, 3, 2, 7, 1], [5, 1, 5, 1]])
def test_frames_of_any_batches_arrive_in_order_and_stay(sizes, device):
    batches = list(stream_numbers(sizes, device)[0])
    assert [len(batch) for batch in batches] == sizes
    assert all(batch.flags.writeable and batch.flags.owndata for batch in batches)
    frames = np.concatenate([*batches, np.empty((0, 2, 2, 3), np.uint8)])
    expected = np.broadcast_to(np.arange(sum(sizes))[:, None, None, None], frames.shape)
    np.testing.assert_array_equal(frames, expected)


def test_one_batch_is_computed_while_another_is_used(device):
    stream, launched = stream_numbers([3, 3, 3, 3], device)
    for taken in range(1, 5):
        next(stream)
        assert len(launched) == min(taken + 1, 4)


def test_frames_may_be_taken_in_another_thread(device):
    stream, _ = stream_numbers([2] * 20, device)
    frames = list(run_ahead(frame for batch in stream for frame in batch))
    assert [int(frame[0, 0, 0]) for frame in frames] == list(range(40))


def test_out_of_memory_surfaces_as_itself(device):
    def launch(number):
        if number == 3:
            raise torch.OutOfMemoryError("for test")
        return torch.full((1, 2, 2, 3), number, dtype=torch.uint8, device=device)

    stream = stream_frames(range(9), launch, device)
    assert [int(next(stream)[0, 0, 0, 0]) for _ in range(2)] == [0, 1]
    with pytest.raises(torch.OutOfMemoryError, match="for test"):
        next(stream)


@torch.inference_mode()
def test_a_recorded_function_takes_fewer_rows_than_it_was_recorded_with(device):
    double = Recorded(lambda x: (2 * x, x + 1), torch.zeros(4, device=device))
    assert double(torch.arange(4.0))[0].tolist() == [0, 2, 4, 6]
    doubled, more = double(torch.tensor([5.0, 7.0]))
    assert doubled[:2].tolist() == [10, 14]
    assert more[:2].tolist() == [6, 8]


def test_global_switches_of_torch_are_as_they_were():
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    with gpu.exact_arithmetic():
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


@on_a_gpu
@torch.inference_mode()
def test_what_cannot_be_recorded_is_called_each_time(caplog):
    caplog.set_level("INFO", logger="deepviz")

    def waits_for_the_gpu(x):
        return x * float(x.sum())  # a recording cannot know this number

    function = Recorded(waits_for_the_gpu, torch.zeros(2, device="cuda"))
    assert function(torch.tensor([1.0, 2.0])).tolist() == [3, 6]
    assert function(torch.tensor([2.0, 2.0])).tolist() == [8, 8]
    assert "without CUDA graphs" in caplog.text
