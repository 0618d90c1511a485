"""Convolutions by patches are torch's own."""

import copy

import pytest
import torch
from torch import nn

from widevalley.landscape import patches
from widevalley.landscape.patches import convolve_patches


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(1, 2)),
        nn.Conv2d(3, 4, 1, bias=False),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    ],
    ids=repr,
)
def test_values_and_slopes_are_torchs(convolution: nn.Conv2d) -> None:
    plain = nn.Sequential(convolution, nn.ReLU(), nn.Flatten()).double()
    ours = copy.deepcopy(plain)
    convolve_patches(ours)
    images = torch.randn(5, 3, 8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, expected = ours(images), plain(images)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        (slope,) = torch.autograd.grad(found.square().sum(), [mine], retain_graph=True)
        (wanted,) = torch.autograd.grad(expected.square().sum(), [theirs], retain_graph=True)
        torch.testing.assert_close(slope, wanted, rtol=1e-12, atol=1e-12)


def test_float32_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    convolve_patches(model)
    assert type(model[0]) is nn.Conv2d
    assert "forward" not in vars(model[0])


def test_large_patches_and_single_images_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).double()
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = model(images)
    convolve_patches(model)
    torch.testing.assert_close(model(images[0]), expected[0], rtol=1e-13, atol=1e-13)
    # 36 places of nine numbers each.
    for most, there in ((4 * 36 * 9 * 8, False), (4 * 36 * 9 * 8 - 1, True)):
        monkeypatch.setattr(patches, "PATCH_BYTES", most)
        assert ("Convolution" in str(model(images).grad_fn)) is there
        torch.testing.assert_close(model(images), expected, rtol=1e-13, atol=1e-13)
