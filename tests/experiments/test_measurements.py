"""``measurement.json`` as it is written; damaged ones are named, with the network, the part and what to do."""

import math
import re

import pytest
import small_measurement as small

from widevalley.experiments.measured import Skipped
from widevalley.experiments.measurements import read
from widevalley.landscape import spectral_density


@pytest.fixture
def record():
    return small.three()


def test_every_part_is_read(tmp_path, record):
    found = read(small.write(tmp_path, record))
    assert list(found.networks) == ["net-0", "net-1", "net-2"]
    assert found.missing() == {}
    network, written = found.networks["net-0"], record["networks"]["net-0"]
    assert network.position.loss == written["point"]["loss"]
    assert network.spectrum.eigenvalues.tolist() == written["spectrum"]["eigenvalues"]
    assert network.spectrum.elsewhere["subset 1"].largest == tuple(
        written["spectrum"]["elsewhere"]["subset 1"]["largest"]
    )
    assert [point.phi for point in network.entropy.points] == [point["phi"] for point in written["entropy"]["points"]]
    assert network.surface.around.loss.tolist() == written["surface"]["loss"]
    assert network.surface.to["net-2"].loss.tolist() == written["surface"]["to"]["net-2"]["loss"]
    assert network.configuration["method"] == "sgd"
    worst, average = (next(row for row in network.sharpness.rows if row.kind == kind) for kind in ("worst", "average"))
    assert math.isnan(worst.standard_error)
    assert worst.spread >= 0
    assert math.isnan(average.spread)
    assert average.standard_error > 0
    assert found.widths.verdicts == record["widths"]["verdicts"]
    low, high = found.widths.rows[0].intervals["net-1"]
    assert low <= found.widths.rows[0].values["net-1"] <= high


def test_the_density_is_the_one_that_was_measured(tmp_path, record):
    """To the six digits of the file."""
    found = read(small.write(tmp_path, record)).networks["net-0"].density.density
    fresh = spectral_density(small.objective(0))
    assert found.n == fresh.n == 30
    for power in (0, 1, 2):
        expected = fresh.moment(power)
        assert found.moment(power).value == pytest.approx(expected.value, rel=1e-4)
        assert found.moment(power).standard_error == pytest.approx(expected.standard_error, rel=1e-3, abs=1e-5)


def test_what_is_absent_is_missing_and_what_is_skipped_is_not(tmp_path, record):
    del record["networks"]["net-1"]["density"]
    record["networks"]["net-2"]["spectrum"] = {"skipped": "n is too large."}
    del record["networks"]["net-2"]["entropy"], record["networks"]["net-2"]["surface"]
    record["widths"] = {"skipped": "The logits are hidden."}
    found = read(small.write(tmp_path, record))
    assert found.missing() == {"net-1": ("density",), "net-2": ("entropy", "surface")}
    assert found.networks["net-2"].spectrum == Skipped("n is too large.")
    assert found.widths == Skipped("The logits are hidden.")
    record["what"] = ["spectrum", "entropy"]
    assert read(small.write(tmp_path, record)).missing() == {"net-2": ("entropy",)}


def test_null_is_unknown(tmp_path):
    record = small.one()
    point = record["networks"]["net-0"]["point"]
    point["error"] = point["rank_bound_gauss_newton"] = None
    record["networks"]["net-0"]["configuration"] = None
    found = read(small.write(tmp_path, record)).networks["net-0"]
    assert math.isnan(found.position.error)
    assert found.position.rank_bound_gauss_newton is found.configuration is None


DAMAGES = {
    "point.*'loss' is missing": lambda network: network["point"].pop("loss"),
    "point.*'high' where a number": lambda network: network["point"].update(loss="high"),
    "point.*2.5 where a whole number": lambda network: network["point"].update(samples=2.5),
    "point.*True where a number": lambda network: network["point"].update(loss=True),
    "spectrum.*29.*30 parameters": lambda network: network["spectrum"]["eigenvalues"].pop(),
    "spectrum.*'largest' is missing": lambda network: network["spectrum"]["elsewhere"]["subset 1"].pop("largest"),
    "density.*wrong type": lambda network: network["density"]["nodes"][0].pop(),
    "density.*weights": lambda network: network["density"]["weights"].pop(),
    "entropy.*'phi' is missing": lambda network: network["entropy"]["points"][0].pop("phi"),
    "sharpness.*'kind' is missing": lambda network: network["sharpness"]["rows"][0].pop("kind"),
    "surface.*20, 21.*21, 21 points": lambda network: network["surface"]["loss"].pop(),
    "surface.*'length' is missing": lambda network: network["surface"]["to"]["net-1"].pop("length"),
    "surface.*wrong type": lambda network: network.update(surface=[1]),
    "'sha256' is missing": lambda network: network.pop("sha256"),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_part_is_named(tmp_path, record, said):
    DAMAGES[said](record["networks"]["net-0"])
    where = re.escape(f"{tmp_path / 'measurement.json'}, network 'net-0'")
    with pytest.raises(ValueError, match=f"{where}.*{said}.*move it away"):
        read(small.write(tmp_path, record))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"what": ["entropy", "colour"]}, "colour, which is none of spectrum"),
        ({"networks": {}}, "networks is empty"),
        ({"networks": [1, 2]}, "wrong type"),
        ({"command": None, "versions": 3}, "wrong type"),
        ({"widths": {"match": "loss"}}, "widths: 'losses' is missing"),
    ],
)
def test_a_damaged_frame_is_named(tmp_path, record, change, said):
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / 'measurement.json'))}.*{said}.*move it away"):
        read(small.write(tmp_path, record | change))


def test_widths_have_every_network(tmp_path, record):
    del record["widths"]["rows"][3]["values"]["net-2"]
    with pytest.raises(ValueError, match="widths: 'net-2' is missing"):
        read(small.write(tmp_path, record))


def test_no_file_and_half_a_file(tmp_path, record):
    with pytest.raises(FileNotFoundError, match=r"measurement\.json: no such file; name a folder"):
        read(tmp_path)
    path = small.write(tmp_path, record) / "measurement.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ValueError, match=r"measurement\.json: not JSON.*move it away"):
        read(tmp_path)
