"""BigGAN-deep as deepviz computes it, against pytorch-pretrained-biggan, in alternation.

    python -m benchmarks.generator [--quick] [--resolutions 128 256 512] [--device cpu]

Both paint from the same full-size random checkpoint, which is made for the purpose: nothing is
downloaded. Each pair of measurements gives a ratio; the table has their median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import MatrixProduct, describe_machine, print_table
from deepviz.generators import NUM_CLASSES, load_generator
from deepviz.generators.biggan import BigGAN
from deepviz.generators.biggan_folded import FoldedNetwork, fold
from deepviz.generators.checkpoint import FIRST_SIDE, read_checkpoint
from deepviz.settings import BIGGAN_RESOLUTIONS, Settings
from tests.checkpoints import FULL_WIDTH, make_checkpoint

PACKAGE_BATCH = {128: 8, 256: 4, 512: 2}  # frames a measurement: under two seconds each
PAIRS, QUICK_PAIRS = 9, 3
TRUNCATION = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    parser.add_argument("--resolutions", type=int, nargs="+", default=list(BIGGAN_RESOLUTIONS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    pairs = QUICK_PAIRS if options.quick else PAIRS
    print(describe_machine(), flush=True)
    rows = []
    for resolution in options.resolutions:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(resolution, Path(folder), options.device, options.precision, pairs)
        rows.append(row)
    print_table(
        [
            "size",
            "package",
            "deepviz",
            "faster, median (range)",
            "largest difference",
            "arithmetic a frame",
            "rate",
            "share of a matrix product's",
        ],
        rows,
    )


def measure(resolution: int, folder: Path, device: str, precision: str, pairs: int) -> list[str]:
    """One row of the table."""
    network = make_checkpoint(folder, resolution, FULL_WIDTH)
    settings = Settings(
        song="none",
        model="biggan-deep",
        weights=folder,
        resolution=resolution,
        truncation=TRUNCATION,
        device=device,
        precision=precision,
    )
    ours = load_generator(settings)
    assert isinstance(ours, BigGAN)
    on_gpu = ours.device.startswith("cuda")
    package = Package(network, "cuda" if on_gpu else "cpu")
    count = ours.batch_size if on_gpu else PACKAGE_BATCH[resolution]
    noise, class_vectors = example_vectors(count)

    def render() -> None:
        for _ in ours.render([(noise, class_vectors)]):
            pass

    difference = np.abs(
        package.paint(noise, class_vectors) - ours.paint(noise, class_vectors)
    ).max()
    render()
    product = MatrixProduct()
    theirs_each, ours_each, matrix_rates = [], [], []
    for _ in range(pairs):
        theirs_each.append(seconds(lambda: package.render(noise, class_vectors)) / count)
        ours_each.append((seconds(render) + seconds(render)) / (2 * count))
        matrix_rates.append(product.rate())
    ratios = [a / b for a, b in zip(theirs_each, ours_each, strict=True)]
    arithmetic = operations(fold(read_checkpoint(folder), TRUNCATION))
    rate = arithmetic / statistics.median(ours_each)
    return [
        str(resolution),
        f"{1 / statistics.median(theirs_each):.2f} frames/s",
        f"{1 / statistics.median(ours_each):.2f} frames/s",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{difference:.1e}",
        f"{arithmetic / 1e9:.1f} GFLOP",
        f"{rate / 1e9:.0f} GFLOP/s",
        "not compared" if on_gpu else f"{rate / statistics.median(matrix_rates):.0%}",
    ]


class Package:
    """pytorch-pretrained-biggan as its own examples use it: float32, frames copied to the host."""

    def __init__(self, network: torch.nn.Module, device: str) -> None:
        self._network, self._device = network.to(device), device

    @torch.no_grad()
    def paint(self, noise: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        arguments = [torch.from_numpy(x).to(self._device) for x in (noise, class_vectors)]
        return self._network(*arguments, TRUNCATION).cpu().permute(0, 2, 3, 1).numpy()

    def render(self, noise: np.ndarray, class_vectors: np.ndarray) -> np.ndarray:
        pictures: np.ndarray = (self.paint(noise, class_vectors) + 1) * 127.5
        return pictures.clip(0, 255).astype(np.uint8)


def example_vectors(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise and class vectors as songs give them: a dozen classes at once."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-2, 2, (count, 128)).astype(np.float32)
    class_vectors = np.zeros((count, NUM_CLASSES), np.float32)
    for row in class_vectors:
        row[rng.choice(NUM_CLASSES, 12, replace=False)] = rng.random(12)
    return noise, class_vectors


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def operations(network: FoldedNetwork) -> float:
    """Floating-point operations that a frame takes, in products alone; two for each pair."""
    side, total = FIRST_SIDE, network.first[0].numel() + network.norms[0].numel()
    for i, block in enumerate(network.blocks):
        if i == network.attention_before:
            a, pixels = network.attention, side * side
            kernels = sum(kernel.numel() for kernel in (a.theta, a.phi, a.g, a.out))
            # each pixel looks at a quarter as many keys, then sums as many values
            total += pixels * (kernels + pixels // 4 * (len(a.theta) + len(a.g)))
        for j, kernel in enumerate(block.kernels):
            # a transposed convolution's products are counted on the small image
            total += side * side * kernel.numel()
            if block.upsamples and j == 1:
                side *= 2
    total += side * side * (network.colours.rows.numel())
    return 2.0 * total


if __name__ == "__main__":
    main()
