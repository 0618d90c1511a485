"""Files as they are written and as they once were; damaged ones are named, with the line and what to do."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import synthetic_results as synthetic

from widevalley.experiments.report import write_report
from widevalley.experiments.results import read

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def complete(tmp_path):
    return synthetic.write_comparison(tmp_path / "complete")


def damage_json(lines):
    return json.dumps(lines[0]) + '\n{"kind": "evalua'


def damage_kind(lines):
    return json.dumps(lines[0]) + '\n{"kind": "note"}'


def damage_value(lines):
    return json.dumps(lines[0]) + "\n" + json.dumps({**lines[1], "train_loss": "low"})


def damage_missing(lines):
    return json.dumps(lines[0]) + "\n" + json.dumps({name: lines[1][name] for name in lines[1] if name != "epochs"})


def damage_wrong(lines):
    return json.dumps(lines[0]) + "\n" + json.dumps({**lines[-1], "test_wrong": [[3, 1], [5]]})


def damage_list(lines):
    return json.dumps(lines[0]) + "\n[1, 2]"


@pytest.mark.parametrize("damage", [damage_json, damage_kind, damage_value, damage_missing, damage_wrong, damage_list])
def test_a_damaged_line_is_named(complete, damage):
    lines = synthetic.unit("final", "sgd", 0.1, 0)
    path = synthetic.write_unit(complete, lines)
    path.write_text(damage(lines))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: ") + r".*move it away"):
        read(complete)


def test_a_unit_without_a_configuration_or_of_other_bytes_is_named(complete):
    lines = synthetic.unit("final", "sgd", 0.1, 0)
    path = synthetic.write_unit(complete, lines)
    path.write_text("\n".join(json.dumps(line) for line in lines[1:]))
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + ".*configuration"):
        read(complete)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not UTF-8")):
        read(complete)


@pytest.mark.parametrize(
    "change",
    [{"gradients": None}, {"seeds": 5}, {"gradients": "many"}, {"learning_rates": {"sgd": [0.1]}}, {"chosen": [0.1]}],
)
def test_a_damaged_plan_is_named(complete, change):
    path = synthetic.write_plan(complete, **change)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        write_report(complete)
    path.write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not JSON")):
        write_report(complete)


def test_a_folder_without_a_comparison_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"comparison\.json: no such file; name a folder"):
        write_report(tmp_path)


def test_every_field_of_a_unit_is_read(tmp_path):
    comparison = read(synthetic.write_ten(tmp_path, seeds=1, examples=100))
    assert comparison.changes == {"label_noise": 0.2}
    assert comparison.gradients_per_step["sam"] == 2
    assert comparison.gradients_per_step["sgd"] == 1
    [(_, result)] = comparison.finished("entropy-adam")
    assert (result.state_bytes, result.gradient_bytes) == (4 * 1_300_000 * 3, 9e7)
    assert result.last.pull_to_gradient == pytest.approx(0.02 * 5.21)
    assert result.last.noise_to_gradient == pytest.approx(0.1)
    assert result.test_wrong is not None
    assert len(result.test_wrong) == result.test_error
    # null in the file: no cycle has ended, or nothing could be measured.
    [(unit, result)] = comparison.finished("entropy-sgd")
    assert math.isnan(unit.evaluations[0].displacement)
    assert math.isnan(result.gradient_bytes)


def test_what_older_files_lack_is_unknown(complete):
    comparison = read(complete)
    assert comparison.changes == {}
    assert comparison.gradients_per_step == {"entropy-sgd": 1, "sgd": 1}
    assert comparison.test_targets == comparison.test_size == 400
    result = comparison.finished("sgd")[0][1]
    assert result.test_wrong is None
    assert all(map(math.isnan, (result.state_bytes, result.gradient_bytes, result.last.displacement)))


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in RESULTS.glob("*/comparison.json")), ids=lambda path: path.name
)
def test_the_results_that_stand_in_the_documents_are_read_and_drawn(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert write_report(tmp_path / "copy").stat().st_size > 50_000


def test_what_else_lies_in_a_folder_of_results_is_passed_over(complete):
    before = read(complete)
    for name in ("units/final-sgd-lr0.1-seed0.state", "networks"):
        (complete / name).mkdir()
    for name in ("units/final-sgd-lr0.1-seed0.state/0", "networks/sgd.safetensors", "units/a.lock", "b.lock"):
        (complete / name).write_bytes(b"\xff")
    assert read(complete) == before
