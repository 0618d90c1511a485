"""Moving to the centre and back, ending a cycle early, and the weights to ship."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, entropy_sgd, growing, snapshot, train
from torch import Tensor, nn

from widevalley import EntropySGD, NestedOptimizer, center_state_dict

RHO = 0.3
# Past a cycle of INNER_STEPS + 1, so that x is not where it began; then each position, the one waiting for ρ too.
CALLS = range(10, 10 + INNER_STEPS + 1)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def at_each_position(name: str, **changes: Any) -> Iterator[tuple[Network, NestedOptimizer, dict[str, Tensor]]]:
    """A run stopped at each position of its second cycle, and x: what the parameters held as the cycle began."""
    for position in range(INNER_STEPS + 1):
        model = Network(**{k: changes[k] for k in ("dtype",) if k in changes})
        optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO, **{k: v for k, v in changes.items() if k != "dtype"})
        train(model, optimizer, CALLS)
        assert optimizer.cycle_position == 0
        x = values(model)
        train(model, optimizer, range(20, 20 + position))
        assert optimizer.cycle_position == position
        yield model, optimizer, x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_at_center_shows_x_and_gives_x_prime_back(name: str, dtype: torch.dtype) -> None:
    moved = []
    for model, optimizer, x in at_each_position(name, dtype=dtype):
        x_prime, position = values(model), optimizer.cycle_position
        pointers = [p.data_ptr() for p in model.parameters()]
        with optimizer.at_center():
            assert_same(values(model), x)
            assert [p.data_ptr() for p in model.parameters()] == pointers
            assert optimizer.cycle_position == position
        assert_same(values(model), x_prime)
        assert [p.data_ptr() for p in model.parameters()] == pointers
        moved.append(not torch.equal(x_prime["first"], x["first"]))
    assert moved == [False, *[True] * (INNER_STEPS - 1), False]


@pytest.mark.parametrize("rho", [0.0, RHO])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_visits_do_not_change_the_run(name: str, rho: float) -> None:
    model, undisturbed = Network(), Network()
    optimizer, undisturbed_optimizer = (OPTIMIZERS[name](m.parameters(), rho=rho) for m in (model, undisturbed))
    for call in range(11):
        with optimizer.at_center():
            model(torch.ones(1, 3)).sum().backward()
        train(model, optimizer, [call])
        optimizer.eval()
        optimizer.train()
        train(undisturbed, undisturbed_optimizer, [call])
        assert_same(snapshot(model, optimizer), snapshot(undisturbed, undisturbed_optimizer))


def fail_at_the_center(model: nn.Module, optimizer: NestedOptimizer, x: Any, error: type[BaseException]) -> None:
    with optimizer.at_center():
        assert_same(values(model), x)
        raise error


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_an_exception_inside_brings_x_prime_back(error: type[BaseException]) -> None:
    for model, optimizer, x in at_each_position("sgd"):
        before, x_prime = snapshot(model, optimizer), values(model)
        with pytest.raises(error):
            fail_at_the_center(model, optimizer, x, error)
        assert_same(values(model), x_prime)
        assert_same(snapshot(model, optimizer), before)


def test_what_is_changed_inside_is_discarded() -> None:
    for model, optimizer, x in at_each_position("sgd, outer momentum"):
        before = snapshot(model, optimizer)
        with optimizer.at_center(), torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)
        assert_same(snapshot(model, optimizer), before)
        with optimizer.at_center():
            assert_same(values(model), x)


def test_nesting() -> None:
    for model, optimizer, x in at_each_position("sgd"):
        x_prime = values(model)
        with optimizer.at_center():
            with optimizer.at_center():
                assert_same(values(model), x)
            assert_same(values(model), x)
            with pytest.raises(ArithmeticError), optimizer.at_center():
                raise ArithmeticError
            assert_same(values(model), x)
        assert_same(values(model), x_prime)


def test_eval_and_train_are_idempotent() -> None:
    for model, optimizer, x in at_each_position("sgd"):
        x_prime = values(model)
        for _ in range(2):
            optimizer.eval()
            assert_same(values(model), x)
        for _ in range(2):
            optimizer.train()
            assert_same(values(model), x_prime)


def test_at_center_within_eval_and_eval_within_at_center() -> None:
    for model, optimizer, x in at_each_position("sgd"):
        x_prime = values(model)
        optimizer.eval()
        with optimizer.at_center():
            assert_same(values(model), x)
        assert_same(values(model), x)
        with optimizer.at_center():
            optimizer.train()
            assert_same(values(model), x)
        assert_same(values(model), x_prime)
        with optimizer.at_center():
            optimizer.eval()
        assert_same(values(model), x)
        optimizer.train()
        assert_same(values(model), x_prime)


@pytest.mark.parametrize("call", [lambda o: o.step(), lambda o: o.close_cycle()], ids=["step", "close_cycle"])
@pytest.mark.parametrize("evaluating", [False, True])
def test_stepping_at_the_center_is_refused(call: Callable[[NestedOptimizer], None], evaluating: bool) -> None:
    for model, optimizer, x in at_each_position("sgd"):
        x_prime = values(model)
        if evaluating:
            optimizer.eval()
        with nullcontext() if evaluating else optimizer.at_center():
            model(torch.ones(1, 3)).sum().backward()
            before = snapshot(model, optimizer)
            with pytest.raises(RuntimeError, match=r"centre.*train\(\)"):
                call(optimizer)
            assert_same(snapshot(model, optimizer), before)
            assert_same(values(model), x)
        optimizer.train()
        assert_same(values(model), x_prime)
        optimizer.step()


def test_a_refused_step_does_not_call_its_closure() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    called = []
    with optimizer.at_center(), pytest.raises(RuntimeError, match="centre"):
        optimizer.step(lambda: called.append(1))
    assert not called


def test_batchnorm_buffers_are_left_alone() -> None:
    """Statistics of x′ stay where they are; those gathered inside by the caller's own forward passes are kept too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = EntropySGD(model.parameters(), 0.1, inner_steps=3)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        statistics = {name: b.clone() for name, b in model.named_buffers()}
        x_prime = values(model)
        with optimizer.at_center():
            assert_same(dict(model.named_buffers()), statistics)
            model.eval()
            model(torch.randn(8, 3))
            model.train()
        assert_same(dict(model.named_buffers()), statistics)
        assert_same(values(model), x_prime)
    with optimizer.at_center():
        model(torch.randn(8, 3))
        gathered = {name: b.clone() for name, b in model.named_buffers()}
    assert_same(dict(model.named_buffers()), gathered)


# f(p) = p, x = 0, η′ = ½, γ = 1, α = ½, η = ½. Step 1: x′ = −1/2, μ = −1/4. Step 2: x′ = −1/2 − ½(1 − 1/2) = −3/4,
# μ = −1/8 − 3/8 = −1/2. Step 3: x′ = −3/4 − ½(1 − 3/4) = −7/8, μ = −1/4 − 7/16 = −11/16. All exact in binary.
AVERAGES = {0: 0.0, 1: -1 / 4, 2: -1 / 2, 3: -11 / 16}


@pytest.mark.parametrize("rho", [0.0, 5.0])
@pytest.mark.parametrize("pull", [1.0, None, 0.5])
@pytest.mark.parametrize("position", [1, 2, 3])
def test_closing_a_cycle_by_hand(position: int, pull: float | None, rho: float) -> None:
    """x ← x − η c(x − μ), with no term of ρ; L is 4, so that no cycle ends by itself, or 3 and waiting for ρ."""
    p = nn.Parameter(torch.zeros(2))
    optimizer = EntropySGD(
        [p], 0.5, inner_steps=3 if rho else 4, gamma=1.0, alpha=0.5, outer_lr=0.5, pull=pull, rho=rho, restart=False,
        temperature=0.0,
    )  # fmt: skip
    for _ in range(position):
        p.grad = torch.ones(2)
        optimizer.step()
    assert optimizer.cycle_position == position
    assert torch.equal(optimizer.state[p]["average"], torch.full((2,), AVERAGES[position]))
    optimizer.close_cycle()
    c = 1.0 if pull is None else pull  # None: c = γ
    assert torch.equal(p.detach(), torch.full((2,), 0.5 * c * AVERAGES[position]))
    assert (optimizer.cycle_position, optimizer.outer_updates) == (0, 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_closing_a_cycle_at_every_position(name: str) -> None:
    for model, optimizer, x in at_each_position(name):
        before, position = snapshot(model, optimizer), optimizer.cycle_position
        assert optimizer.outer_updates == 1
        optimizer.close_cycle()
        if position == 0:
            assert_same(snapshot(model, optimizer), before)
            continue
        assert (optimizer.cycle_position, optimizer.outer_updates) == (0, 2)
        new_x = values(model)
        assert not torch.equal(new_x["first"], x["first"])
        for p in model.parameters():
            assert torch.equal(optimizer.state[p]["center"], p)
            assert torch.equal(optimizer.state[p]["average"], p)
        with optimizer.at_center():
            assert_same(values(model), new_x)
        # The next cycle is a whole one, with γ of the new t.
        assert optimizer.param_groups[0]["gamma"] == growing(2)
        train(model, optimizer, range(30, 30 + optimizer.cycle_length))
        assert (optimizer.cycle_position, optimizer.outer_updates) == (0, 3)


def test_closing_twice_is_closing_once() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    train(model, optimizer, [10])
    optimizer.close_cycle()
    before = snapshot(model, optimizer)
    optimizer.close_cycle()
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_center_state_dict_is_the_state_at_x(name: str, dtype: torch.dtype) -> None:
    for model, optimizer, x in at_each_position(name, dtype=dtype):
        before = snapshot(model, optimizer)
        saved = center_state_dict(model, optimizer)
        assert_same(dict(saved), x)
        assert_same(snapshot(model, optimizer), before)
        fresh = Network(1, dtype)
        assert fresh.load_state_dict(saved).missing_keys == []
        assert_same(values(fresh), x)
        # Clones: neither side sees what becomes of the other.
        for value in saved.values():
            assert not value.requires_grad
            value.zero_()
        assert_same(snapshot(model, optimizer), before)


def test_center_state_dict_in_eval_mode() -> None:
    for model, optimizer, x in at_each_position("sgd"):
        optimizer.eval()
        assert_same(dict(center_state_dict(model, optimizer)), x)
        assert_same(values(model), x)


class Versioned(nn.Module):
    """Has what a module may put beside tensors into a state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = {"classes": [1, 2]}

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def test_center_state_dict_has_buffers_metadata_and_extra_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Versioned())
    optimizer = EntropySGD(model.parameters(), 0.1, inner_steps=3)
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
    saved = center_state_dict(model, optimizer)
    assert list(saved) == list(model.state_dict())
    assert saved._metadata == model.state_dict()._metadata
    assert_same({name: saved[name] for name, _ in model.named_buffers()}, dict(model.named_buffers()))
    model(torch.randn(8, 3))
    assert saved["1.num_batches_tracked"] == 1
    model[2].extra["classes"].append(3)
    assert saved["2._extra_state"] == {"classes": [1, 2]}


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.embedding(tokens))


def test_center_state_dict_of_tied_weights() -> None:
    torch.manual_seed(0)
    model, fresh = Tied(), Tied()
    optimizer = EntropySGD(model.parameters(), 0.1, inner_steps=3)
    x = model.embedding.weight.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.arange(5)).square().mean().backward()
        optimizer.step()
    saved = center_state_dict(model, optimizer)
    assert set(saved) == {"embedding.weight", "output.weight"}
    fresh.load_state_dict(saved)
    assert fresh.output.weight is fresh.embedding.weight
    assert torch.equal(fresh.output.weight, x)
    assert not torch.equal(model.output.weight, x)


def test_a_move_that_fails_half_way_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when there is no memory for the second parameter's x′."""
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    train(model, optimizer, range(5))
    before = snapshot(model, optimizer)
    clones = iter([True, False])
    clone = Tensor.clone

    def scarce(tensor: Tensor, **options: Any) -> Tensor:
        if not next(clones, True):
            raise MemoryError
        return clone(tensor, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "clone", scarce)
        with pytest.raises(MemoryError), optimizer.at_center():
            pass
    assert_same(snapshot(model, optimizer), before)
