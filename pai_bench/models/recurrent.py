"""Recurrent networks that read an image row by row, of the SNIP paper."""

from __future__ import annotations

from torch import Tensor, nn

from pai_bench.models.layers import scaled
from pai_bench.models.registry import register_model


class RowReader(nn.Module):
    """A linear layer on each row of the image, one LSTM or GRU layer, and a classifier of its last hidden state.

    The linear layer is inferred from the parameter counts in SNIP's Table 2 (137K and 535K with an LSTM, 104K and 404K
    with a GRU of 128 and 256 units); the code was not released.
    """

    def __init__(self, inputs: int, units: int, classes: int, cell: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, units)
        self.recurrent = cell(units, units, batch_first=True)
        self.linear = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)  # [B, rows, channels x columns]
        states, _ = self.recurrent(self.embed(rows))
        logits: Tensor = self.linear(states[:, -1])
        return logits


@register_model("lstm-s")
def _lstm_s(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """LSTM-s of the SNIP paper: the rows of an image through one LSTM layer of 128 units."""
    return RowReader(channels * size, scaled(128, width), classes, nn.LSTM)


@register_model("lstm-b")
def _lstm_b(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """LSTM-b of the SNIP paper: the rows of an image through one LSTM layer of 256 units."""
    return RowReader(channels * size, scaled(256, width), classes, nn.LSTM)


@register_model("gru-s")
def _gru_s(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """GRU-s of the SNIP paper: the rows of an image through one GRU layer of 128 units."""
    return RowReader(channels * size, scaled(128, width), classes, nn.GRU)


@register_model("gru-b")
def _gru_b(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """GRU-b of the SNIP paper: the rows of an image through one GRU layer of 256 units."""
    return RowReader(channels * size, scaled(256, width), classes, nn.GRU)
