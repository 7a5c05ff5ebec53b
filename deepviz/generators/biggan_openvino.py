"""A folded BigGAN-deep on OpenVINO, which fuses its steps and keeps all cores of a CPU busy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from torch import Tensor

from deepviz.generators.biggan_folded import (
    NORMS_PER_BLOCK,
    Affine,
    Attention,
    Block,
    FoldedNetwork,
)
from deepviz.generators.biggan_runtime import CpuRuntime
from deepviz.generators.checkpoint import FIRST_SIDE

Node = Any  # of OpenVINO's graph; the package has no types

# What OpenVINO calls a precision, as a hint and among the capabilities of a device.
PRECISIONS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}


class OpenVinoRuntime(CpuRuntime):
    """Computes a folded network on the CPU, ``part`` pictures at a time.

    Raises
    ------
    RuntimeError
        If this processor has no such precision, or OpenVINO cannot use it at all.
    """

    def __init__(self, network: FoldedNetwork, part: int, precision: str = "float32") -> None:
        super().__init__(part)
        core, name = openvino.Core(), PRECISIONS[precision]
        # Asked all the same, OpenVINO would compute in another precision and not say so.
        if name not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError(f"this processor has no {precision} arithmetic")
        self._network = network
        self._options = {
            # all cores on one batch: least memory, and as fast as streams
            "PERFORMANCE_HINT": "LATENCY",
            # without it OpenVINO takes bfloat16 where a CPU has it
            "INFERENCE_PRECISION_HINT": name.replace("FP", "F").lower(),
        }
        self._set_part(part)
        threads = self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")
        words = [f"{threads} threads", "OpenVINO"]
        words += [precision] if precision != "float32" else []
        self.device = f"cpu ({', '.join(words)})"

    def _set_part(self, part: int) -> None:
        super()._set_part(part)
        graph = build_graph(self._network, part)
        compiled = openvino.Core().compile_model(graph, "CPU", self._options)
        self._request = compiled.create_infer_request()

    def _compute(self, condition: np.ndarray) -> Tensor:
        self._request.infer([condition])
        return torch.from_numpy(self._request.get_output_tensor().data)


def build_graph(network: FoldedNetwork, batch: int) -> openvino.Model:
    """Noise and class embeddings, shape = (batch, 256), to RGB, shape = (batch, side, side, 3)."""
    condition = ops.parameter([batch, network.first[0].shape[0]], np.float32)
    first = _reshape(_affine(condition, network.first), batch, FIRST_SIDE, FIRST_SIDE, -1)
    x = ops.transpose(first, _integers(0, 3, 1, 2))
    side = FIRST_SIDE
    norms = _split_norms(_affine(condition, network.norms), network.norm_widths, batch)
    for i, block in enumerate(network.blocks):
        if i == network.attention_before:
            x = _attend(network.attention, x, batch, side)
        x = _run_block(block, x, list(itertools.islice(norms, 2 * NORMS_PER_BLOCK)))
        side <<= block.upsamples
    colours = network.colours
    rows = _convolve(ops.relu(x), colours.rows)
    pictures = ops.tanh(ops.add(_convolve(rows, colours.columns), _channels(colours.bias)))
    return openvino.Model([ops.transpose(pictures, _integers(0, 2, 3, 1))], [condition])


def _affine(x: Node, affine: Affine) -> Node:
    weight, bias = affine
    return ops.add(ops.matmul(x, _constant(weight), False, False), _constant(bias[None]))


def _split_norms(norms: Node, widths: tuple[int, ...], batch: int) -> Iterator[Node]:
    """Scale and offset of each norm, shapes = (batch, C, 1, 1)."""
    twice = [width for width in widths for _ in range(2)]
    parts = ops.variadic_split(norms, _integers(1), _integers(*twice))
    for i, width in enumerate(twice):
        yield _reshape(parts.output(i), batch, width, 1, 1)


def _run_block(block: Block, x: Node, norms: list[Node]) -> Node:
    h = x
    for j, kernel in enumerate(block.kernels):
        h = ops.relu(ops.add(ops.multiply(h, norms[2 * j]), norms[2 * j + 1]))
        if block.upsamples and j == 1:
            h = ops.convolution_backprop_data(
                h, _constant(kernel), [2, 2], None, [1, 1], [1, 1], [1, 1]
            )
        else:
            h = _convolve(h, kernel)
    width = len(block.bias)
    skip = x
    if x.shape[1] != width:  # a narrower block drops the channels that it has no room for
        skip = ops.slice(x, _integers(0), _integers(width), _integers(1), _integers(1))
    if block.skip_scale is not None:
        skip = ops.multiply(skip, _channels(block.skip_scale))
    if block.upsamples:
        skip = _double_size(skip)
    return ops.add(ops.add(h, _channels(block.bias)), skip)


def _attend(attention: Attention, x: Node, batch: int, side: int) -> Node:
    def rows(kernel: Tensor, halve: bool) -> Node:  # (B, C, H, W) -> (B, H * W, C)
        image = _convolve(x, kernel)
        if halve:
            image = ops.max_pool(image, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        return ops.transpose(_reshape(image, batch, len(kernel), -1), _integers(0, 2, 1))

    scores = ops.matmul(rows(attention.theta, False), rows(attention.phi, True), False, True)
    seen = ops.matmul(ops.softmax(scores, -1), rows(attention.g, True), False, False)
    seen = ops.transpose(seen, _integers(0, 2, 1))
    return ops.add(x, _convolve(_reshape(seen, batch, len(attention.g), side, side), attention.out))


def _convolve(x: Node, kernel: Tensor) -> Node:
    """A convolution that keeps height and width."""
    pads = [size // 2 for size in kernel.shape[2:]]
    return ops.convolution(x, _constant(kernel), [1, 1], pads, pads, [1, 1])


def _double_size(x: Node) -> Node:
    scales = ops.constant(np.array([2, 2], np.float32))
    return ops.interpolate(
        x,
        scales,
        "nearest",
        "scales",
        axes=_integers(2, 3),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _reshape(x: Node, *shape: int) -> Node:
    return ops.reshape(x, _integers(*shape), False)


def _channels(values: Tensor) -> Node:
    return _constant(values.view(1, -1, 1, 1))


def _constant(tensor: Tensor) -> Node:
    return ops.constant(tensor.numpy(), shared_memory=True)


def _integers(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))
