"""Verdicts on networks of which it is known whether they are one function, or which of them is wider."""

import copy
import math

import models
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from widevalley.landscape import Objective, compare_widths
from widevalley.landscape.compare import ELEMENT, FILTER, RAW
from widevalley.landscape.matching import matched_scales, temperatures
from widevalley.landscape.normalised import row_lengths

INVARIANT = (*ELEMENT, *FILTER)


def relu_network(dtype=torch.float64):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)


def trained(model=None, steps=60, dtype=torch.float64):
    """A little, so that the loss is below that of zero logits and the classes are not separated."""
    model = relu_network(dtype) if model is None else model
    batches = models.data(dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        for inputs, targets in batches:
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model


def of(model, dtype=torch.float64):
    return Objective(model, data=models.data(dtype=dtype))


def scaled_logits(model, factor):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[-1].weight.mul_(factor)
        other[-1].bias.mul_(factor)
    return other


def rescaled(model, factors):
    """The same function, its hidden units times ``factors`` (Dinh et al., 2017)."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(factors[:, None])
        other[0].bias.mul_(factors)
        other[2].weight.div_(factors)
    return other


def hidden(matrix, constant, start=None):
    """A quadratic with the loss ``constant`` at its minimum, that hides its outputs."""
    size = len(matrix)
    start = torch.ones(size, dtype=torch.float64) if start is None else start
    model = models.Quadratic(matrix, matrix @ start, start)
    lift = constant + (start @ matrix @ start).item() / 2
    return Objective(model, lambda m, x: m(x) + lift, [torch.zeros(1, 1, dtype=torch.float64)])


def test_identical_networks_are_undecided() -> None:
    model = trained()
    table = compare_widths({"a": of(model), "b": of(copy.deepcopy(model))})
    assert table.verdicts == {"b": "undecided"}
    for row in table.rows:
        assert row.estimates["a"].value == row.estimates["b"].value
        assert row.invariant == (row.measure not in RAW)
        verdict = row.verdicts["b"]
        assert verdict == "undecided" if row.invariant else verdict.startswith("not comparable because")
        low, high = row.intervals["a"]
        assert low <= row.estimates["a"].value <= high


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("match", ["loss", "temperature"])
@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_one_network_with_its_logits_scaled_is_undecided(factor, match, dtype) -> None:
    model = trained(dtype=dtype)
    table = compare_widths({"a": of(model, dtype), "b": of(scaled_logits(model, factor), dtype)}, match)
    assert abs(table.losses["a"] - table.losses["b"]) > 0.02
    assert table.matched_losses["a"] == pytest.approx(table.matched_losses["b"], rel=1e-5)
    assert table.scales["a"] == pytest.approx(table.scales["b"] * factor, rel=1e-3)
    assert {table.row(measure).verdicts["b"] for measure in INVARIANT} == {"undecided"}
    assert table.verdicts == {"b": "undecided"}


def test_unmatched_it_would_be_fooled_and_says_so() -> None:
    model = trained(steps=200)
    table = compare_widths({"a": of(scaled_logits(model, 0.2)), "b": of(model)}, None)
    assert table.scales == {"a": 1.0, "b": 1.0}
    assert {table.row(measure).verdicts["b"] for measure in INVARIANT} != {"undecided"}
    assert any("not matched" in caveat for caveat in table.caveats)


def test_relu_rescaling_of_layers_and_of_units() -> None:
    """Whole layers: every invariant measure. Single units: the element measures; the filter ones differ."""
    model = trained()
    layers = rescaled(model, torch.full((6,), 8.0, dtype=torch.float64))
    units = rescaled(model, torch.tensor([0.1, 1, 10, 0.5, 3, 7], dtype=torch.float64))
    table = compare_widths({"a": of(model), "layers": of(layers), "units": of(units)})
    assert {table.row(measure).verdicts["layers"] for measure in INVARIANT} == {"undecided"}
    assert {table.row(measure).verdicts["units"] for measure in ELEMENT} == {"undecided"}
    assert {table.row(measure).verdicts["units"] for measure in FILTER} != {"undecided"}
    assert table.verdicts == {"layers": "undecided", "units": "undecided"}
    raw = table.row("lambda_max").estimates
    assert abs(raw["layers"].value / raw["a"].value - 1) > 0.5


def test_values_are_those_of_the_dense_hessian() -> None:
    objective = of(trained())
    h, w = models.dense(objective), objective.vector()
    rows = objective.flat([row_lengths(p.detach()) for p in objective.parameters])
    assert rows[0].item() == pytest.approx(objective.model[0].weight[0].norm().item())
    assert rows[30].item() == pytest.approx(objective.model[0].bias[0].abs().item())
    table = compare_widths({"a": objective, "b": objective}, None, products=40)
    for kind, d in (("element", w.abs()), ("filter", rows)):
        matrix = d[:, None] * h * d
        top, summed = table.row(f"{kind}_lambda_max"), table.row(f"{kind}_trace").estimates["a"]
        largest = torch.linalg.eigvalsh(matrix)[-1].item()
        assert top.estimates["a"].value == pytest.approx(largest, rel=1e-6)
        assert top.intervals["a"][0] <= largest * (1 + 1e-12)
        assert summed.standard_error > 0
        assert abs(summed.value - matrix.trace().item()) < 4 * summed.standard_error
    exact = compare_widths({"a": objective, "b": objective}, None, products=objective.n).row("element_trace")
    assert exact.estimates["a"].value == pytest.approx((w**2 * h.diagonal()).sum().item())
    assert exact.estimates["a"].standard_error is None


@pytest.mark.parametrize("products", [10, 60])
def test_a_flatter_valley_of_the_same_loss_is_wider(products) -> None:
    """Hessians A and A/2 at the same weights; traces with an error, then without."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(20, 40, generator=generator, dtype=torch.float64)
    matrix = root @ root.T / 40
    networks = {"steep": hidden(matrix, 1.0), "flat": hidden(matrix / 2, 1.0), "steeper": hidden(2 * matrix, 1.005)}
    table = compare_widths(networks, products=products)
    assert table.verdicts == {"flat": "wider", "steeper": "narrower"}
    assert {table.row(measure).verdicts["flat"] for measure in INVARIANT} == {"wider"}
    assert any("logits" in caveat for caveat in table.caveats)
    text = str(table)
    assert "flat against steep: wider" in text
    assert all(row.measure in text for row in table.rows)


class Factors(nn.Module):
    """Logits (a · w · x, 0): one function by one factor more."""

    def __init__(self, w, a=None):
        super().__init__()
        self.w = nn.Parameter(w.clone())
        self.a = None if a is None else nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, inputs):
        margin = inputs @ self.w
        margin = margin if self.a is None else self.a * margin
        return torch.stack([margin, torch.zeros_like(margin)], 1)


@pytest.mark.parametrize("factor", [0.4, 5.0])
def test_the_same_function_by_more_factors_is_narrower_whatever_its_present_loss(factor) -> None:
    """D H D of the single layer is a principal block of that of the two, so that every invariant measure is smaller."""
    batches = [(inputs, targets % 2) for inputs, targets in models.data()]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    w = 0.1 * torch.linalg.lstsq(inputs, 1 - 2 * targets.double()).solution
    single, double = Objective(Factors(w), data=batches), Objective(Factors(w, factor), data=batches)
    table = compare_widths({"double": double, "single": single})
    assert (table.losses["double"] < table.losses["single"]) == (factor > 1)
    assert table.verdicts == {"single": "wider"}
    assert compare_widths({"single": single, "double": double}).verdicts == {"double": "narrower"}
    extra = table.row("element_trace").estimates["double"].value - table.row("element_trace").estimates["single"].value
    margin = table.scales["single"] * inputs @ w
    curvature = torch.sigmoid(margin) * torch.sigmoid(-margin)
    assert extra == pytest.approx((margin**2 * curvature).mean().item(), rel=1e-6)


def test_outputs_that_are_not_logits_are_not_scaled() -> None:
    def squared(out, batch):
        return ((out - nn.functional.one_hot(batch[1], 3)) ** 2).mean()

    one, other = (
        Objective(model, data=models.data(), outputs=lambda m, b: m(b[0]), criterion=squared)
        for model in (relu_network(), trained())
    )
    assert "not logits" in compare_widths({"a": one, "b": other}).verdicts["b"]


def test_targets_of_the_outputs_own_type() -> None:
    """Probabilities in float32, which cross_entropy refuses beside float64 logits."""
    model = trained(dtype=torch.float32)
    soft = [(x, nn.functional.one_hot(y, 3).float()) for x, y in models.data(dtype=torch.float32)]
    curves, hiding = temperatures({"soft": Objective(model, data=soft), "hard": of(model, torch.float32)})
    assert not hiding
    assert curves["soft"].optimum == pytest.approx(curves["hard"].optimum, rel=1e-3)


def test_errors_of_differences() -> None:
    """Paired traces tell 2 % apart where the intervals overlap; λ_max by too few products is known to its residual."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(20, 40, generator=generator, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))
    matrix = root @ root.T / 40
    networks = {"a": hidden(matrix, 1.0), "near": hidden(0.98 * matrix, 1.0), "turned": hidden(q @ matrix @ q.T, 1.0)}
    table = compare_widths(networks, products=8)
    summed, top = table.row("element_trace"), table.row("element_lambda_max")
    assert summed.intervals["near"][1] > summed.intervals["a"][0]
    assert summed.verdicts == {"near": "wider", "turned": "undecided"}
    assert abs(top.estimates["turned"].value / top.estimates["a"].value - 1) > 1e-5
    assert top.verdicts["turned"] == "undecided"


def test_measures_that_contradict_each_other_are_undecided() -> None:
    """A larger λ_max with a smaller trace."""
    one = torch.diag(torch.tensor([1.0, 1, 1, 1], dtype=torch.float64))
    other = torch.diag(torch.tensor([2.0, 0.1, 0.1, 0.1], dtype=torch.float64))
    table = compare_widths({"one": hidden(one, 1.0), "other": hidden(other, 1.0)})
    assert table.row("element_lambda_max").verdicts["other"] == "narrower"
    assert table.row("element_trace").verdicts["other"] == "wider"
    assert table.verdicts == {"other": "undecided"}


def test_other_losses_without_logits_are_not_comparable() -> None:
    matrix = torch.eye(3, dtype=torch.float64)
    table = compare_widths({"a": hidden(matrix, 1.0), "b": hidden(matrix / 2, 0.5), "c": hidden(matrix / 2, 1.001)})
    assert table.verdicts["b"].startswith("not comparable because its loss is 0.5")
    assert "outputs=" in table.verdicts["b"]
    assert table.row("element_trace").verdicts["b"] == table.verdicts["b"]
    assert table.verdicts["c"] == "wider"
    assert (
        compare_widths({"a": of(trained()), "b": hidden(matrix, 1.0)}, "temperature")
        .verdicts["b"]
        .startswith("not comparable because")
    )


def test_other_samples_are_not_comparable() -> None:
    model = trained()
    fewer = Objective(model, data=models.data()[:2])
    assert "18 samples, 'a' has 30" in compare_widths({"a": of(model), "b": fewer}).verdicts["b"]


class Logits(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, inputs):
        return inputs[:, None] * torch.stack([self.w, torch.zeros_like(self.w)])


def logits_of(weight, inputs, targets):
    """Logits (weight · input, 0)."""
    return Objective(Logits(weight), data=[(torch.tensor(inputs, dtype=torch.float64), torch.tensor(targets))])


def test_temperatures_in_closed_form() -> None:
    """Three of four right at margin m: L(s) = ¾ log(1 + e^(−sm)) + ¼ log(1 + e^(sm)), lowest where e^(sm) = 3."""
    networks = {"a": logits_of(4.0, [1.0] * 4, [0, 0, 0, 1]), "b": logits_of(0.5, [1.0] * 4, [0, 0, 0, 1])}
    curves, hiding = temperatures(networks)
    assert not hiding
    assert curves["a"].optimum == pytest.approx(math.log(3) / 4, rel=1e-9)
    assert curves["a"].zero == pytest.approx(math.log(2))
    # "a" is too confident, with a loss above log 2: only that of "b" can be matched, and "b" stays as it is. Alone, "a"
    # goes to its lowest loss.
    assert curves["a"].present > math.log(2)
    scales, because = matched_scales(curves, "loss")
    assert not because
    assert scales == pytest.approx({"a": 0.125, "b": 1.0}, rel=1e-9)
    assert matched_scales({"a": curves["a"]}, "loss")[0]["a"] == pytest.approx(math.log(3) / 4, rel=1e-6)
    assert matched_scales(curves, "temperature")[0] == pytest.approx({"a": math.log(3) / 4, "b": 2 * math.log(3)})


def test_temperatures_that_do_not_exist() -> None:
    networks = {
        "wrong": logits_of(1.0, [1.0] * 4, [1, 1, 1, 0]),
        "separated": logits_of(1.0, [1.0] * 4, [0, 0, 0, 0]),
        "poor": logits_of(1.0, [1.0] * 4, [0, 0, 0, 1]),
    }
    curves, _ = temperatures(networks)
    assert math.isinf(curves["separated"].optimum)
    assert set(matched_scales(curves, "loss")[1]) == {"wrong"}
    assert set(matched_scales(curves, "temperature")[1]) == {"wrong", "separated"}
    # With the separated one's loss as target the poor one cannot follow.
    unreachable = {
        "separated": curves["separated"],
        "poor": temperatures({"p": logits_of(9.0, [1.0] * 4, [0, 0, 0, 1])})[0]["p"],
    }
    assert set(matched_scales(unreachable, "loss")[1]) == {"poor"}


def test_networks_are_given_back() -> None:
    model = trained()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    told = []
    compare_widths({"a": of(model), "b": of(model)}, products=8, progress=lambda _, part: told.append(part))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert told[-1] == 1.0


def test_bad_input_is_refused() -> None:
    objective = models.objective()
    with pytest.raises(ValueError, match="two networks"):
        compare_widths({"a": objective})
    with pytest.raises(TypeError, match="'b' is a int"):
        compare_widths({"a": objective, "b": 3})
    for wrong in ({"match": "size"}, {"tolerance": -1.0}, {"radius": 0.0}, {"adaptive_radius": 0.0}, {"products": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            compare_widths({"a": objective, "b": objective}, **wrong)
    broken = models.network()
    with torch.no_grad():
        broken[0].weight.fill_(math.nan)
    with pytest.raises(ValueError, match="'b' cannot be measured: the loss is nan"):
        compare_widths({"a": objective, "b": of(broken)})
    with pytest.raises(ValueError, match="scaled: give outputs="):
        hidden(torch.eye(2, dtype=torch.float64), 1.0).tempered(2.0)
