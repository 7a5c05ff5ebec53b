"""What the figures of a benchmark were measured on."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import numpy as np

from deepviz.hardware import count_cores

MATRIX_SIDE = 2048  # large enough for a product to reach its full rate, small enough to be quick


def describe_machine() -> str:
    """The processor, its cores, the graphics card if torch finds one, and the system."""
    import torch

    cards = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    parts = [f"{_processor()}, {count_cores()} cores", *cards]
    return "; ".join([*parts, f"{platform.system()}, Python {platform.python_version()}"])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class MatrixProduct:
    """The machine's float32 matrix product, by the faster of OpenVINO's and torch's."""

    def __init__(self) -> None:
        import openvino
        import torch
        from openvino import opset13 as ops

        shape = [MATRIX_SIDE, MATRIX_SIDE]
        left, right = ops.parameter(shape, np.float32), ops.parameter(shape, np.float32)
        model = openvino.Model([ops.matmul(left, right, False, False)], [left, right])
        hint = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()
        values = np.random.default_rng(0).random(shape, np.float32)
        self._inputs = [values, values]
        self._tensor = torch.from_numpy(values)
        self.rate()  # the first call takes longer

    def rate(self) -> float:
        """Operations a second, a multiplication and an addition counted as two."""
        rates = []
        for product in (lambda: self._request.infer(self._inputs), self._multiply):
            began = time.perf_counter()
            product()
            rates.append(2 * MATRIX_SIDE**3 / (time.perf_counter() - began))
        return max(rates)

    def _multiply(self) -> None:
        self._tensor @ self._tensor


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table with its columns aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")
