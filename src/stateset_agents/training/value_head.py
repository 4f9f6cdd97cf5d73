"""The value head: what a state is worth, from the model's own hidden state.

Invariant: float32, starts at 0 everywhere, and is trained beside the model by the same optimizer in a group of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """One linear output on the last hidden states.

    Args:
        hidden_size: width of the model.
        device: of the model.
    """

    PREFIX = "value_head."

    def __init__(self, hidden_size: int, device: torch.device) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, hidden_size) -> (N,)."""
        worth: Tensor = self.linear(hidden.float())
        return worth[:, 0]

    def named(self) -> dict[str, Tensor]:
        """Its parameters under names that no model has."""
        return {f"{self.PREFIX}{name}": parameter for name, parameter in self.linear.named_parameters()}
