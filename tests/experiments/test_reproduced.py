"""A reproduction's folder, whole, in part and damaged, against files that the test wrote itself."""

import json
import math
import re

import pytest
import synthetic_reproduction as synthetic
from synthetic_reproduction import EVERY

from widevalley.experiments import reproduced_numbers as numbers
from widevalley.experiments import reproduced_tables as tables
from widevalley.experiments.paper import EPOCH
from widevalley.experiments.reproduced import read
from widevalley.experiments.summaries import Point

TEXT, AUTHORS, BASE = EVERY["mnistfc-text"], EVERY["mnistfc-authors"], EVERY["base"]


def found(folder, name):
    return next(each for curves in read(folder).curves.values() for each in curves if each.name == name)


def row(table, name):
    return next(cells for title, cells in table.rows if re.split(r"[ <]", title)[0] == name)


def test_an_empty_folder_lacks_everything(tmp_path):
    empty = read(tmp_path)
    assert {name: len(curves) for name, curves in empty.curves.items()} == {"fig4a": 9, "fig4b": 9, "table": 20}
    assert found(tmp_path, "mnistfc-adam").missing() == "mnistfc-adam: seed 0, 1, 2, 3, 4"
    assert found(tmp_path, "base").missing() == "base: the choice, for which 0.01, 0.03, 0.1 lacks; seed 0, 1, 2"
    assert "Nesterov's momentum in both loops, Adam in both loops" in found(tmp_path, "mnistfc-text").missing()
    assert empty.spectra["fig3a"].missing == ("sgd", "initial", "entropy-sgd")
    assert empty.spectra["fig3a"].merged is None
    assert empty.environments() == []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read(tmp_path / "none")


def test_the_candidate_with_the_lowest_validation_error_runs(tmp_path):
    synthetic.choosing(tmp_path, TEXT)
    synthetic.running(tmp_path, TEXT, seeds=(0, 2))
    curve = found(tmp_path, "mnistfc-text")
    assert curve.chosen is TEXT.candidates[1]
    assert [unit.seed for unit in curve.runs] == [0, 2]
    assert curve.missing() == "mnistfc-text: seed 1"
    table = tables.choices([curve], read(tmp_path).environments())
    assert [cells[3] for _, cells in table.rows] == ["", "<strong>chosen</strong>", ""]
    errors = [float(cells[1]) for _, cells in table.rows]
    assert errors == pytest.approx([errors[1] + 1, errors[1], errors[1] + 1])


def test_without_all_trials_there_is_no_choice_and_no_run(tmp_path):
    synthetic.choosing(tmp_path, TEXT)
    synthetic.running(tmp_path, TEXT)
    (tmp_path / "units" / "tune-mnistfc-text-sgld-lr0.0001-seed1000.jsonl").unlink()
    curve = found(tmp_path, "mnistfc-text")
    assert (curve.chosen, curve.runs) == (None, ())
    assert curve.missing().startswith("mnistfc-text: the choice, for which Adam outside, SGLD inside lacks; seed 0")


def test_runs_that_have_not_ended_or_diverged_are_left_out(tmp_path):
    synthetic.running(tmp_path, AUTHORS, seeds=(0, 1))
    synthetic.running(tmp_path, AUTHORS, seeds=(2,), ended=False)
    synthetic.running(tmp_path, AUTHORS, seeds=(3,), diverged=True)
    curve = found(tmp_path, "mnistfc-authors")
    assert [unit.seed for unit in curve.runs] == [0, 1, 2, 3]
    assert [unit.seed for unit, _ in curve.finished] == [0, 1]
    assert curve.missing() == "mnistfc-authors: seed 2, 4"
    environments = read(tmp_path).environments()
    cells = row(tables.errors([curve], curve, environments), "mnistfc-authors")
    assert cells[0] == "2 of 5, 1 diverged"
    assert cells[-1] == "1"


def test_a_curve_that_diverged_says_after_how_many_gradients(tmp_path):
    synthetic.running(tmp_path, AUTHORS, seeds=(3,), diverged=True)
    curve = found(tmp_path, "mnistfc-authors")
    last = curve.runs[0].result.last
    cells = row(tables.errors([curve], curve, read(tmp_path).environments()), "mnistfc-authors")
    assert cells[0] == "0 of 5, 1 diverged"
    assert f">{last.gradients:,} <small>" in cells[1]
    assert cells[2] == "–"
    assert cells[-1] == "1"


def test_every_candidate_says_how_it_was_tried(tmp_path):
    synthetic.choosing(tmp_path, TEXT)
    curve = found(tmp_path, "mnistfc-text")
    chosen = next(trial for trial in curve.trials if trial.candidate is curve.chosen)
    gradients = f"{chosen.result.last.gradients:,}"
    table = tables.choices([curve], read(tmp_path).environments())
    assert [cells[-3:] for _, cells in table.rows] == [("1000", gradients, "1")] * 3


def test_the_lowest_mean_is_the_first_of_equals(tmp_path, monkeypatch):
    """0.1 + 0.2 is not 0.3: a later look that rounding alone makes lower is not the lowest."""
    synthetic.running(tmp_path, AUTHORS)
    curve = found(tmp_path, "mnistfc-authors")
    points = [Point(x, mean, mean, mean) for x, mean in ((1.0, 0.5), (2.0, 0.1 + 0.2), (3.0, 0.3))]
    monkeypatch.setattr(numbers.summaries, "over_seeds", lambda *_: points)
    assert numbers.best(curve).gradients == 2.0
    assert numbers.first_below(curve, 0.3).gradients == 2.0


def test_a_damaged_file_is_named_and_one_of_another_run(tmp_path):
    synthetic.running(tmp_path, AUTHORS, seeds=(0,))
    path = tmp_path / "units" / "curve-mnistfc-authors-lr0.1-seed0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def written(change):
        path.write_text("".join(json.dumps(line | change(place)) + "\n" for place, line in enumerate(lines)))

    written(lambda place: {} if place else {"gradients": 5})
    with pytest.raises(ValueError, match=re.escape(f"{path} is of another run (gradients: 5 there): move it away")):
        read(tmp_path)
    # A curve is watched on the test set: without it, it is no curve.
    written(lambda place: {"test_error": "low"} if place == 2 else {})
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 3: test_error='low'") + ".*move it away"):
        read(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not UTF-8")):
        read(tmp_path)


def test_spectra_of_a_figure_are_side_by_side(tmp_path):
    synthetic.spectrum(tmp_path, "fig3a-initial")
    synthetic.spectrum(tmp_path, "fig3a-sgd")
    synthetic.spectrum(tmp_path, "fig3a-entropy-sgd", spectrum=None)
    spectra = read(tmp_path).spectra["fig3a"]
    assert spectra.missing == ("entropy-sgd",)
    assert list(spectra.merged.networks) == ["sgd", "initial"]
    largest = [network.spectrum.eigenvalues[-1] for network in spectra.merged.networks.values()]
    assert largest == [10 + len("fig3a-sgd"), 10 + len("fig3a-initial")]
    path = tmp_path / "spectra" / "fig3a-sgd" / "measurement.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not JSON")):
        read(tmp_path)
    record = json.loads((tmp_path / "spectra" / "fig3a-initial" / "measurement.json").read_text())
    record["networks"]["other"] = record["networks"]["network"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="2 networks where one belongs"):
        read(tmp_path)


def test_other_measurements_are_kept_as_they_are(tmp_path):
    (tmp_path / "measurements").mkdir()
    record = {"cosine": [0.5], "versions": {"torch": "2"}, "machine": {"device": "cpu"}}
    (tmp_path / "measurements" / "local-gradient.json").write_text(json.dumps(record))
    reproduction = read(tmp_path)
    assert reproduction.measurements == {"local-gradient": record}
    assert reproduction.environments() == [{"torch": "2", "device": "cpu"}]
    (tmp_path / "measurements" / "fisher.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"fisher\.json: list where an object belongs"):
        read(tmp_path)


def test_the_end_of_a_curve_by_hand(tmp_path):
    """Test errors at 56,160 gradients: 0.5 + 0.0 · seed + 88/2,809 for each seed; all seeds equal."""
    synthetic.running(tmp_path, AUTHORS)
    synthetic.running(tmp_path, EVERY["mnistfc-adam"])
    curve, adam = found(tmp_path, "mnistfc-authors"), found(tmp_path, "mnistfc-adam")
    environments = read(tmp_path).environments()
    cells = row(tables.errors([curve, adam], adam, environments), "mnistfc-authors")
    gradients = 120 * EPOCH
    end = 0.5 + 88 / (1 + gradients / 20)
    assert cells[1] == f'<div class="verdict">56,160 <small>120 or {gradients // 20 / EPOCH:.3g} epochs</small></div>'
    assert cells[2] == f"{end:.2f} ± 0.00"
    # Adam's seeds are 0.01 apart, around 0.6 + 0.02 + 88/2,341.
    difference = end - (0.62 + 88 / (1 + 100 * EPOCH / 20))
    assert f"lower</strong> <small>{difference:+.2f}".replace("-", "−") in cells[3]
    assert cells[4] == "–"
    assert cells[5] == '<div class="verdict">1.37 ± 0.03 <small>120 epochs</small></div>'
    assert cells[6] == f'<div class="verdict">{end:.2f} <small>at 56,160</small></div>'
    losses = row(tables.losses([curve, adam], adam, environments), "mnistfc-authors")
    assert losses[0].startswith(f"{end / 30:.4f}")
    assert losses[2].startswith(f"{end / 120:.6f}")


def test_the_way_to_an_error(tmp_path):
    """Looks are 5,616 gradients apart; the first after training began is at 0.5 + 88/281.8 = 0.81."""
    synthetic.running(tmp_path, AUTHORS)
    curve = found(tmp_path, "mnistfc-authors")
    first = numbers.first_below(curve, 0.82)
    assert (first.gradients, first.paper_epochs) == (5616, pytest.approx(5616 // 20 / EPOCH, rel=1e-5))
    assert first.error == pytest.approx(0.5 + 88 / (1 + 5616 / 20), rel=1e-5)
    assert numbers.first_below(curve, first.error - 1e-3).gradients == 2 * 5616
    assert numbers.first_below(curve, 0.5) is None
    environments = read(tmp_path).environments()
    cells = row(tables.reach([curve], (0.82, 0.5), environments), "mnistfc-authors")
    assert cells[:2] == ('<div class="verdict">5,616 <small>12 or 0.598 epochs</small></div>', "–")
    assert cells[2] == "5 of 5"
    assert tables.reach([found(tmp_path, "mnistfc-adam")], (0.82,), environments) is None


def test_bands_are_a_standard_deviation_wide(tmp_path):
    """Adam's seeds end 0.01 apart: sd = 0.01 √(10/4)."""
    synthetic.running(tmp_path, EVERY["mnistfc-adam"])
    points = numbers.curve(found(tmp_path, "mnistfc-adam"), "test_error", "epochs")
    assert [point.x for point in points] == pytest.approx([10 * k for k in range(11)], rel=1e-3)
    assert points[-1].high - points[-1].low == pytest.approx(2 * 0.01 * math.sqrt(2.5), rel=1e-2)


def test_a_variant_stands_beside_the_base(tmp_path):
    """Its errors are 0.1 higher at equal gradients, and 0.01 · seed more."""
    for name in ("base", "noise"):
        synthetic.choosing(tmp_path, EVERY[name])
        synthetic.running(tmp_path, EVERY[name])
    curves = read(tmp_path).curves["table"]
    table = tables.ablations(curves, read(tmp_path).environments())
    assert len(table.rows) == len(curves) == 20
    base, noise = row(table, "base"), row(table, "noise")
    assert [cell.count("<strong>") for cell in base[:3]] == [0, 1, 0]
    assert "at 0.01" in base[0]
    assert base[4] == "<small>the base</small>"
    # Differences 0.1, 0.11 and 0.12: 0.11 ± 4.303 · 0.01/√3.
    assert "higher</strong> <small>+0.11 <span>(+0.09 to +0.13)</span>" in noise[4]
    assert base[7] == "1.0"
    assert noise[7] == "–"
    assert base[9] == "3 of 3"
    assert base[10].startswith('<div class="verdict">9,360 <small>20 or ')
    rates = [f'<div class="verdict">– <small>at {rate}</small></div>' for rate in (0.005, 0.015, 0.05)]
    assert row(table, "sgd-cosine") == (*rates, *["–"] * 6, "0 of 3", *["–"] * 2)
