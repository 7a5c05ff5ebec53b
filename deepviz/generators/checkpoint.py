"""BigGAN-deep checkpoints: reading one, and the checks that it is whole.

A checkpoint is a folder in the layout of pytorch-pretrained-biggan: ``config.json`` beside
``pytorch_model.bin`` or ``model.safetensors``.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepviz.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME = "config.json"
PICKLE_NAME = "pytorch_model.bin"
SAFETENSORS_NAME = "model.safetensors"

FIRST_SIDE = 4  # pixels; the network starts there and doubles its side in each upsampling block
FIRST_WIDTH = 16  # of the first block, in units of channel_width
BLOCK_REDUCTION = 4  # a block works on a quarter of the channels that it is given
# Far above what was ever trained; a config beyond them is damaged, and would ask for terabytes.
LARGEST = {"channel_width": 512, "num_classes": 100_000, "z_dim": 4096, "n_stats": 10_001}


@dataclass(frozen=True)
class Architecture:
    """The shape of a BigGAN-deep generator, as its ``config.json`` gives it."""

    output_dim: int  #: height and width of a picture, pixels
    z_dim: int  #: units of the noise, and of the class embedding
    channel_width: int  #: channels before the colours; all other widths are multiples of it
    num_classes: int
    n_stats: int  #: truncations from 0 to 1 for which batch statistics are stored
    eps: float  #: added to each variance
    layers: tuple[tuple[bool, int, int], ...]  #: upsamples?, width in, width out
    attention_layer_position: int  #: the block that attention comes before

    @property
    def condition_dim(self) -> int:
        """Units of noise and class embedding together."""
        return 2 * self.z_dim


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole.

    ``tensors`` are float32 under their names in the package, save that spectral norm is divided
    out: in place of ``x.weight_orig``, ``x.weight_u`` and ``x.weight_v`` there is ``x.weight``.
    """

    architecture: Architecture
    tensors: dict[str, Tensor]
    folder: Path


def weights_file(folder: Path) -> Path:
    """The file of tensors in a checkpoint's folder.

    Raises
    ------
    WeightsError
        If it or its ``config.json`` is not there.
    """
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise WeightsError(
            f"weights are a folder with {CONFIG_NAME} and {PICKLE_NAME} or {SAFETENSORS_NAME}; "
            f"{folder}: {error.strerror}"
        ) from None
    tensors = [name for name in (SAFETENSORS_NAME, PICKLE_NAME) if name in names]
    if not tensors:
        raise WeightsError(f"{folder} holds neither {PICKLE_NAME} nor {SAFETENSORS_NAME}")
    if CONFIG_NAME not in names:
        raise WeightsError(f"{folder} holds no {CONFIG_NAME}, which belongs to its weights")
    return folder / tensors[0]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check that it is one: its config, and each tensor's shape and values.

    Nothing in the file is run: pickles are read with ``weights_only=True``.

    Raises
    ------
    WeightsError
        Naming the file, and the tensor, if something is missing, damaged or not a number.
    """
    file = weights_file(folder)
    architecture = read_architecture(folder / CONFIG_NAME)
    raw = _read_tensors(file)
    tensors = {}
    for name, shape in _tensor_shapes(architecture):
        try:
            tensors[name] = _effective_weight(raw, name, shape)
        except ValueError as error:
            raise WeightsError(f"{file} does not fit its {CONFIG_NAME}: {error}") from None
    return Checkpoint(architecture, tensors, folder)


def read_architecture(file: Path) -> Architecture:
    """Read a ``config.json``, and check that it describes a network that can be."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        architecture = _as_architecture(config)
        _check_architecture(architecture)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise WeightsError(f"{file} does not describe a BigGAN-deep: it lacks {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{file} does not describe a BigGAN-deep: {error}") from None
    return architecture


def _as_architecture(config: Any) -> Architecture:
    if not isinstance(config, dict):
        raise ValueError("it is no table of names and values")
    integers = {name: config[name] for name in ("output_dim", "attention_layer_position", *LARGEST)}
    for name, value in integers.items():
        if type(value) is not int or not 0 <= value <= LARGEST.get(name, 1 << 16):
            raise ValueError(f"{name} is {value!r}")
    for layer in config["layers"]:
        if not isinstance(layer, list) or [type(item) for item in layer] != [bool, int, int]:
            raise ValueError(f"a layer is {layer!r}")
    if type(config["eps"]) is not float or not 0 < config["eps"] < 1:
        raise ValueError(f"eps is {config['eps']!r}")
    layers = tuple((up, inside, out) for up, inside, out in config["layers"])
    return Architecture(layers=layers, eps=config["eps"], **integers)


def _check_architecture(a: Architecture) -> None:
    """Raise ValueError if the parts of an architecture do not fit together."""
    if a.channel_width < BLOCK_REDUCTION or a.num_classes < 1 or a.z_dim < 1 or a.n_stats < 2:
        raise ValueError("a size is too small")
    if not 0 <= a.attention_layer_position < len(a.layers):
        raise ValueError(f"attention_layer_position is {a.attention_layer_position}")
    width = FIRST_WIDTH
    for up, inside, out in a.layers:
        if inside != width or out not in (inside, inside // 2) or out < 1:
            raise ValueError(f"layer [{up}, {inside}, {out}] cannot follow a width of {width}")
        width = out
    if width != 1:
        raise ValueError(f"the last layer has a width of {width}, not 1")
    side = FIRST_SIDE << sum(up for up, _, _ in a.layers)
    if a.output_dim != side:
        raise ValueError(f"output_dim is {a.output_dim}, but its layers make {side}")


def _tensor_shapes(a: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor that the network needs, spectral norm divided out."""
    first = FIRST_SIDE * FIRST_SIDE * FIRST_WIDTH * a.channel_width
    yield "embeddings.weight", (a.z_dim, a.num_classes)
    yield "generator.gen_z.weight", (first, a.condition_dim)
    yield "generator.gen_z.bias", (first,)
    for i, (_, inside, out) in enumerate(a.layers):
        # attention stands in the same list as the blocks, which moves those behind it by one
        block = f"generator.layers.{i + (i >= a.attention_layer_position)}"
        width, middle = inside * a.channel_width, inside * a.channel_width // BLOCK_REDUCTION
        if i == a.attention_layer_position:
            yield from _attention_shapes(f"generator.layers.{i}", width)
        widths = (width, middle, middle, middle, out * a.channel_width)
        for j, kernel in enumerate((1, 3, 3, 1)):
            yield f"{block}.bn_{j}.running_means", (a.n_stats, widths[j])
            yield f"{block}.bn_{j}.running_vars", (a.n_stats, widths[j])
            yield f"{block}.bn_{j}.scale.weight", (widths[j], a.condition_dim)
            yield f"{block}.bn_{j}.offset.weight", (widths[j], a.condition_dim)
            yield f"{block}.conv_{j}.weight", (widths[j + 1], widths[j], kernel, kernel)
            yield f"{block}.conv_{j}.bias", (widths[j + 1],)
    ch = a.channel_width
    yield "generator.bn.running_means", (a.n_stats, ch)
    yield "generator.bn.running_vars", (a.n_stats, ch)
    yield "generator.bn.weight", (ch,)
    yield "generator.bn.bias", (ch,)
    yield "generator.conv_to_rgb.weight", (ch, ch, 3, 3)
    yield "generator.conv_to_rgb.bias", (ch,)


def _attention_shapes(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.snconv1x1_theta.weight", (width // 8, width, 1, 1)
    yield f"{name}.snconv1x1_phi.weight", (width // 8, width, 1, 1)
    yield f"{name}.snconv1x1_g.weight", (width // 2, width, 1, 1)
    yield f"{name}.snconv1x1_o_conv.weight", (width, width // 2, 1, 1)
    yield f"{name}.gamma", (1,)


def _read_tensors(file: Path) -> Mapping[str, Tensor]:
    """Every tensor in a file, by name, on the CPU."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.name == SAFETENSORS_NAME:
            return load_file(file)
        with file.open("rb") as opened:
            # Only torch's newer format can be mapped; the released files are in the older one.
            mappable = torch.serialization._is_zipfile(opened)
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damage can make a parser fail in any way
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise WeightsError(
                f"{file} holds code besides tensors. It was not run; take the weights from a "
                "source that you trust"
            ) from None
        raise WeightsError(f"{file} is damaged or cut off: delete it and get it again") from None
    if not isinstance(tensors, dict):
        raise WeightsError(f"{file} holds no table of named tensors")
    return tensors


def _effective_weight(raw: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor in float32, divided by its spectral norm if it is stored with it.

    The norm is sigma = u^T W v with the stored singular vectors u and v (Miyato et al. 2018).
    Raises ValueError saying what is wrong.
    """
    if name in raw or f"{name}_orig" not in raw:
        # not a view of the mapped file, which someone may change before the run ends
        return _checked(raw, name, shape).clone()
    weight = _checked(raw, f"{name}_orig", shape)
    matrix = weight.flatten(1).double()  # rounded once, whatever the order of the sums
    u = _checked(raw, f"{name}_u", (matrix.shape[0],)).double()
    v = _checked(raw, f"{name}_v", (matrix.shape[1],)).double()
    sigma = float(u @ (matrix @ v))
    if not math.isfinite(sigma) or sigma == 0:
        raise ValueError(f"the spectral norm of {name} is {sigma}")
    return weight / sigma


def _checked(raw: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    import torch

    tensor = raw.get(name)
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} is missing")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
    tensor = tensor.detach().float()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds values that are no numbers")
    if name.endswith("running_vars") and (tensor < 0).any():
        raise ValueError(f"{name} holds negative variances")
    return tensor
