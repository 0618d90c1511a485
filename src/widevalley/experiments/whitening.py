"""Per-image contrast normalisation and ZCA whitening, the preprocessing of the authors' CIFAR-10 runs.

    g_i = (x_i - mean of x_i) / standard deviation of x_i        over the d values of one image
    z   = W (g - m),   W = U diag(1/sqrt(lambda + epsilon)) U^T

m and U diag(lambda) U^T are mean and covariance (divisor n) of g over the images it is fitted on, so that the
covariance of z over them is U diag(lambda/(lambda + epsilon)) U^T. epsilon = 1e-5 as in the authors' runs. Contrast is
normalised to standard deviation 1, our choice: the scale that epsilon is relative to is not known.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

REGULARISER = 1e-5
# Images at once: bounds the float64 copies.
CHUNK = 2_000

log = logging.getLogger(__name__)


def contrast_normalised(images: Tensor) -> Tensor:
    """(n, ...) to (n, d) float64, each row of mean 0 and standard deviation 1; a constant image becomes zeros."""
    flat = images.flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    return centred / torch.where(deviation > 0, deviation, 1.0)


@dataclass(frozen=True)
class Whitening:
    mean: Tensor  # (d,), float64
    matrix: Tensor  # (d, d), float32, symmetric

    def __call__(self, images: Tensor) -> Tensor:
        """Images of any type, (n, ...), normalised and whitened: float32 of the same shape."""
        out = torch.empty(images.shape, dtype=torch.float32)
        for rows, chunk in zip(out.split(CHUNK), images.split(CHUNK), strict=True):
            white = (contrast_normalised(chunk) - self.mean).float() @ self.matrix
            rows.copy_(white.view(rows.shape))
        return out


def fit(images: Tensor, regulariser: float = REGULARISER) -> Whitening:
    """The transform fitted on these images alone, in float64."""
    d = images[0].numel()
    total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for chunk in images.split(CHUNK):
        g = contrast_normalised(chunk)
        total += g.sum(0)
        products.addmm_(g.T, g)
    mean = total / len(images)
    # Each image has mean 0, so that the means over images are small and little cancels here.
    covariance = products.div_(len(images)).addr_(mean, mean, alpha=-1.0)
    eigenvalues, u = torch.linalg.eigh(covariance)
    matrix = (u * (eigenvalues + regulariser).rsqrt()) @ u.T
    return Whitening(mean, matrix.float())


def fitted(images: Tensor, cache: Path) -> Whitening:
    """``fit(images)``, kept under ``cache`` in a file named by the sum of what it was fitted on.

    A damaged file is computed anew; a folder that cannot be written costs only time.
    """
    content = hashlib.sha256(f"{REGULARISER} {images.dtype} {tuple(images.shape)} ".encode())
    content.update(images.contiguous().numpy().data)
    path = cache / f"whitening-{content.hexdigest()}.npz"
    if (kept := _read(path, images[0].numel())) is not None:
        return kept
    log.info("Fitting the whitening of %s images: once, about a minute.", f"{len(images):,}")
    whitening = fit(images)
    try:
        _write(path, whitening)
    except OSError as error:
        log.warning("The whitening is not kept (%s): it will be computed again.", error)
    return whitening


def _read(path: Path, d: int) -> Whitening | None:
    try:
        # Opened here: np.load leaves a file open that is no whole zip.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            mean, matrix = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["matrix"])
    # A zip file carries the sums of its members: np.load tells a flipped bit.
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    right = mean.shape == (d,) and matrix.shape == (d, d)
    return Whitening(mean, matrix) if right else None


def _write(path: Path, whitening: Whitening) -> None:
    """All or nothing: a process that is killed leaves no half file under that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False)  # noqa: SIM115
    try:
        with partial:
            np.savez(partial, mean=whitening.mean.numpy(), matrix=whitening.matrix.numpy())
        os.replace(partial.name, path)
    except BaseException:
        os.unlink(partial.name)
        raise
