import logging
import threading

import numpy as np
import pytest

from deepviz.errors import FramesError
from deepviz.frames import render_frames, run_ahead
from deepviz.vectors import Vectors


class Counting:
    """A generator that paints the first unit of the noise, and runs out of memory over a limit."""

    name, device, resolution, noise_dim, num_classes = "counting", "cpu", 2, 128, 1000
    batch_size, fingerprint = 30, "counting"

    def __init__(self, limit: int = 1000, error: type[Exception] = MemoryError) -> None:
        self.limit, self.error = limit, error
        self.painted = 0

    def render(self, batches):
        for index, (noise, class_vectors) in enumerate(batches):
            assert noise.dtype == class_vectors.dtype == np.float32
            if len(noise) > self.limit and index > 1:
                raise self.error("can't allocate memory")
            self.painted += len(noise)
            yield np.broadcast_to(noise[:, :1, None, None], (len(noise), 2, 2, 3)).astype(np.uint8)


def numbered_vectors(frames: int) -> Vectors:
    noise = np.zeros((frames, 128), np.float32)
    noise[:, 0] = np.arange(frames)
    return Vectors(noise, np.ones((frames, 1), np.float32), np.array([7]))


def test_frames_come_one_by_one_in_the_order_wanted():
    numbers = [0, 1, 2, 5, 9, 3]
    stream = render_frames(numbered_vectors(10), Counting(), numbers, batch_size=4)
    assert [int(frame[0, 0, 0]) for frame in stream] == numbers


def test_no_more_than_a_batch_is_painted_ahead_of_the_encoder():
    generator = Counting()
    stream = render_frames(numbered_vectors(250), generator, range(250), batch_size=10)
    for taken in range(1, 101):
        next(stream)
        assert generator.painted <= taken + 9


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch_and_goes_on_where_it_was(error, caplog):
    caplog.set_level(logging.WARNING)
    generator = Counting(limit=8, error=error)
    stream = render_frames(numbered_vectors(200), generator, range(200), batch_size=30)
    assert [int(frame[0, 0, 0]) for frame in stream] == list(range(200))
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: going on with smaller batches, of 15"
    ]


def test_a_frame_that_does_not_fit_alone_is_an_error_that_says_what_does():
    generator = Counting(limit=0)
    with pytest.raises(FramesError, match="--resolution"):
        list(render_frames(numbered_vectors(9), generator, range(9), batch_size=2))


def test_other_faults_of_a_generator_are_not_taken_for_memory():
    class Broken(Counting):
        def render(self, batches):
            raise RuntimeError("some other fault")
            yield

    with pytest.raises(RuntimeError, match="some other fault"):
        list(render_frames(numbered_vectors(9), Broken(), range(9), batch_size=2))


def test_frames_run_ahead_in_order_and_within_their_budget():
    made = []

    def source():
        for number in range(50):
            made.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    stream = run_ahead(source(), budget=4 * 12)
    for number in range(50):
        assert int(next(stream)[0, 0, 0]) == number
        assert len(made) <= number + 1 + 4 + 1  # taken, waiting, in the hand of the thread
    assert next(stream, None) is None


def test_a_fault_ahead_surfaces_after_the_frames_before_it():
    def source():
        for _ in range(3):
            yield np.zeros((2, 2, 3), np.uint8)
        raise FramesError("ahead")

    stream = run_ahead(source())
    for _ in range(3):
        next(stream)
    with pytest.raises(FramesError, match="ahead"):
        next(stream)


def test_when_the_encoder_stops_so_does_the_thread_ahead():
    def source():
        while True:
            yield np.zeros((2, 2, 3), np.uint8)

    before = threading.active_count()
    stream = run_ahead(source(), budget=100)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_run_waits_for_a_thread_that_the_one_before_left(monkeypatch):
    monkeypatch.setattr("deepviz.frames.STOP_PATIENCE", 0)
    go_on, order = threading.Event(), []

    def slow():
        yield np.zeros((2, 2, 3), np.uint8)
        go_on.wait(30)
        order.append("old")
        yield np.zeros((2, 2, 3), np.uint8)

    def new():
        order.append("new")
        yield np.zeros((2, 2, 3), np.uint8)

    left = run_ahead(slow())
    next(left)
    left.close()
    threading.Timer(0.1, go_on.set).start()
    assert len(list(run_ahead(new()))) == 1
    assert order == ["old", "new"]


def test_an_empty_stream_runs_ahead_to_nothing():
    assert list(run_ahead([])) == []
