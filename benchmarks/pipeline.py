"""A whole run and its parts: start-up, generator alone, encoder alone, all together, memory.

    python -m benchmarks.pipeline [--quick] [--model cppn] [--resolutions 256 512]

The songs are the example song, repeated or cut to length. With ``--model biggan-deep`` a full-size
random checkpoint is made: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.machine import describe_machine, print_table
from deepviz import audio, classes, frames, vectors, video
from deepviz.generators import load_generator
from deepviz.settings import Settings

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "prelude.ogg"
LENGTHS, QUICK_LENGTHS = (15, 60, 240), (5, 15)  # seconds of song
STARTS = 3  # runs of a single frame, of which the median counts
SEED = 3
ENCODER_FRAMES = 256  # of the song, over and over: enough for motion, little enough for memory
BOUND, START_UP = 1.1, 6  # what a run may take: so many times its slower part, and seconds
POLL = 0.1  # seconds between two looks at the memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short songs")
    parser.add_argument("--model", default="cppn", choices=["cppn", "biggan-deep"])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 512])
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for resolution in options.resolutions:
            for length in QUICK_LENGTHS if options.quick else LENGTHS:
                rows.append(measure(folder, options.model, resolution, length))
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    header = ["model", "size", "song", "frames", "start-up", "generator", "encoder", "whole run"]
    print_table([*header, f"of {BOUND} × slower + {START_UP} s", "frames/s", "peak memory"], rows)


def measure(folder: Path, model: str, resolution: int, length: int) -> list[str]:
    """One row of the table."""
    song = make_song(folder, length)
    flags = {"model": model, "resolution": resolution, "seed": SEED}
    if model == "biggan-deep":
        flags["weights"] = str(checkpoint(folder, resolution))
    start = statistics.median(
        run_command(folder, song, {**flags, "duration": 0.001})[0] for _ in range(STARTS)
    )
    settings = Settings(song=str(song), **flags)
    count, painting, encoding = measure_parts(folder, settings)
    whole, memory = run_command(folder, song, flags)
    bound = BOUND * max(painting, encoding) + START_UP
    return [
        model,
        str(resolution),
        f"{length} s",
        str(count),
        f"{start:.1f} s",
        f"{painting:.1f} s",
        f"{encoding:.1f} s",
        f"{whole:.1f} s",
        f"{whole / bound:.2f}",
        f"{count / whole:.1f}",
        f"{memory / 1e6:.0f} MB",
    ]


def make_song(folder: Path, length: int) -> Path:
    """The example song, repeated or cut to ``length`` seconds."""
    path = folder / f"{length}.wav"
    samples, rate = soundfile.read(EXAMPLE, dtype="int16")
    soundfile.write(path, np.resize(samples, (length * rate, samples.shape[1])), rate)
    return path


def checkpoint(folder: Path, resolution: int) -> Path:
    from tests.checkpoints import FULL_WIDTH, make_checkpoint

    weights = folder / f"biggan-deep-{resolution}"
    if not weights.exists():
        make_checkpoint(weights, resolution, FULL_WIDTH)
    return weights


def run_command(folder: Path, song: Path, flags: dict[str, object]) -> tuple[float, int]:
    """Wall time of the command in seconds, and the most memory that it took, bytes."""
    command = [sys.executable, str(ROOT / "visualize.py"), "--song", str(song)]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in (process.pid, *children_of(process.pid)):
            peaks[pid] = max(peaks.get(pid, 0), peak_memory(pid))
        time.sleep(POLL)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - began, sum(peaks.values())


def children_of(pid: int) -> list[int]:
    """Processes that a process has started: the encoder; Linux only."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def peak_memory(pid: int) -> int:
    """The most memory that a process has had in use, bytes; Linux only.

    The system's own account of a process that has ended counts its parent's memory at its start.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(s.split()[1]) * 1024 for s in status.splitlines() if "VmHWM" in s), 0)


def compose(settings: Settings) -> vectors.Vectors:
    """The vectors of a whole song, with the seed of all benchmarks."""
    features = audio.analyse(audio.load_waveform(settings.song), settings.frame_length)
    drivers = (features.pitches.values, features.power, features.onset)
    drawn = classes.draw_classes(settings.class_count, SEED)
    return vectors.make_vectors(*drivers, drawn, settings, SEED)


def measure_parts(folder: Path, settings: Settings) -> tuple[int, float, float]:
    """Number of frames, and seconds that painting and encoding them take, each alone."""
    shown = compose(settings)
    fps = audio.frame_rate(settings.frame_length)
    generator = load_generator(settings)
    batch_size = settings.batch_size or generator.batch_size
    kept = list(
        frames.render_frames(shown, generator, range(min(ENCODER_FRAMES, len(shown))), batch_size)
    )
    began = time.perf_counter()
    for _ in frames.render_frames(shown, generator, range(len(shown)), batch_size):
        pass
    painting = time.perf_counter() - began
    began = time.perf_counter()
    video.write_video(
        islice(cycle(kept + kept[::-1]), len(shown)),
        folder / "encoder.mp4",
        fps=fps,
        sound=video.Sound(Path(settings.song), Fraction(0), len(shown) / fps),
        encoder=video.pick_encoder(settings.encoder, settings.resolution),
    )
    return len(shown), painting, time.perf_counter() - began


if __name__ == "__main__":
    main()
