"""Networks from their files: names, tasks, samples, and what is refused."""

import dataclasses
import pickle

import pytest
import quick
import torch
from safetensors.torch import save_file

from widevalley.experiments.subjects import SubjectError, names, of_function, of_task, read_checkpoints
from widevalley.experiments.tasks import TASKS, TaskError
from widevalley.experiments.weights import save_weights

DIGITS = TASKS["digits"]


def saved(path, of=DIGITS, seed=0, **about):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = of.network()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path, {"task": of.name, "changes": {}, **about})
    return network


def load(task):
    return task.load(None)


def measured(paths, named=None, images=100):
    return of_task(read_checkpoints(paths), named, load, images, "cpu")


def test_a_network_is_measured_at_its_weights_on_balanced_training_examples(tmp_path) -> None:
    network = saved(tmp_path / "net.safetensors", seed=5, method="sgd")
    (subject,), said = measured([tmp_path / "net.safetensors"])
    assert said == "100 training examples of digits, equally many of each class, drawn with seed 0"
    assert (subject.name, subject.configuration["method"]) == ("net", "sgd")
    own = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert torch.equal(subject.objective.vector(), own)
    ((inputs, targets),) = subject.objective.data
    assert targets.bincount().tolist() == [10] * 10
    data = quick.digits().train
    assert all((data.inputs == image).flatten(1).all(1).any() for image in inputs[:3])
    logits = network.eval()(inputs)
    assert subject.error == pytest.approx(100 * float((logits.argmax(1) != targets).double().mean()))
    assert subject.rank_bound == 900
    assert list(subject.elsewhere) == ["subset 1", "subset 2", "training set"]
    assert subject.elsewhere["training set"].samples == len(data)
    assert not torch.equal(subject.elsewhere["subset 1"].data[0][0], inputs)
    assert subject.elsewhere["subset 1"].model is subject.objective.model


def test_all_of_a_small_training_set_has_no_elsewhere(tmp_path) -> None:
    saved(tmp_path / "net.safetensors")
    (subject,), said = measured([tmp_path / "net.safetensors"], images=10_000)
    assert subject.objective.samples == len(quick.digits().train)
    assert said.endswith("of digits, all of them")
    assert not subject.elsewhere


def test_the_data_are_altered_as_they_were_in_training(tmp_path) -> None:
    saved(tmp_path / "net.safetensors", changes={"train_size": 80, "batch_size": 16})
    saved(tmp_path / "other.safetensors", changes={"train_size": 80})
    found, said = measured([tmp_path / "net.safetensors", tmp_path / "other.safetensors"])
    assert [subject.objective.samples for subject in found] == [80, 80]
    assert said == "80 training examples of digits, all of them (train size 80)"
    saved(tmp_path / "noisy.safetensors", changes={"label_noise": 0.2})
    with pytest.raises(SubjectError, match=r"trained on different data .*side by side what was trained on the same"):
        measured([tmp_path / "net.safetensors", tmp_path / "noisy.safetensors"])


def test_names_are_the_shortest_that_tell_files_apart(tmp_path) -> None:
    def found(*files):
        return names([tmp_path / file for file in files])

    assert found("a.safetensors", "b.pt") == ["a", "b"]
    assert found("sgd/center.safetensors", "sam/center.safetensors") == ["sgd", "sam"]
    assert found("x/sgd/net.pt", "y/sgd/net.pt") == ["x-sgd-net", "y-sgd-net"]
    with pytest.raises(SubjectError, match="named twice"):
        found("a.pt", "x/../a.pt")


def test_folders_and_state_dicts_too(tmp_path) -> None:
    saved(tmp_path / "run" / "center.safetensors")
    torch.save(DIGITS.network().state_dict(), tmp_path / "own.pt")
    found, _ = measured([tmp_path / "run", tmp_path / "own.pt"], named="digits")
    assert [subject.name for subject in found] == ["run", "own"]
    assert found[1].configuration is None


@pytest.mark.parametrize(
    ("about", "named", "said"),
    [
        ({}, "mnist-fc", "does not fit the network of mnist-fc"),
        ({"task": "mine"}, None, r"its task was 'mine', which is not built in: give --task"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, about, named, said) -> None:
    saved(tmp_path / "net.safetensors", **about)
    checkpoints = read_checkpoints([tmp_path / "net.safetensors"])
    with pytest.raises(SubjectError, match=said):
        of_task(checkpoints, named, lambda task: quick.digits(), 50, "cpu")


def test_what_is_no_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(SubjectError, match=r"Cannot read .*gone.pt .* give a file of weights"):
        read_checkpoints([tmp_path / "gone.pt"])
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(SubjectError, match=r"bad\.safetensors is damaged"):
        read_checkpoints([tmp_path / "bad.safetensors"])
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print))
    with pytest.raises(SubjectError, match="loads without code"):
        read_checkpoints([tmp_path / "code.pt"])
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "nested.pt")
    with pytest.raises(SubjectError, match="holds no state_dict"):
        read_checkpoints([tmp_path / "nested.pt"])
    save_file({"w": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(SubjectError, match=r"It names none: give --task"):
        measured([tmp_path / "foreign.safetensors"])


def test_two_tasks_are_not_side_by_side(tmp_path) -> None:
    saved(tmp_path / "a.safetensors")
    saved(tmp_path / "b.safetensors", dataclasses.replace(DIGITS, name="mnist-fc"))
    with pytest.raises(SubjectError, match=r"different tasks \(digits, mnist-fc\): measure them one by one"):
        measured([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_an_objective_of_ones_own(tmp_path) -> None:
    path = quick.save_tiny(tmp_path / "net.pt")
    (subject,) = of_function([path], "quick:objective")
    assert (subject.name, subject.objective.n, subject.error, subject.elsewhere) == ("net", 30, None, {})
    with pytest.raises(SubjectError, match=r"failed with FileNotFoundError|There is no"):
        of_function([tmp_path / "gone.pt"], "quick:objective")
    with pytest.raises(SubjectError, match=r"quick:save_tiny returned \w*Path: give a function of a checkpoint's path"):
        of_function([path], "quick:save_tiny")
    with pytest.raises(TaskError, match="has no 'objektiv'"):
        of_function([path], "quick:objektiv")


def test_no_global_random_state_is_drawn_from(tmp_path) -> None:
    saved(tmp_path / "net.safetensors")
    before = torch.get_rng_state()
    measured([tmp_path / "net.safetensors"])
    assert torch.equal(torch.get_rng_state(), before)
