"""On what a result was measured: versions and machine, without its name."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "widevalley")}}


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, threads that torch uses, device."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {"processor": _processor(), "threads": torch.get_num_threads(), "device": name}


def _processor() -> str:
    # platform.processor() is empty or just the architecture on Linux.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else platform.machine()
