"""Random BigGAN-deep checkpoints that behave like the released ones, made by the package itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from pytorch_pretrained_biggan import BigGAN
from pytorch_pretrained_biggan.convert_tf_to_pytorch import BigGAN128, BigGAN256, BigGAN512
from pytorch_pretrained_biggan.model import BigGANBatchNorm, SelfAttn
from torch.nn.functional import normalize

SMALL_WIDTH = 8  # channels before the colours; the blocks then work on 2 to 32
FULL_WIDTH = 128  # as released

CONFIGS = {128: BigGAN128, 256: BigGAN256, 512: BigGAN512}  # of the released networks


def make_checkpoint(
    folder: Path, resolution: int, channel_width: int = SMALL_WIDTH, seed: int = 0
) -> BigGAN:
    """Write a random checkpoint in the package's layout, and return the package's own network.

    Its weights are random, its batch statistics those of its own activations, different for each
    truncation. So its pictures use the whole range of colours without being flat or clipped.

    Parameters
    ----------
    folder : Path
        Made if it is not there; gets ``config.json`` and ``pytorch_model.bin``.
    resolution : int
        128, 256 or 512.
    channel_width : int
        ``FULL_WIDTH`` makes a network of the released size, for benchmarks.
    """
    config = copy.copy(CONFIGS[resolution])
    config.channel_width = channel_width
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = BigGAN(config).eval()
        _randomise(model)
        _calibrate(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def _randomise(model: BigGAN) -> None:
    """Values for what the package leaves at zero, or at whatever was in memory."""
    model.embeddings.weight.normal_(0, 0.3)
    model.generator.bn.weight.uniform_(0.3, 1.0)
    model.generator.bn.bias.normal_(0, 0.2)
    for module in model.modules():
        if isinstance(module, SelfAttn):
            module.gamma.fill_(0.7)
        if hasattr(module, "weight_u"):
            matrix = module.weight_orig.flatten(1)
            for _ in range(15):  # power iteration, as training would have done
                module.weight_v.copy_(normalize(matrix.T @ module.weight_u, dim=0))
                module.weight_u.copy_(normalize(matrix @ module.weight_v, dim=0))


def _calibrate(model: BigGAN) -> None:
    """Take each layer's batch statistics from one forward pass, and vary them with truncation."""

    def measure(norm: BigGANBatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        shape = norm.running_means.shape
        # Means below the measured ones let more units past their relu. Without that, the network
        # amplifies rounding so much that the package differs from its own float64 by 1e-4.
        norm.running_means.copy_(mean + var.sqrt() * (0.2 * torch.randn(shape) - 0.7))
        norm.running_vars.copy_(var * (0.7 + 0.6 * torch.rand(shape)) + 0.1 * mean**2 + 1e-3)

    norms = [module for module in model.modules() if isinstance(module, BigGANBatchNorm)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    classes = torch.zeros(2, model.config.num_classes)
    classes[:, [3, 7]] = torch.eye(2)
    model(torch.randn(2, model.config.z_dim), classes, 1.0)
    for hook in hooks:
        hook.remove()
