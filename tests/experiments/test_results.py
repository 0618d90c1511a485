"""Result files that are damaged are named, with the line and what to do."""

import json
import re

import pytest
import synthetic_results as synthetic

from widevalley.experiments.report import write_report
from widevalley.experiments.results import read


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


def damage_list(lines):
    return json.dumps(lines[0]) + "\n[1, 2]"


@pytest.mark.parametrize("damage", [damage_json, damage_kind, damage_value, damage_missing, damage_list])
def test_a_damaged_line_is_named(complete, damage):
    lines = synthetic.unit("final", "sgd", 0.1, 0)
    path = synthetic.write_unit(complete, lines)
    path.write_text(damage(lines))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: ") + r".*delete it and run"):
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
