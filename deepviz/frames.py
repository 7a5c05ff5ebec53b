"""``Vectors`` and a generator → a stream of frames; nothing here holds more than a batch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np

from deepviz.errors import FramesError, is_out_of_memory
from deepviz.files import whole_file

if TYPE_CHECKING:
    from deepviz.generators import Generator as Painter
    from deepviz.vectors import Vectors

# What libraries say that raise a plain RuntimeError: torch, CUDA, OpenVINO.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "bad_alloc",
    "bad allocation",
)
PNG_COMPRESSION = 1  # of 9: a third larger than the best, and five times as fast to write
MISSING_SHOWN = 5  # runs of missing frames that an error names

AHEAD_BYTES = 64 << 20  # of frames waiting for the encoder: 85 at 512, more than any hiccup needs
STOP_PATIENCE = 1.0  # seconds that a run which stops waits for the frame in work
STOP_CHECK = 0.1  # seconds after which a waiting thread looks whether it is still wanted

_stragglers: list[Thread] = []  # threads that were still at their last frame when left

log = logging.getLogger(__name__)


def render_frames(
    vectors: Vectors, generator: Painter, numbers: Sequence[int], batch_size: int
) -> Iterator[np.ndarray]:
    """Paint frames, one after the other.

    When a batch does not fit into memory, its size is halved and painting goes on at the first
    frame that was not delivered.

    Parameters
    ----------
    numbers : sequence of int
        Which frames of the song, rows of ``vectors``, in the order wanted.
    batch_size : int
        Frames that the generator is handed at a time.

    Yields
    ------
    np.ndarray, uint8, shape = (resolution, resolution, 3)

    Raises
    ------
    FramesError
        If not even a single frame fits into memory.
    """
    delivered, warned = 0, False
    while delivered < len(numbers):
        batches = _batches(vectors, generator.num_classes, numbers[delivered:], batch_size)
        try:
            for batch in generator.render(batches):
                delivered += len(batch)
                yield from batch
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise FramesError(
                    f"a single frame at --resolution {generator.resolution} does not fit into the "
                    "memory there is; take a smaller one, or --model cppn"
                ) from error
            batch_size //= 2
            if not warned:
                log.warning("out of memory: going on with smaller batches, of %d", batch_size)
            warned = True


def _batches(
    vectors: Vectors, num_classes: int, numbers: Sequence[int], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, len(numbers), batch_size):
        rows = np.asarray(numbers[first : first + batch_size])
        yield vectors.noise[rows], vectors.dense(rows, num_classes)


def keep_frames(
    frames: Iterable[np.ndarray], numbers: Sequence[int], folder: Path
) -> Iterator[np.ndarray]:
    """Pass frames on, each after it was written as a PNG to ``folder``, named by its number."""
    from PIL import Image

    for number, frame in zip(numbers, frames, strict=True):
        try:
            with whole_file(frame_path(folder, number), durable=False) as temporary:
                image = Image.fromarray(frame)
                image.save(temporary, format="PNG", compress_level=PNG_COMPRESSION)
        except OSError as error:
            raise FramesError(f"frame {number} cannot be written to {folder}: {error}") from error
        yield frame


def find_missing(folder: Path, numbers: Sequence[int], side: int) -> list[int]:
    """Which of a run's frames are not in its folder, whole and of the right size."""
    stored = {path.name for path in folder.iterdir()}
    return [
        number
        for number in numbers
        if frame_path(folder, number).name not in stored
        or not _is_whole(frame_path(folder, number), side)
    ]


def _is_whole(path: Path, side: int) -> bool:
    """Whether a PNG has all its parts, by their checksums, without unpacking it."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
            return image.size == (side, side) and image.mode == "RGB"
    except (OSError, SyntaxError, ValueError):
        return False


def check_space(folder: Path, count: int, side: int) -> None:
    """Find out before the first frame whether all of them will fit on the disk.

    Raises
    ------
    FramesError
        If they would not, were they as large as uncompressed ones.
    """
    needed, free = count * side * side * 3, shutil.disk_usage(folder).free
    if needed > free:
        raise FramesError(
            f"-d may need {needed / 1e9:.1f} GB for {count} frames, and {folder} has "
            f"{free / 1e9:.1f} GB left; make room, name another --work_dir, or go without -d"
        )


def fill_in(
    painted: Iterator[np.ndarray], missing: Sequence[int], numbers: Sequence[int], folder: Path
) -> Iterator[np.ndarray]:
    """All frames in order: the missing ones as they are painted, the others from the folder."""
    absent = set(missing)
    for number in numbers:
        yield next(painted) if number in absent else _read_frame(frame_path(folder, number))


def read_frames(folder: Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames that :func:`keep_frames` wrote, uint8, shape = (height, width, 3).

    Raises
    ------
    FramesError
        At once, if frames are missing: it names them. Later, if one is damaged.
    """
    missing = [number for number in numbers if not frame_path(folder, number).exists()]
    if missing:
        raise FramesError(
            f"{len(missing)} of {len(numbers)} frames are missing in {folder}: "
            f"{_name_runs(missing)}; render them with -d, or choose others with --start and "
            "--duration"
        )
    return (_read_frame(frame_path(folder, number)) for number in numbers)


def _read_frame(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow calls a broken PNG a syntax error
        raise FramesError(f"{path} is damaged ({error}); render it again with -d") from error


def frame_path(folder: Path, number: int) -> Path:
    """Where frame ``number`` of a song lies."""
    return folder / f"{number:06d}.png"


def _name_runs(numbers: Sequence[int]) -> str:
    """Numbers in words, as runs: "0 to 4, 7, 9 to 11"."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    runs = [
        str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}"
        for run in np.split(np.asarray(numbers), breaks)
    ]
    more = ["..."] if len(runs) > MISSING_SHOWN else []
    return ", ".join(runs[:MISSING_SHOWN] + more)


def run_ahead(
    frames: Iterable[np.ndarray], budget: int | None = None
) -> Generator[np.ndarray, None, None]:
    """Pass frames on while the next ones are made in a thread, so that both sides work at once.

    What goes wrong in the thread is raised here, after the frames that went before; when the one
    who takes the frames stops, so does the thread.

    Parameters
    ----------
    frames : iterable of np.ndarray
        All of one size.
    budget : int, optional
        Bytes of frames that may wait to be taken, ``AHEAD_BYTES`` by default; a single one may
        always.
    """
    while _stragglers:  # of a run before, with which this one may share its network
        _stragglers.pop().join()
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        return
    waiting: Queue[np.ndarray | BaseException | None] = Queue(
        max(1, (budget or AHEAD_BYTES) // first.nbytes)
    )
    stopped = Event()

    def hand_over(item: np.ndarray | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(Full):
                return waiting.put(item, timeout=STOP_CHECK)

    def work() -> None:
        try:
            for frame in stream:
                hand_over(frame)
                if stopped.is_set():
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(error)

    thread = Thread(target=work, name="deepviz-frames", daemon=True)
    thread.start()
    try:
        yield first
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        # It ends with the frame in work. A daemon, it cannot hold up the end of an interrupted run.
        thread.join(STOP_PATIENCE)
        if thread.is_alive():
            _stragglers.append(thread)


def scale_frames(frames: Iterable[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """Frames enlarged by a whole number, Lanczos."""
    from PIL import Image

    for frame in frames:
        if factor == 1:
            yield frame
            continue
        height, width = frame.shape[:2]
        size = (width * factor, height * factor)
        yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
