"""Batch-norm statistics re-estimated at the present weights, and everything else as it was."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lifecycle import assert_same
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from widevalley import update_batchnorm


class Dense(nn.Module):
    """Dropout and batch-norm in turns, one layer of momentum None and one used twice."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(4, 4, generator=generator)) for _ in range(3)])
        self.dropout = nn.Dropout(dropout)
        self.first, self.second = nn.BatchNorm1d(4, momentum=0.3), nn.BatchNorm1d(4, momentum=None)
        self.twice = nn.BatchNorm1d(4, affine=False)

    def forward(self, inputs: Tensor, scale: float = 1.0) -> Tensor:
        x = self.first(self.dropout(inputs) @ self.weights[0]).relu() * scale
        x = self.second(self.dropout(x) @ self.weights[1]).relu()
        return self.twice(self.twice(x @ self.weights[2]).tanh())


class Convolutional(nn.Sequential):
    def __init__(self, dimensions: int) -> None:
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
        generator = torch.Generator().manual_seed(1)
        layers = [convolution(2, 3, 2), norm(3), nn.ReLU(), convolution(3, 2, 1), norm(2)]
        with torch.no_grad():
            for layer in (layers[0], layers[3]):
                for p in layer.parameters():
                    p.copy_(torch.randn(p.shape, generator=generator))
        super().__init__(*layers)


def batches(*sizes: int, shape: tuple[int, ...] = (4,)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(sizes))
    return [torch.randn(n, *shape, generator=generator) * (1 + i) + i for i, n in enumerate(sizes)]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in model.named_buffers() if "running" in name}


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (Dense, (4,)),
    "1d": (lambda: Convolutional(1), (2, 6)),
    "2d": (lambda: Convolutional(2), (2, 4, 5)),
    "3d": (lambda: Convolutional(3), (2, 3, 4, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_equal_batches_without_dropout_are_torchs_own_update(name: str) -> None:
    make, shape = MODELS[name]
    ours, torchs = make(), make()
    data = batches(8, 8, 8, shape=shape)
    update_batchnorm(ours, data)
    update_bn(data, torchs)
    torch.testing.assert_close(statistics(ours), statistics(torchs))
    assert not torch.equal(next(iter(statistics(ours).values())), next(iter(statistics(make()).values())))


def test_what_was_estimated_before_plays_no_part() -> None:
    fresh, used = Dense(), Dense()
    update_batchnorm(used, [batch + 50 for batch in batches(8, 8)])
    for model in (fresh, used):
        update_batchnorm(model, batches(6, 6))
    assert_same(statistics(used), statistics(fresh))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 2)])
def test_ragged_batches_count_by_their_size(shape: tuple[int, ...]) -> None:
    model = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](3)
    data = batches(10, 7, 2, shape=shape)
    update_batchnorm(model, data)
    flat = [batch.movedim(1, -1).reshape(-1, 3) for batch in data]
    weights = torch.tensor([len(batch) / sum(map(len, data)) for batch in data])
    torch.testing.assert_close(model.running_mean, torch.cat(flat).mean(dim=0))
    variances = torch.stack([values.var(dim=0, unbiased=True) for values in flat])
    torch.testing.assert_close(model.running_var, (weights[:, None] * variances).sum(dim=0))


def test_dropout_is_off() -> None:
    dropping, plain = Dense(dropout=0.5), Dense(dropout=0.0)
    for model in (dropping.train(), plain.train()):
        update_batchnorm(model, batches(8, 5))
    assert_same(statistics(dropping), statistics(plain))


def random_states() -> Any:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.random.get_rng_state(), random.getstate(), kind, keys.tolist(), rest]


def everything_else(model: nn.Module) -> Any:
    return copy.deepcopy(
        [
            {name: module.training for name, module in model.named_modules()},
            {name: module.momentum for name, module in model.named_modules() if hasattr(module, "momentum")},
            dict(model.named_parameters()),
            [p.grad for p in model.parameters()],
            [p.requires_grad for p in model.parameters()],
            [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
            random_states(),
        ]
    )


def used_model() -> Dense:
    """In mixed modes, with gradients, statistics that are no longer the initial ones, and a frozen parameter."""
    model = Dense(dropout=0.5)
    model(batches(8)[0]).sum().backward()
    model.weights[0].requires_grad_(False)
    model.train()
    model.second.eval()
    model.dropout.eval()
    return model


def shuffled() -> DataLoader:
    return DataLoader(TensorDataset(batches(24)[0]), batch_size=8, shuffle=True)


@pytest.mark.parametrize("loader", [lambda: batches(8, 5), shuffled, lambda: iter(batches(8, 5))])
def test_all_else_is_as_before(loader: Callable[[], Any]) -> None:
    model = used_model()
    data = loader()
    gradients = [p.grad for p in model.parameters()]
    before, statistics_before = everything_else(model), statistics(model)
    update_batchnorm(model, data)
    assert_same(everything_else(model), before)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert not torch.equal(statistics(model)["first.running_mean"], statistics_before["first.running_mean"])
    assert not torch.equal(statistics(model)["second.running_mean"], statistics_before["second.running_mean"])


class Interrupted(Exception):
    pass


def failing_loader() -> Iterator[Tensor]:
    yield batches(8)[0]
    torch.rand(1)
    random.random()
    np.random.rand()  # noqa: NPY002
    raise Interrupted


def test_after_an_exception_in_the_loader_the_statistics_too_are_as_before() -> None:
    model = used_model()
    state = [random.getstate(), np.random.get_state()]  # noqa: NPY002
    before, buffers = everything_else(model), copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(Interrupted):
        update_batchnorm(model, failing_loader())
    # The loader's own use of Python's and numpy's generators is the loader's business.
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    assert_same(everything_else(model), before)
    assert_same(dict(model.named_buffers()), buffers)


def test_after_an_exception_in_the_model_the_statistics_too_are_as_before() -> None:
    model = used_model()
    before, buffers = everything_else(model), copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(RuntimeError):
        update_batchnorm(model, [batches(8)[0], torch.zeros(3, 99)])
    assert_same(everything_else(model), before)
    assert_same(dict(model.named_buffers()), buffers)


def test_an_empty_loader_does_not_wipe_the_statistics() -> None:
    model = used_model()
    before, buffers = everything_else(model), copy.deepcopy(dict(model.named_buffers()))
    with pytest.raises(ValueError, match="loader"):
        update_batchnorm(model, [])
    assert_same(everything_else(model), before)
    assert_same(dict(model.named_buffers()), buffers)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda batch: (batch, torch.zeros(len(batch))),
        lambda batch: [batch, "label"],
        lambda batch: {"inputs": batch},
        lambda batch: {"inputs": batch, "scale": 1.0},
    ],
    ids=["tuple", "list", "dictionary", "dictionary of two"],
)
def test_kinds_of_batches(wrap: Callable[[Tensor], Any]) -> None:
    expected, model = Dense(), Dense()
    update_batchnorm(expected, batches(8, 5))
    update_batchnorm(model, [wrap(batch) for batch in batches(8, 5)])
    assert_same(statistics(model), statistics(expected))


def test_a_dictionary_is_passed_whole() -> None:
    one, two = Dense(), Dense()
    update_batchnorm(one, [{"inputs": batch, "scale": 1.0} for batch in batches(8)])
    update_batchnorm(two, [{"inputs": batch, "scale": 3.0} for batch in batches(8)])
    assert torch.equal(one.first.running_mean, two.first.running_mean)
    torch.testing.assert_close(3 * one.second.running_mean, two.second.running_mean)


def test_a_model_without_batch_norm_is_left_alone() -> None:
    """And the loader is not even opened: a pass over the data costs time."""

    def loader() -> Iterator[Tensor]:
        raise Interrupted
        yield

    for model in (nn.Linear(4, 2), nn.BatchNorm1d(4, track_running_stats=False)):
        before = copy.deepcopy(model.state_dict())
        update_batchnorm(model, loader())
        assert_same(model.state_dict(), before)


def test_evaluation_uses_the_new_statistics() -> None:
    """At the end, a batch that is the whole data is normalised to mean 0 and variance 1."""
    model = nn.BatchNorm1d(4).eval()
    (data,) = batches(200)
    update_batchnorm(model, [3 * data + 5])
    assert not model.training
    normalised = model(3 * data + 5)
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.var(dim=0), torch.ones(4), rtol=0, atol=1e-4)


def test_a_last_batch_of_one_sample_passes_without_counting() -> None:
    """One value a channel has no variance: torch refuses it in training mode."""
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), torch.randn(9, 3)
    update_batchnorm(model, inputs.split(4))
    found = {name: value.clone() for name, value in model[1].named_buffers()}
    update_batchnorm(model, inputs[:8].split(4))
    for name, value in model[1].named_buffers():
        assert torch.equal(found[name], value), name
