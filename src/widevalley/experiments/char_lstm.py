"""The paper's character network, written out: nn.LSTM has two biases a gate, and no second derivative on every device.

With h_0, c_0 trainable and x_t the one-hot character,

    i, f, o, g = x_t W_x + b + h_{t-1} W_h                (48 columns each)
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t),   logits_t = h_t V + d

The product of a one-hot vector with W_x is a row of it, looked up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


class CharLSTM(nn.Module):
    """Logits (n, classes, positions) of the next character from characters (n, positions), int64."""

    def __init__(self, classes: int = 96, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.input_weight = nn.Parameter(torch.empty(classes, 4 * width))
        self.hidden_weight = nn.Parameter(torch.empty(width, 4 * width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        self.initial_hidden = nn.Parameter(torch.zeros(width))
        self.initial_cell = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, classes)
        # As nn.LSTM is initialised.
        for parameter in (self.input_weight, self.hidden_weight, self.bias):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)

    def forward(self, characters: Tensor) -> Tensor:
        n = len(characters)
        h, c = self.initial_hidden.expand(n, -1), self.initial_cell.expand(n, -1)
        hidden = []
        for from_input in (embedding(characters.T, self.input_weight) + self.bias).unbind():
            gates = torch.addmm(from_input, h, self.hidden_weight)
            # One call for the three sigmoids: most of the time goes to the number of operations.
            i, f, o = gates[:, : 3 * self.width].sigmoid().chunk(3, dim=1)
            c = f * c + i * gates[:, 3 * self.width :].tanh()
            h = o * c.tanh()
            hidden.append(h)
        logits: Tensor = self.output(torch.stack(hidden, dim=1))
        return logits.transpose(1, 2)
