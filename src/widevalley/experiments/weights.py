"""Networks as safetensors files: weights at the centre, ready to ship, without code in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from widevalley.writing import write


def save_weights(network: nn.Module, path: Path, description: dict[str, Any]) -> None:
    """Writes the network's ``state_dict``, and ``description`` as JSON into the file's metadata.

    ``safetensors.torch.load_file(path)`` gives what ``load_state_dict`` takes. A tensor that has two names (tied
    weights) is written once for each. Raises OSError where the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    write(path, save(tensors, metadata={"widevalley": json.dumps(description)}))
