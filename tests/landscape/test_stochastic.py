"""Minibatch samplers: their law on Gaussian targets, where it is known at any step, and their averages."""

import math

import pytest
import torch
from torch import nn

from widevalley.landscape import Objective
from widevalley.landscape.stochastic import polynomial_decay, preconditioned_sgld, santa, sghmc, sgld

N, BATCH, DIMENSIONS = 40, 10, 60
BETA, GAMMA = 40.0, 0.5
# Of U along each coordinate: f has 1, the Gaussian 0.5.
CURVATURE = BETA * 1.5


class Shuffled:
    """Batches of the same samples, in another order at each pass."""

    def __init__(self, samples, batch):
        self.samples, self.batch = samples, batch
        self.generator = torch.Generator().manual_seed(3)

    def __iter__(self):
        order = torch.randperm(len(self.samples), generator=self.generator)
        return iter(self.samples[order].split(self.batch))


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.full((DIMENSIONS,), 0.4, dtype=torch.float64))


SAMPLES = torch.randn(N, DIMENSIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
# Of ∇U in one coordinate, of a batch: the scatter of f's slopes, w − sample.
NOISE = float((BETA**2 * SAMPLES.var(dim=0, correction=0) / BATCH * (N - BATCH) / (N - 1)).mean())


def objective(samples=SAMPLES, batch=BATCH):
    """f = mean of ½ ‖w − sample‖²: DIMENSIONS independent Gaussians of variance 1/CURVATURE."""
    return Objective(Point(), lambda m, b: (m.w - b).square().sum(dim=1).mean() / 2, Shuffled(samples, batch))


EXACT = (SAMPLES.mean(dim=0) + 0.4 * GAMMA) / (1 + GAMMA)
STEP = 0.05 / CURVATURE
# Bias of the variance, as a share, that the docstrings state; batches of one pass cancel in part: it is a bound.
SHARES = {
    sgld: (1 + STEP * NOISE / 4) / (1 - STEP * CURVATURE / 4) - 1,
    sghmc: (1 + STEP * NOISE / 0.4) / (1 - STEP * CURVATURE / 3.6) - 1,
}


def moments(found):
    """Mean deviation and mean variance over the coordinates, with their standard errors from the coordinates."""
    deviation, variance = found.mean - EXACT, found.variance
    root = math.sqrt(DIMENSIONS)
    return (
        (float(deviation.mean()), float(deviation.std()) / root),
        (float(variance.mean()), float(variance.std()) / root),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "more"), [(sgld, {}), (sghmc, {"friction": 0.2})], ids=["sgld", "sghmc"])
def test_the_law_on_minibatches_is_the_target_up_to_the_stated_bias(sampler, more) -> None:
    found = sampler(objective(), GAMMA, BETA, steps=8000, burn_in=1000, step_size=STEP, **more)
    (mean, mean_error), (variance, variance_error) = moments(found)
    assert abs(mean) < 4 * mean_error
    excess = variance * CURVATURE - 1
    slack = 4 * variance_error * CURVATURE
    assert -slack < excess < SHARES[sampler] + slack
    assert slack < 0.25
    # The error of the mean is right: scores over the coordinates.
    scores = (found.mean - EXACT) / found.standard_error
    assert 0.6 < float(scores.square().mean().sqrt()) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "more"), [(sgld, {}), (sghmc, {"friction": 0.2})], ids=["sgld", "sghmc"])
def test_on_the_whole_data_the_law_is_known_at_any_step(sampler, more) -> None:
    """A long step: the variance is then that of the linear recursion, far from the target's."""
    step = 1.0 / CURVATURE
    found = sampler(objective(batch=N), GAMMA, BETA, steps=3000, burn_in=200, step_size=step, **more)
    share = 1 / (1 - 1 / 4) if sampler is sgld else 1 / (1 - 1 / 3.6)
    (mean, mean_error), (variance, variance_error) = moments(found)
    assert abs(mean) < 4 * mean_error
    assert abs(variance * CURVATURE - share) < 4 * variance_error * CURVATURE
    assert abs(variance * CURVATURE - 1) > 4 * variance_error * CURVATURE


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [preconditioned_sgld, santa])
def test_the_preconditioned_have_the_law_of_targets_of_unequal_scales(sampler) -> None:
    scales = torch.cat([torch.full((30,), 1.0), torch.full((30,), 10.0)]).double()
    measured = Objective(
        Point(), lambda m, b: (scales * (m.w - b).square()).sum(dim=1).mean() / 2, Shuffled(SAMPLES, BATCH)
    )
    curvature = BETA * (scales + GAMMA)
    exact = (scales * SAMPLES.mean(dim=0) + 0.4 * GAMMA) / (scales + GAMMA)
    # Of V, the mean square of the mean gradient, where the noise of batches rules: the steps then compare.
    noise = NOISE / BETA**2 * scales**2
    step = 2e-3 if sampler is preconditioned_sgld else 2e-5
    more = {"friction": 0.2} if sampler is santa else {}
    found = sampler(measured, GAMMA, BETA, steps=8000, burn_in=1500, step_size=step, **more)
    for part in (slice(0, 30), slice(30, 60)):
        variance = (found.variance * curvature)[part]
        deviation = ((found.mean - exact) / found.standard_error)[part]
        slack = 4 * float(variance.std()) / math.sqrt(30)
        v, h = float(noise[part].mean()), float(curvature[part].mean())
        if sampler is preconditioned_sgld:
            low, high = 0.0, step / math.sqrt(v) * (BETA**2 * v / 4 + h / 3)
        else:
            low, high = -step * BETA**2 * math.sqrt(v) / 0.4, step * h / math.sqrt(v)
        assert low - slack - 0.02 < float(variance.mean()) - 1 < high + slack + 0.02
        assert slack < 0.3
        assert float(deviation.square().mean().sqrt()) < 1.7


def test_averages_are_weighted_by_the_steps() -> None:
    """The last step is so long that it alone counts."""
    steps = 60
    found = sgld(objective(), GAMMA, 1.0, steps=steps, step_size=lambda t: 1e-12 if t < steps - 1 else 1e-2)
    torch.testing.assert_close(found.mean, found.last, rtol=0, atol=1e-8)


def test_falling_steps_take_the_bias_away() -> None:
    decay = polynomial_decay(2.0 / CURVATURE, 20.0, 0.6)
    assert decay(0) == pytest.approx(2.0 / CURVATURE)
    assert decay(20) == pytest.approx(2.0 / CURVATURE * 2**-0.6)
    fixed, falling = (
        sgld(objective(batch=N), GAMMA, BETA, steps=3000, burn_in=100, step_size=step) for step in (decay(0), decay)
    )
    (_, _), (long, long_error) = moments(fixed)
    (_, _), (short, short_error) = moments(falling)
    # 1/(1 − 2/4) for ever, and falling to 1.
    assert abs(long * CURVATURE - 2) < 4 * long_error * CURVATURE
    assert short * CURVATURE + 4 * short_error * CURVATURE < 1.4


def test_ragged_batches_pull_to_the_mean_over_samples() -> None:
    """In the limit of no temperature and a short step, the chain ends at the minimum, whatever the batches' sizes."""

    class Ragged:
        def __iter__(self):
            return iter(SAMPLES.split([31, 3, 6]))

    measured = Objective(Point(), lambda m, b: (m.w - b).square().sum(dim=1).mean() / 2, Ragged())
    found = sgld(measured, 0.0, 1e8, steps=3000, burn_in=1500, step_size=1e-10)
    torch.testing.assert_close(found.mean, SAMPLES.mean(dim=0), rtol=0, atol=0.02)


def test_the_model_is_left_alone_and_the_seed_decides() -> None:
    measured = objective(batch=N)
    before, state = measured.vector(), torch.get_rng_state()
    first, second, third = (sghmc(measured, 1.0, steps=50, step_size=1e-3, seed=s) for s in (0, 0, 1))
    torch.testing.assert_close(first.mean, second.mean)
    assert not torch.equal(first.mean, third.mean)
    assert torch.equal(measured.vector(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.gradients == 50


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gamma": -1.0}, "gamma=-1.0"),
        ({"inverse_temperature": 0.0}, "inverse_temperature=0.0"),
        ({"step_size": 0.0}, "step_size at step 0=0.0"),
        ({"steps": 30}, "too few for an error: give at least 40 more"),
        ({"step_size": 1e3}, "take a smaller step_size"),
    ],
)
def test_bad_arguments_are_refused(changes, says: str) -> None:
    arguments = {"gamma": 1.0, "inverse_temperature": 1.0, "steps": 400, "step_size": 1e-3, **changes}
    with pytest.raises(ValueError, match=says):
        sgld(objective(), **arguments)
    with pytest.raises(ValueError, match=r"power=0\.5"):
        polynomial_decay(1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="burn_in=0"):
        santa(objective(), 1.0, steps=400, step_size=1e-3, burn_in=0)
    with pytest.raises(ValueError, match=r"friction=0\.0"):
        sghmc(objective(), 1.0, steps=400, step_size=1e-3, friction=0.0)
