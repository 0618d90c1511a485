"""A measurement: its parts against the measures they come from, what is kept, and going on with it."""

import contextlib
import dataclasses
import json
import math

import pytest
import quick
import torch
from filelock import FileLock

from widevalley.experiments import measurements, parts
from widevalley.experiments.folder import FolderError
from widevalley.experiments.measure import Plan, measure
from widevalley.experiments.measured import PARTS
from widevalley.experiments.subjects import of_function
from widevalley.experiments.train import Stopped
from widevalley.landscape import Objective, compare_widths, hessian_eigenvalues, local_entropy, sharpness, trace

QUICK = ("density", "sharpness")


@pytest.fixture(autouse=True)
def few_chains(monkeypatch):
    quick.few_chains(monkeypatch)


class Telling:
    """Asks to stop after so many stages."""

    def __init__(self, stages=math.inf):
        self.left, self.begun, self.said, self.total = stages, [], [], None

    def start(self, total):
        self.total = total

    def part(self, title):
        self.begun.append(title)

    def stage(self, what, done):
        assert 0 <= done <= 1.0001
        self.left -= 1

    def ended(self, title, said):
        self.said.append((title, said))

    def stop(self):
        return self.left < 0


def plan(folder, what=QUICK, networks=2, asked=True, **changed):
    paths = [quick.save_tiny(folder / f"net{seed}.pt", seed) for seed in range(networks)]
    settings = {"gammas": (5.0, 50.0), "objective": "quick:objective", **changed}
    return Plan(
        tuple(of_function(paths, "quick:objective")), "60 points", "widevalley measure …", what, asked, **settings
    )


def test_everything_of_two_networks(tmp_path) -> None:
    wanted = plan(tmp_path, PARTS, gammas=(50.0,))
    telling = Telling()
    found = measure(wanted, tmp_path / "out", telling)
    assert found == json.loads((tmp_path / "out" / "measurement.json").read_text())
    assert telling.total == len(telling.begun) == len(telling.said) == 11
    assert not list((tmp_path / "out").glob("spectrum-*"))
    read = measurements.read(tmp_path / "out")
    assert list(read.networks) == ["net0", "net1"]
    first = wanted.subjects[0].objective
    network = found["networks"]["net0"]
    value, gradient = first.value_and_gradient()
    assert network["point"]["loss"] == pytest.approx(value, rel=1e-5)
    assert network["point"]["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)
    exact = hessian_eigenvalues(first).eigenvalues
    assert torch.tensor(network["spectrum"]["eigenvalues"]).allclose(exact.float(), atol=1e-8, rtol=1e-6)
    assert network["spectrum"]["trace"] == pytest.approx(float(exact.sum()), rel=1e-5)
    assert network["density"]["largest"] == pytest.approx(exact.flip(0)[:10].tolist(), rel=1e-5, abs=1e-6)
    assert network["density"]["most_negative"] == pytest.approx(exact[:10].tolist(), rel=1e-5, abs=1e-6)
    assert network["density"]["trace"] == pytest.approx(trace(first).value, rel=1e-5)
    entropy = local_entropy(first, 50.0, 60, tolerance=parts.ENTROPY_TOLERANCE)
    point = network["entropy"]["points"][0]
    assert (point["gamma"], point["value"]) == (50.0, pytest.approx(entropy.value, rel=1e-5))
    assert network["entropy"]["learning_coefficient"]["standard_error"] > 0
    worst = network["sharpness"]["rows"][0]
    assert worst["value"] == pytest.approx(sharpness(first, "worst", 0.05).value, rel=1e-5)
    assert network["surface"]["loss"][10][10] == pytest.approx(value, rel=1e-5)
    line = network["surface"]["to"]["net1"]
    ends = [line["loss"][line["coordinates"].index(t)] for t in (0.0, 1.0)]
    assert ends == pytest.approx([found["networks"][name]["point"]["loss"] for name in ("net0", "net1")], rel=1e-5)
    assert "unfinished" not in network["entropy"]
    table = compare_widths({subject.name: subject.objective for subject in wanted.subjects})
    assert found["widths"]["verdicts"] == dict(table.verdicts)


def test_what_is_done_stays_when_it_is_stopped_and_the_rest_follows(tmp_path) -> None:
    wanted = plan(tmp_path)
    whole = measure(wanted, tmp_path / "whole", Telling())
    before = -1
    for stages in (5, 100, 500):
        with pytest.raises(Stopped):
            measure(wanted, tmp_path / "out", Telling(stages), resume=before > 0)
        there = len((tmp_path / "out" / "measurement.json").read_text())
        assert there >= before
        before = there
    telling = Telling()
    found = measure(wanted, tmp_path / "out", telling, resume=True)
    assert ("density of net0", "there already") in telling.said
    assert _untimed(found) == _untimed(whole)


def test_an_entropy_goes_on_at_the_scope_where_it_stopped(tmp_path, monkeypatch) -> None:
    wanted = plan(tmp_path, ("entropy",), networks=1)
    measured = []
    real = parts.local_entropy

    def counted(objective, gamma, *others, **named):
        measured.append(gamma)
        if len(measured) == 2:
            raise Stopped
        return real(objective, gamma, *others, **named)

    monkeypatch.setattr(parts, "local_entropy", counted)
    with pytest.raises(Stopped):
        measure(wanted, tmp_path / "out", Telling())
    there = json.loads((tmp_path / "out" / "measurement.json").read_text())["networks"]["net0"]["entropy"]
    assert there["unfinished"]
    assert len(there["points"]) == 1
    assert len(measurements.read(tmp_path / "out").networks["net0"].entropy.points) == 1
    measure(wanted, tmp_path / "out", Telling(), resume=True)
    assert measured == [5.0, 50.0, 50.0]


@pytest.mark.parametrize("failure", [Stopped, RuntimeError])
def test_a_spectrum_is_kept_while_other_samples_are_measured(tmp_path, monkeypatch, failure) -> None:
    wanted = plan(tmp_path, ("spectrum",), networks=1)
    (subject,) = wanted.subjects
    others = {f"subset {seed}": Objective(subject.objective.model, data=[quick.clouds(seed=seed)]) for seed in (1, 2)}
    wanted = dataclasses.replace(wanted, subjects=(dataclasses.replace(subject, elsewhere=others),))
    measured, spectra = [], []
    outermost, every = parts.outermost, parts.hessian_eigenvalues

    def counted(objective, told):
        measured.append(objective)
        if len(measured) == 2:
            raise failure
        return outermost(objective, told)

    def counted_spectra(*arguments, **named):
        spectra.append(arguments)
        return every(*arguments, **named)

    monkeypatch.setattr(parts, "outermost", counted)
    monkeypatch.setattr(parts, "hessian_eigenvalues", counted_spectra)
    with pytest.raises(Stopped) if failure is Stopped else contextlib.nullcontext():
        measure(wanted, tmp_path / "out", Telling())
    there = measurements.read(tmp_path / "out")
    assert there.missing() == {"net0": ("spectrum",)}
    assert not (tmp_path / "out" / "spectrum-net0").exists()
    assert len(there.networks["net0"].spectrum.eigenvalues) == 30
    assert list(there.networks["net0"].spectrum.elsewhere) == ["subset 1"]
    measure(wanted, tmp_path / "out", Telling(), resume=True)
    whole = measurements.read(tmp_path / "out")
    assert whole.missing() == {}
    assert list(whole.networks["net0"].spectrum.elsewhere) == ["subset 1", "subset 2"]
    assert (len(measured), len(spectra)) == (3, 1)


def test_a_large_network_has_no_learning_coefficient_and_is_complete(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "FEW_PARAMETERS", 29)
    found = measure(plan(tmp_path, ("entropy",), networks=1, gammas=(50.0,)), tmp_path / "out", Telling())
    assert found["networks"]["net0"]["entropy"]["learning_coefficient"] is None
    assert measurements.read(tmp_path / "out").missing() == {}


def test_a_measurement_grows_by_parts_and_networks(tmp_path) -> None:
    first = measure(plan(tmp_path, ("sharpness",), networks=1), tmp_path / "out", Telling())
    assert first["widths"] is None
    more = plan(tmp_path, ("density",), networks=2)
    found = measure(more, tmp_path / "out", Telling(), resume=True)
    assert found["what"] == ["density", "sharpness"]
    assert found["networks"]["net0"]["sharpness"] == first["networks"]["net0"]["sharpness"]
    assert set(found["networks"]["net1"]) >= {"density", "point"}
    assert set(found["widths"]["verdicts"]) == {"net1"}


def test_another_measurement_is_not_gone_on_with(tmp_path) -> None:
    wanted = plan(tmp_path, ("sharpness",), networks=1)
    measure(wanted, tmp_path / "out", Telling())
    with pytest.raises(FolderError, match="holds a measurement already: add --resume"):
        measure(wanted, tmp_path / "out", Telling())
    with pytest.raises(FolderError, match=r"another measurement \(gammas: \[5.0, 50.0\] there, \[1.0\] now\)"):
        measure(plan(tmp_path, gammas=(1.0,)), tmp_path / "out", Telling(), resume=True)
    quick.save_tiny(tmp_path / "net0.pt", steps=3)
    moved = Plan(tuple(of_function([tmp_path / "net0.pt"], "quick:objective")), "60 points", "", QUICK, True,
                 objective="quick:objective")  # fmt: skip
    with pytest.raises(FolderError, match=r"another measurement .sha256"):
        measure(moved, tmp_path / "out", Telling(), resume=True)
    with pytest.raises(FolderError, match="is not empty and holds no measurement"):
        measure(wanted, tmp_path, Telling())
    with FileLock(tmp_path / "out" / "lock"), pytest.raises(FolderError, match="Another process is at work"):
        measure(wanted, tmp_path / "out", Telling(), resume=True)


def test_a_spectrum_that_was_not_asked_for_may_take_minutes_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "UNASKED", 0.0)
    unasked = plan(tmp_path, ("spectrum",), networks=1, asked=False)
    found = measure(unasked, tmp_path / "out", Telling())
    said = found["networks"]["net0"]["spectrum"]["skipped"]
    assert said.startswith("It would take about 0 minutes (Hessian of 30 parameters")
    assert said.endswith("ask for it with --what spectrum.")
    asked = plan(tmp_path, ("spectrum",), networks=1)
    found = measure(asked, tmp_path / "out", Telling(), resume=True)
    assert len(found["networks"]["net0"]["spectrum"]["eigenvalues"]) == 30


def test_a_part_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch) -> None:
    def refused(*_, **__):
        raise ValueError("no second derivative")

    monkeypatch.setattr(parts, "spectral_density", refused)
    telling = Telling()
    found = measure(plan(tmp_path, networks=1), tmp_path / "out", telling)
    assert found["networks"]["net0"]["density"] == {"skipped": "no second derivative"}
    assert ("density of net0", "left out. no second derivative") in telling.said
    assert found["networks"]["net0"]["sharpness"]["rows"]


def test_scopes_reach_shares_of_the_weights(tmp_path) -> None:
    objective = plan(tmp_path, networks=1).subjects[0].objective
    gammas = parts.default_gammas(objective)
    shares = [math.sqrt(30 / (60 * gamma)) / float(objective.vector().norm()) for gamma in gammas]
    assert shares == pytest.approx(sorted(parts.RADII, reverse=True), rel=0.3)
    with torch.no_grad():
        for p in objective.parameters:
            p.zero_()
    with pytest.raises(parts.Skipped, match="give --gammas"):
        parts.default_gammas(objective)


def test_a_network_without_a_finite_loss_is_named(tmp_path) -> None:
    wanted = plan(tmp_path, networks=1)
    with torch.no_grad():
        wanted.subjects[0].objective.parameters[0].fill_(math.nan)
    with pytest.raises(ValueError, match="net0 cannot be measured: the loss is nan"):
        measure(wanted, tmp_path / "out", Telling())


def _untimed(record):
    if isinstance(record, dict):
        return {key: _untimed(value) for key, value in record.items() if key != "seconds"}
    return [_untimed(each) for each in record] if isinstance(record, list) else record
