"""What a comparison would cost, before it is run."""

import pytest
import quick
import torch

from widevalley.experiments.estimate import Cost, estimate
from widevalley.experiments.train import EVALUATIONS


def test_minutes_are_those_of_gradients_evaluations_endings_and_widths() -> None:
    cost = Cost("sgd", 7, 1000, 0.06, 2.0, 30.0, 3, 40.0)
    assert cost.minutes == pytest.approx((1000 * 0.06 + 7 * (EVALUATIONS + 1) * 2.0 + 3 * (30.0 + 40.0)) / 60)


def test_runs_and_gradients_are_the_plans_and_nothing_is_disturbed() -> None:
    plan = quick.plan("sgd", "sam", seeds=2, rates=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    costs = estimate(plan, quick.digits())
    assert torch.equal(torch.get_rng_state(), before)
    for cost, method in zip(costs, plan.methods, strict=True):
        # Three rates of one epoch, and two seeds of two, of 17 gradients each.
        assert (cost.method, cost.runs, cost.finals, cost.gradients) == (method.name, 5, 2, 3 * 17 + 2 * 34)
        assert min(cost.seconds_per_gradient, cost.seconds_per_evaluation, cost.seconds_per_ending) > 0
        assert cost.seconds_per_widths > 0
