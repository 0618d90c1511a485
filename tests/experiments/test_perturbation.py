"""The rise of the loss against a closed form, and its invariance."""

import copy

import pytest
import torch
from torch import nn

from widevalley.experiments.perturbation import SIZES, rise_of_loss


def test_the_rise_of_a_quadratic_is_exact() -> None:
    """½‖w − w₀‖² at w₀: a direction has the norm of the weights, row by row, so the rise is ½ size² ‖w₀‖² always."""
    model = nn.Linear(4, 3)
    start = copy.deepcopy(model)

    def loss(network: nn.Module) -> float:
        pairs = zip(network.parameters(), start.parameters(), strict=True)
        return 0.5 * sum((p - q).square().sum().item() for p, q in pairs)

    rises = rise_of_loss(model, loss, directions=3, seed=0)
    norm = sum(p.square().sum().item() for p in start.parameters())
    assert [rise.size for rise in rises] == list(SIZES)
    for rise in rises:
        assert rise.mean == pytest.approx(0.5 * rise.size**2 * norm, rel=1e-5)
        assert rise.standard_error < 1e-6
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), start.parameters(), strict=True))


def test_rescaling_filters_between_layers_changes_nothing() -> None:
    """The ReLU rescaling of Dinh et al.: a in, 1/a out is the same function, and must have the same rise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False)).double()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(8.0)
        scaled[2].weight.div_(8.0)
    inputs, targets = torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,))

    def loss(network: nn.Module) -> float:
        return nn.functional.cross_entropy(network(inputs), targets).item()

    one, other = (rise_of_loss(m, loss, directions=4, seed=1) for m in (model, scaled))
    assert [r.mean for r in one] == pytest.approx([r.mean for r in other], rel=1e-9)
    assert one[-1].mean != 0.0


def test_the_weights_come_back_after_an_exception() -> None:
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    calls = iter([0.0, 0.0])
    with pytest.raises(StopIteration):
        rise_of_loss(model, lambda _: next(calls), directions=2, seed=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
