"""The rivals at work: what they average, where they are evaluated, what their steps are, against equations by hand."""

import itertools
import math

import pytest
import quick
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from widevalley.experiments import averages, memory
from widevalley.experiments.ablations import ABLATIONS
from widevalley.experiments.learner import Learner
from widevalley.experiments.methods import METHODS
from widevalley.optim.chain import Chain
from widevalley.optim.entropy import EntropySGD

STEPS = 40
INPUTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 3


def learner(name: str, lr: float = 0.1, steps: int = STEPS) -> Learner:
    torch.manual_seed(0)
    return Learner(METHODS[name], nn.Linear(4, 3), lr, 0, steps)


def weights_after_each_step(trained: Learner, steps: int = STEPS) -> list[torch.Tensor]:
    found = []
    for _ in range(steps):
        trained.step(INPUTS, TARGETS)
        found.append(trained.model.weight.detach().clone())
    return found


def evaluated(trained: Learner) -> torch.Tensor:
    with trained.evaluated() as model:
        return model.weight.detach().clone()


def test_swa_is_the_mean_of_the_weights_in_the_last_quarter() -> None:
    trained = learner("swa")
    path = weights_after_each_step(trained)
    # 40 steps: from the 30th on, every one, since (40 − 30) // 24 is less than 1.
    torch.testing.assert_close(evaluated(trained), torch.stack(path[29:]).mean(0))
    assert torch.equal(trained.model.weight, path[-1])


def test_before_its_first_sample_swa_is_evaluated_at_the_weights() -> None:
    trained = learner("swa")
    path = weights_after_each_step(trained, 20)
    assert torch.equal(evaluated(trained), path[-1])


def test_swa_takes_some_25_samples_of_a_long_run() -> None:
    average = averages.swa(nn.Linear(1, 1), 10_000)
    model = nn.Linear(1, 1)
    for step in range(1, 10_001):
        average.after_step(step, model)
    assert int(average.model.n_averaged) == averages.SWA_SAMPLES


def test_the_rate_of_swa_falls_to_half_and_stays() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule = averages.swa_schedule(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.2
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    # Half way to step 75 along the cosine.
    assert rates[37] == pytest.approx(0.1 + 0.1 * (1 + math.cos(math.pi * 37 / 75)) / 2)
    assert rates[75:] == pytest.approx([0.1] * 25)


def test_ema_is_the_exponential_average() -> None:
    trained = learner("ema", steps=200)
    path = weights_after_each_step(trained)
    expected = path[0]
    for w in path[1:]:
        expected = 0.75 * expected + 0.25 * w  # horizon: 0.02 * 200 = 4 steps
    torch.testing.assert_close(evaluated(trained), expected)


def gradient(w: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(INPUTS @ w.T + b, TARGETS), [w, b])


def test_sam_steps_along_the_gradient_at_the_top_of_the_ball() -> None:
    """Foret et al., Eqs. 2 and 3: ε = 0.05 ∇f/‖∇f‖, the step is along ∇f(w + ε), 1.9 times for Nesterov's first."""
    trained = learner("sam")
    w, b = (p.detach().clone() for p in trained.model.parameters())
    gw, gb = gradient(w, b)
    norm = (gw.square().sum() + gb.square().sum()).sqrt()
    top_w, top_b = gradient(w + 0.05 * gw / norm, b + 0.05 * gb / norm)
    trained.step(INPUTS, TARGETS)
    torch.testing.assert_close(trained.model.weight.detach(), w - 0.1 * 1.9 * top_w)
    torch.testing.assert_close(trained.model.bias.detach(), b - 0.1 * 1.9 * top_b)


def test_sam_takes_two_gradients_a_step_and_the_others_one() -> None:
    for name, method in METHODS.items():
        calls = 0

        class Counting(nn.Linear):
            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                nonlocal calls
                calls += 1
                return super().forward(inputs)

        Learner(method, Counting(4, 3), 0.01, 0, STEPS).step(INPUTS, TARGETS)
        assert calls == method.gradients_per_step == (2 if name == "sam" else 1)


def test_a_step_that_takes_all_its_gradients_takes_no_other() -> None:
    (perturbed,) = (each for each in ABLATIONS if each.name == "perturbed")
    method = perturbed.candidates[0].method
    trained, looks = Learner(method, nn.Linear(4, 3), 0.01, 0, STEPS), []
    for _ in range(3):
        trained.step(INPUTS, TARGETS, lambda: looks.append(1))
    assert trained.optimizer.gradients == 3 * method.gradients_per_step == 15
    assert not looks


def test_lookahead_is_evaluated_at_its_slow_weights() -> None:
    trained = learner("lookahead")
    start = trained.model.weight.detach().clone()
    path = weights_after_each_step(trained, 4)
    assert torch.equal(evaluated(trained), start)
    assert torch.equal(trained.model.weight, path[-1])
    weights_after_each_step(trained, 1)
    assert torch.equal(evaluated(trained), trained.model.weight)
    assert not torch.equal(evaluated(trained), start)


def test_schedule_free_is_evaluated_at_the_average_of_its_fast_weights() -> None:
    """Defazio et al., Eqs. 3 to 5: x = mean of z after the warm-up, here none: y holds the parameters."""
    trained = learner("schedule-free", steps=10)  # 10 // 20 steps of warm-up
    z = []
    for _ in range(6):
        trained.step(INPUTS, TARGETS)
        z.append(trained.optimizer.state[trained.model.weight]["z"].clone())
    y = trained.model.weight.detach().clone()
    torch.testing.assert_close(evaluated(trained), torch.stack(z).mean(0))
    torch.testing.assert_close(y, 0.1 * z[-1] + 0.9 * torch.stack(z).mean(0))
    assert torch.equal(trained.model.weight, y)


def test_every_learner_gives_its_parameters_back_after_an_evaluation_bit_for_bit() -> None:
    for name, method in METHODS.items():
        trained = learner(name, method.learning_rates[2])
        weights_after_each_step(trained, 13)
        before = {key: value.clone() for key, value in trained.model.state_dict().items()}
        with pytest.raises(KeyError), trained.evaluated():
            raise KeyError
        for key, value in trained.model.state_dict().items():
            assert torch.equal(value, before[key]), name


def test_the_chain_on_a_parabola() -> None:
    """f = h x′²/2 and no momentum: x′ − x and the ratios by iteration of x′ ← x′ − η′(h x′ + γ(x′ − x))."""
    h, lr, gamma, temperature, steps = 2.0, 0.1, 0.5, 0.01, 5
    x = torch.tensor([3.0, -4.0])
    p = nn.Parameter(x.clone())
    optimizer = EntropySGD([p], lr, inner_steps=steps, gamma=gamma, temperature=0.0)
    chain = Chain(optimizer)
    for _ in range(steps):
        assert chain.latest["displacement"] is None
        optimizer.zero_grad()
        (h * p.square().sum() / 2).backward()
        for group in optimizer.param_groups:
            # The noise that there would be: drawing it would blur the iteration.
            group["temperature"] = temperature if optimizer.cycle_position == steps - 1 else 0.0
        chain.look()
        optimizer.step()
    x_prime = x.clone()
    for _ in range(steps - 1):
        x_prime = x_prime - lr * (h * x_prime + gamma * (x_prime - x))
    distance, slope = (x_prime - x).norm().item(), h * x_prime.norm().item()
    assert chain.latest["displacement"] == pytest.approx(distance)
    assert chain.latest["pull_to_gradient"] == pytest.approx(gamma * distance / slope)
    assert chain.latest["noise_to_gradient"] == pytest.approx(math.sqrt(2 * lr * temperature * 2) / (lr * slope))


def test_memory_of_a_network_that_is_one_matrix() -> None:
    """A 1000 × 1000 matrix: 4 MB of weights, as much of momentum, as much of gradient while a step is taken."""
    matrix = 4_000_000
    inputs, targets = torch.zeros(2, 1000), torch.zeros(2, dtype=torch.long)
    for name, copies in {"sgd": 2, "adam": 3, "swa": 3, "sam": 2}.items():
        spare = Learner(METHODS[name], nn.Linear(1000, 1000, bias=False), 0.01, 0, STEPS)
        found = memory.measure(spare, inputs, targets)
        assert copies * matrix <= found["state_bytes"] < copies * matrix + 100
        # SAM's copy of the weights lives within its step, beside the gradient and the perturbation.
        least, most = (2, 4) if name == "sam" else (1, 1)
        assert least * matrix <= found["gradient_bytes"] < most * matrix + 200_000


def test_a_score_of_rows_of_targets() -> None:
    """Logits (n, classes, positions): 2 rows of 3 targets, one wrong in the second."""

    class Fixed(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs

    from widevalley.experiments.data import Split
    from widevalley.experiments.evaluation import score

    targets = torch.tensor([[0, 1, 1], [1, 0, 0]])
    logits = torch.zeros(2, 2, 3).scatter_(1, targets.unsqueeze(1), 2.0)
    logits[1, :, 2] = torch.tensor([0.0, 2.0])
    found = score(Fixed(), Split(logits, targets), batch_size=1)
    right, wrong = math.log1p(math.exp(-2.0)), math.log1p(math.exp(2.0))
    assert found.wrong == (0, 1)
    assert found.error == pytest.approx(100 / 6)
    assert found.loss == pytest.approx((5 * right + wrong) / 6)
    assert score(quick.network().eval(), quick.digits().test).wrong.count(1) > 180
