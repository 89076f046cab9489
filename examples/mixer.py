"""A model as a plug-in: a small MLP-Mixer.

pai-bench sweep --plugin examples/mixer.py --models mixer --methods snip,erk --datasets digits
"""

from __future__ import annotations

from torch import Tensor, nn

from pai_bench import register_model

PATCH, WIDTH, BLOCKS = 2, 32, 2


class Block(nn.Module):
    """One mixer block on tokens [B, T, WIDTH]. Tolstikhin et al. 2021 (arXiv 2105.01601), eq. 1."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm_channels = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix_tokens = nn.Sequential(nn.Linear(tokens, WIDTH), nn.GELU(), nn.Linear(WIDTH, tokens))
        self.mix_channels = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix_tokens(self.norm_tokens(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mix_channels(self.norm_channels(x))


class Mixer(nn.Module):
    """MLP-Mixer from images [B, channels, size, size] to logits [B, classes]."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, WIDTH, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(Block((size // PATCH) ** 2) for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


@register_model("mixer")
def mixer(channels: int, size: int, classes: int) -> nn.Module:
    """Build the module from the number of channels, the image size and the number of classes."""
    return Mixer(channels, size, classes)
