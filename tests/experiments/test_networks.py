"""The networks have the paper's parameter counts, take the paper's inputs and compute what they say."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.functional import cross_entropy, one_hot

from widevalley.experiments import networks


@pytest.mark.parametrize(
    ("network", "count", "shape"),
    [
        (networks.digits_fc(), 26_634, (64,)),
        (networks.mnist_fc(), 1_867_786, (1, 28, 28)),
        (networks.mnist_fc(batchnorm=False), 1_863_690, (1, 28, 28)),
        (networks.lenet(), 131_220, (1, 28, 28)),
        (networks.small_lenet(), 47_658, (1, 28, 28)),
        (networks.small_mnist_fc(), 50_890, (1, 28, 28)),
        (networks.all_cnn(), 1_667_166, (3, 32, 32)),
    ],
)
def test_parameter_counts(network: torch.nn.Module, count: int, shape: tuple[int, ...]) -> None:
    assert sum(p.numel() for p in network.parameters()) == count
    assert network(torch.zeros(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize("build", [networks.lenet, networks.all_cnn])
def test_the_memory_format_changes_no_result(build: "type[torch.nn.Module]") -> None:
    network = build().double().eval()
    convolution = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels > 1)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(4, 1, 28, 28) if build is networks.lenet else torch.randn(4, 3, 32, 32)
    found = network(images.double())
    network.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(found, network(images.double()))


CHARACTERS = torch.randint(0, 96, (5, 32), generator=torch.Generator().manual_seed(0))
FOLLOWING = torch.randint(0, 96, (5, 32), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def char_lstm() -> torch.nn.Module:
    torch.manual_seed(0)
    network = networks.char_lstm().double()
    with torch.no_grad():
        network.initial_hidden.normal_()
        network.initial_cell.normal_()
    return network


def test_char_lstm_has_the_papers_count_and_gives_logits_by_class_and_position(char_lstm: torch.nn.Module) -> None:
    assert sum(p.numel() for p in char_lstm.parameters()) == 32_640
    assert char_lstm(CHARACTERS).shape == (5, 96, 32)


def test_char_lstm_is_torchs_own_on_one_hot_characters(char_lstm: torch.nn.Module) -> None:
    own = torch.nn.LSTM(96, 48, batch_first=True).double()
    # Torch's order of the gates is i, f, g, o; here i, f, o, g.
    order = torch.cat([torch.arange(0, 96), torch.arange(144, 192), torch.arange(96, 144)])
    with torch.no_grad():
        own.weight_ih_l0.copy_(char_lstm.input_weight.T[order])
        own.weight_hh_l0.copy_(char_lstm.hidden_weight.T[order])
        own.bias_ih_l0.copy_(char_lstm.bias[order])
        own.bias_hh_l0.zero_()
    initial = [state.expand(1, 5, 48).contiguous() for state in (char_lstm.initial_hidden, char_lstm.initial_cell)]
    hidden, _ = own(one_hot(CHARACTERS, 96).double(), (initial[0], initial[1]))
    logits = char_lstm.output(hidden).transpose(1, 2)
    torch.testing.assert_close(char_lstm(CHARACTERS), logits)
    gradients = torch.autograd.grad(cross_entropy(char_lstm(CHARACTERS), FOLLOWING), list(char_lstm.parameters()))
    expected = torch.autograd.grad(
        cross_entropy(logits, FOLLOWING),
        [own.weight_ih_l0, own.weight_hh_l0, own.bias_ih_l0, char_lstm.initial_hidden, char_lstm.initial_cell],
    )
    torch.testing.assert_close(gradients[0], expected[0][order.argsort()].T)
    torch.testing.assert_close(gradients[1], expected[1][order.argsort()].T)
    torch.testing.assert_close(gradients[2], expected[2][order.argsort()])
    torch.testing.assert_close(gradients[3:5], expected[3:5])


# Torch's forward mode uses torch.jit.script inside.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_char_lstm_has_second_derivatives_both_ways(char_lstm: torch.nn.Module) -> None:
    parameters = {name: p.detach() for name, p in char_lstm.named_parameters()}

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(functional_call(char_lstm, values, (CHARACTERS,)), FOLLOWING)

    directions = {name: torch.randn(2, *p.shape, dtype=p.dtype) for name, p in parameters.items()}
    forward = vmap(lambda v: jvp(grad(loss), (parameters,), (v,))[1])(directions)
    leaves = list(char_lstm.parameters())
    gradients = torch.autograd.grad(loss(dict(char_lstm.named_parameters())), leaves, create_graph=True)
    for k in range(2):
        along = sum((g * directions[name][k]).sum() for g, name in zip(gradients, parameters, strict=True))
        backward = torch.autograd.grad(along, leaves, retain_graph=True)
        for product, name in zip(backward, parameters, strict=True):
            torch.testing.assert_close(product, forward[name][k])
    # Against a difference of gradients, which shares no code with either.
    h = 1e-5
    plus, minus = (grad(loss)({n: p + s * h * directions[n][1] for n, p in parameters.items()}) for s in (1, -1))
    for name in parameters:
        torch.testing.assert_close((plus[name] - minus[name]) / (2 * h), forward[name][1], atol=1e-8, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_char_lstm_is_the_same_on_a_gpu(char_lstm: torch.nn.Module) -> None:
    expected = char_lstm(CHARACTERS)
    torch.testing.assert_close(char_lstm.cuda()(CHARACTERS.cuda()).cpu(), expected)
