"""What generators share on a GPU: copies that overlap with computing, and recorded kernels.

All of it takes the device "cpu" too, where streams and events do nothing and nothing is recorded:
the same code runs without a GPU, one step after the other.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

SLOTS = 2  # batches under way: one is computed while the other is copied and taken
WARM_UPS = 2  # runs before a recording: libraries choose kernels in the first, and settle

T = TypeVar("T")

log = logging.getLogger(__name__)


def describe_device(device: torch.device, *words: str) -> str:
    """A device in words, such as "cuda (NVIDIA L4)", with what else there is to say of it."""
    if device.type == "cuda":
        words = (torch.cuda.get_device_name(device), *words)
    return f"{device} ({', '.join(words)})" if words else str(device)


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the current one, which torch remembers for each thread apart."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """float32 is float32, not TF32, and cuDNN takes the same kernels in each run: those that it
    times to be fastest may be others the next time, and round a frame otherwise.

    Both are global in torch: other code finds them as it left them.
    """
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, allow_tf32=False, fp32_precision="ieee"
    ):
        yield


def pinned(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor from which a copy to ``device`` need not be waited for.

    Nobody may write to the array until it is copied, unless the device is a GPU.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


class Recorded:
    """A function of tensors of fixed shapes whose kernels a GPU is handed all at once.

    They are recorded as a CUDA graph when this is made, and replayed by each call, so that the GPU
    need not wait for Python, which takes longer to name a small kernel than the GPU to run it.
    Where that does not work, the function is called each time.

    Parameters
    ----------
    function : callable
        Takes as many tensors as there are ``inputs``, and returns a tensor or several. May not
        wait for the GPU.
    inputs : Tensor
        One for each, on the device; kept, and overwritten by each call.
    """

    def __init__(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        self._function = function
        self._inputs = inputs
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: Any = None
        if inputs[0].is_cuda:
            self._record()

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's result, which on a GPU the next call overwrites.

        An input may have fewer rows than its kind: what earlier calls left stands in the others.
        """
        for ours, given in zip(self._inputs, inputs, strict=True):
            ours[: len(given)].copy_(given, non_blocking=True)
        if self._graph is None:
            return self._function(*self._inputs)
        self._graph.replay()
        return self._results

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Both on one stream: libraries keep a workspace for each, and a recording may not make one.
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._function(*self._inputs)
            graph = torch.cuda.CUDAGraph()
            try:
                # What other threads do on a GPU meanwhile is no fault of this one.
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    results = self._function(*self._inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _say_once(f"without CUDA graphs, which fail here: {error}")
            else:
                self._graph, self._results = graph, results
        torch.cuda.current_stream().wait_stream(stream)


@cache
def _say_once(message: str) -> None:
    log.info("%s", message)


def stream_frames(
    batches: Iterable[T], launch: Callable[[T], Tensor], device: torch.device
) -> Iterator[np.ndarray]:
    """Compute batches on a device, each while the one before it is copied to the host and used.

    Parameters
    ----------
    batches : iterable
        What ``launch`` takes, one after the other.
    launch : callable
        Starts to compute the frames of a batch, uint8, on the device's current stream. Nothing
        may write to them later.

    Yields
    ------
    np.ndarray, uint8
        The frames of each batch, in order; they belong to the caller.
    """
    with on_device(device):
        copies = torch.get_device_module(device).Stream()
    slots = [_Slot(device, copies) for _ in range(SLOTS)]
    under_way: deque[_Slot] = deque()
    for number, batch in enumerate(batches):
        slot = slots[number % SLOTS]
        # Not around the yield: the caller may go on in another thread, or in another mode.
        with on_device(device), torch.inference_mode():
            slot.send(launch(batch))
        under_way.append(slot)
        if len(under_way) == SLOTS:
            yield under_way.popleft().receive()
    while under_way:
        yield under_way.popleft().receive()


class _Slot:
    """Host memory that a GPU can write to by itself, and the copy to it that is under way."""

    def __init__(self, device: torch.device, copies: Any) -> None:
        self._device = device
        self._copies = copies  # the stream for all copies
        self._copied = torch.get_device_module(device).Event()
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._frames: tuple[Tensor, Tensor] | None = None  # on the device, and on the host

    def send(self, frames: Tensor) -> None:
        """Copy frames once the device's current stream has computed them."""
        module = torch.get_device_module(self._device)
        if len(self._memory) < frames.numel():
            on_gpu = self._device.type == "cuda"
            self._memory = torch.empty(frames.numel(), dtype=torch.uint8, pin_memory=on_gpu)
        target = self._memory[: frames.numel()].view(frames.shape)
        self._copies.wait_stream(module.current_stream(self._device))
        with module.stream(self._copies):
            target.copy_(frames, non_blocking=True)
            self._copied.record(self._copies)
        # Held until they are copied, or the allocator would give their memory to the next batch.
        self._frames = frames, target

    def receive(self) -> np.ndarray:
        """Wait for the copy, and return frames that no later one writes to."""
        assert self._frames is not None
        self._copied.synchronize()
        _, target = self._frames
        self._frames = None
        return target.numpy().copy()
