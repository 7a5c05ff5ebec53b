"""Speed and fidelity of the encoder's settings, and of those on either side of them.

    python -m benchmarks.encoder [--quick] [--resolution 512]

Frames of the example song are encoded by ``deepviz.video`` with each preset and rate factor, and
the file is compared with them by ffmpeg's own SSIM and VMAF, in the video's colour space.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from benchmarks.machine import describe_machine, print_table
from benchmarks.pipeline import EXAMPLE, SEED, compose
from deepviz import audio, frames, video
from deepviz.generators import load_generator
from deepviz.settings import Settings

FRAMES, QUICK_FRAMES = 430, 86  # ten seconds, two seconds
FIRST = 1600  # where the example song is loudest, and so moves most
FPS = audio.frame_rate(512)
OTHERS = [("ultrafast", 16), ("superfast", 14), ("superfast", 18), ("veryfast", 16), ("faster", 16)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer frames")
    parser.add_argument("--resolution", type=int, default=512)
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    kept = paint(options.resolution, QUICK_FRAMES if options.quick else FRAMES)
    preset, (_, crf) = video.ENCODERS["libx264"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "frames.rgb"
        kept.tofile(raw)
        for choice in [(preset, int(crf)), *OTHERS]:
            rows.append(measure(Path(name), kept, raw, *choice))
    print_table(["preset", "CRF", "frames/s", "SSIM of luma", "VMAF", "Mbit/s"], rows)


def paint(resolution: int, count: int) -> np.ndarray:
    """Consecutive frames of the example song, by the built-in network."""
    settings = Settings(song=str(EXAMPLE), model="cppn", resolution=resolution, seed=SEED)
    shown = compose(settings)
    generator = load_generator(settings)
    numbers = range(FIRST, FIRST + count)
    return np.stack(list(frames.render_frames(shown, generator, numbers, generator.batch_size)))


def measure(folder: Path, kept: np.ndarray, raw: Path, preset: str, crf: int) -> list[str]:
    """One row of the table."""
    target = folder / "video.mp4"
    before = video.ENCODERS["libx264"]
    video.ENCODERS["libx264"] = (preset, ["-crf", str(crf)])
    sound = video.Sound(EXAMPLE, Fraction(FIRST) / FPS, Fraction(FIRST + len(kept)) / FPS)
    began = time.perf_counter()
    video.write_video(kept, target, fps=FPS, sound=sound)
    seconds = time.perf_counter() - began
    video.ENCODERS["libx264"] = before
    side, rate = kept.shape[1], f"{FPS.numerator}/{FPS.denominator}"
    ssim = compare(raw, target, side, rate, "ssim", r"SSIM Y:([\d.]+)")
    vmaf = compare(raw, target, side, rate, "libvmaf=n_threads=2", r"VMAF score: ([\d.]+)")
    bits = target.stat().st_size * 8 / (len(kept) / FPS)
    return [preset, str(crf), f"{len(kept) / seconds:.0f}", ssim, vmaf, f"{float(bits) / 1e6:.1f}"]


def compare(raw: Path, target: Path, side: int, rate: str, metric: str, pattern: str) -> str:
    """What an ffmpeg filter says of a video and its frames."""
    original = f"[0:v]scale={video.COLOURS},format=yuv420p,settb=1/1000,setpts=N[a]"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{side}x{side}", "-r", rate]
    command += ["-i", str(raw), "-i", str(target)]
    command += ["-lavfi", f"{original};[1:v]settb=1/1000,setpts=N[b];[b][a]{metric}"]
    done = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True)
    found = re.findall(pattern, done.stderr)
    return str(found[-1]) if found else "not measured"


if __name__ == "__main__":
    main()
