"""The widths of a comparison's networks: measured seed by seed, gone on with, read, and put in words."""

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import quick
import synthetic_results as synthetic
import torch
from page import Page, figures, page_of
from safetensors.torch import load_file
from scipy.stats import ttest_1samp
from test_compare import Progress

from widevalley.experiments import widths as module
from widevalley.experiments.compare import compare
from widevalley.experiments.folder import Folder
from widevalley.experiments.results import ResultsError, read
from widevalley.experiments.train import Stopped
from widevalley.experiments.weights import save_weights
from widevalley.experiments.width_ratios import overall, width_ratios
from widevalley.experiments.width_tables import finding
from widevalley.experiments.widths import measure_widths

INVARIANT = ("adaptive_sharpness", "element_lambda_max", "element_trace", "filter_lambda_max", "filter_trace")
RAW = ("lambda_max", "trace", "average_sharpness")


def units(methods: tuple[str, ...], seeds: int = 2, diverged: tuple[tuple[str, int], ...] = ()):
    return [
        (unit, {"diverged": (method, seed) in diverged})
        for seed in range(seeds)
        for method in methods
        for unit in [quick.unit(method, seed=seed)]
    ]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of entropy-sgd, sgd and adam, from two seeds, trained for some steps."""
    path = tmp_path_factory.mktemp("networks")
    train = quick.digits().train
    for unit, _ in units(("entropy-sgd", "sgd", "adam")):
        torch.manual_seed(100 * unit.seed + len(unit.method.name))
        network = quick.network()
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(train.inputs), train.targets).backward()
            optimizer.step()
        save_weights(network, Folder(path).weights(unit), {})
    return path


def measured(folder: Path, results, progress: Progress | None = None) -> Progress:
    progress = progress or Progress()
    measure_widths(quick.TASK, quick.digits(), Folder(folder), results, progress, "cpu")
    return progress


def record(folder: Path, seed: int):
    return json.loads((folder / "widths" / f"seed{seed}.json").read_text())


def copied(networks: Path, folder: Path) -> Path:
    shutil.copytree(networks, folder, dirs_exist_ok=True)
    return folder


def test_a_seed_has_a_file_with_every_measure_the_reference_first(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)
    progress = measured(folder, units(("entropy-sgd", "sgd", "adam")))
    assert progress.widths == [(0, False), (1, False)]
    for seed in (0, 1):
        found = record(folder, seed)
        assert list(found["networks"]) == ["sgd", "entropy-sgd", "adam"]
        assert found["networks"]["sgd"] == f"final-sgd-lr0.01-seed{seed}"
        assert (found["reason"], found["examples"], found["products"]) == (None, 50, 8)
        assert [row["measure"] for row in found["rows"] if row["invariant"]] == list(INVARIANT)
        assert set(found["verdicts"]) == {"entropy-sgd", "adam"}
        highest = max(found["losses"].values())
        assert list(found["matched_losses"].values()) == pytest.approx([highest] * 3, rel=1e-3)
    assert record(folder, 0)["rows"] != record(folder, 1)["rows"]


def test_what_is_there_is_kept_and_a_method_more_is_measured_anew(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)
    measured(folder, units(("sgd", "adam")))
    first = [(folder / "widths" / f"seed{seed}.json").read_bytes() for seed in (0, 1)]
    assert measured(folder, units(("sgd", "adam"))).widths == [(0, True), (1, True)]
    assert [(folder / "widths" / f"seed{seed}.json").read_bytes() for seed in (0, 1)] == first
    assert measured(folder, units(("sgd", "adam", "entropy-sgd"))).widths == [(0, False), (1, False)]
    assert list(record(folder, 1)["networks"]) == ["sgd", "adam", "entropy-sgd"]
    # A process with the smaller plan takes nothing away again.
    assert measured(folder, units(("sgd", "adam"))).widths == [(0, True), (1, True)]
    assert list(record(folder, 1)["networks"]) == ["sgd", "adam", "entropy-sgd"]


def test_a_run_that_diverged_is_left_out_and_one_network_alone_is_none(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)
    lost = (("sgd", 0), ("sgd", 1), ("adam", 1))
    progress = measured(folder, units(("entropy-sgd", "sgd", "adam"), diverged=lost))
    assert progress.widths == [(0, False)]
    assert list(record(folder, 0)["networks"]) == ["entropy-sgd", "adam"]
    assert [path.name for path in (folder / "widths").iterdir()] == ["seed0.json"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_missing_or_damaged_network_leaves_its_seed_out_with_a_warning(
    networks: Path, tmp_path: Path, damaged: bool
) -> None:
    folder = copied(networks, tmp_path)
    path = folder / "networks" / "final-adam-lr0.01-seed0.safetensors"
    path.write_bytes(path.read_bytes()[:100]) if damaged else path.unlink()
    progress = measured(folder, units(("sgd", "adam")))
    assert progress.widths == [(1, False)]
    assert len(progress.warned) == 1
    assert "widths of seed 0" in progress.warned[0]
    assert not (folder / "widths" / "seed0.json").exists()


def test_results_whose_networks_were_not_kept_stay_as_they_are(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)
    measured(folder, units(("sgd", "adam")))
    shutil.rmtree(folder / "networks")
    progress = measured(folder, units(("sgd", "adam")))
    assert progress.widths == [(0, True), (1, True)]
    assert not progress.warned


def test_stopped_between_two_networks_it_goes_on_with_that_seed(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)

    class Stopping(Progress):
        told = ""

        def measuring(self, what: str, done: float, total: int) -> None:
            self.told = what
            assert total == 2

        def stop(self) -> bool:
            return self.told == "seed 1: widths of adam"

    with pytest.raises(Stopped):
        measured(folder, units(("sgd", "adam")), Stopping())
    assert [path.name for path in (folder / "widths").iterdir()] == ["seed0.json"]
    assert measured(folder, units(("sgd", "adam"))).widths == [(0, True), (1, False)]


def test_what_cannot_be_measured_is_recorded_not_raised(networks: Path, tmp_path: Path) -> None:
    folder = copied(networks, tmp_path)
    path = folder / "networks" / "final-adam-lr0.01-seed0.safetensors"
    network = quick.network()
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
    save_weights(network, path, {})
    assert measured(folder, units(("sgd", "adam"))).widths == [(0, False), (1, False)]
    assert "'adam' cannot be measured" in record(folder, 0)["reason"]
    assert "rows" not in record(folder, 0)
    assert record(folder, 1)["reason"] is None
    assert measured(folder, units(("sgd", "adam"))).widths == [(0, True), (1, True)]


def test_a_seed_of_another_process_is_waited_for(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("widevalley.experiments.sharing.PATIENCE", 0.01)
    folder = copied(networks, tmp_path / "shared")
    measured(copied(networks, tmp_path / "other"), units(("sgd", "adam")))
    lock = Folder(folder).try_lock(module._Seed(0, {}))
    assert lock.__enter__()

    class Waiting(Progress):
        def waiting(self, left) -> None:
            super().waiting(left)
            assert [seed.name for seed in left] == ["widths-seed0"]
            shutil.copy(tmp_path / "other" / "widths" / "seed0.json", folder / "widths")
            lock.__exit__(None, None, None)

    progress = measured(folder, units(("sgd", "adam")), Waiting())
    assert progress.waited == 1
    assert progress.widths == [(1, False), (0, True)]


def test_compare_measures_after_its_final_runs_and_goes_on(tmp_path: Path) -> None:
    plan = quick.plan("entropy-sgd", "sgd", rates=1, epochs=1)
    compare(plan, quick.digits(), tmp_path, resume=False, progress=Progress())
    assert list(record(tmp_path, 1)["networks"]) == ["sgd", "entropy-sgd"]
    kept = (tmp_path / "widths" / "seed0.json").read_bytes()
    (tmp_path / "widths" / "seed1.json").unlink()
    progress = Progress()
    compare(plan, quick.digits(), tmp_path, resume=True, progress=progress)
    assert progress.widths == [(0, True), (1, False)]
    assert (tmp_path / "widths" / "seed0.json").read_bytes() == kept
    assert read(tmp_path).widths[1].methods == ("sgd", "entropy-sgd")
    assert "How wide the valleys are" in page_of(tmp_path)


def test_a_network_with_its_logits_scaled_is_no_wider(networks: Path, tmp_path: Path) -> None:
    """The same network under two names, surer of itself in one, at every seed: undecided by all measures."""
    folder = copied(networks, tmp_path)
    synthetic.write_comparison(folder)
    for seed in (0, 1):
        network = quick.network()
        network.load_state_dict(load_file(Folder(folder).weights(quick.unit("sgd", seed=seed))))
        surer = copy.deepcopy(network)
        with torch.no_grad():
            surer[-1].weight.mul_(8.0)
            surer[-1].bias.mul_(8.0)
        save_weights(surer, Folder(folder).weights(quick.unit("entropy-sgd", seed=seed)), {})
    measured(folder, units(("entropy-sgd", "sgd")))
    comparison = read(folder)
    assert all(seed.losses["sgd"] != pytest.approx(seed.losses["entropy-sgd"], rel=0.1) for seed in comparison.widths)
    found = width_ratios(comparison)
    assert {ratio.verdict for ratio in found["entropy-sgd"] if ratio.invariant} == {"undecided"}
    assert overall(comparison, found) == {"entropy-sgd": "undecided"}


# ------------------------------------------------------------------ what several seeds say together


def write_widths(folder: Path, ratios, seeds=(0, 1, 2), methods=("sgd", "entropy-sgd"), **changes) -> None:
    """Files in which each measure of entropy-sgd is a ratio (by measure, by seed) of sgd's 2, 3, …"""
    (folder / "widths").mkdir(exist_ok=True)
    for place, seed in enumerate(seeds):
        rows = [
            {
                "measure": name,
                "invariant": name in INVARIANT,
                "values": {"sgd": 2.0 + seed, "entropy-sgd": (2.0 + seed) * ratios[name][place]},
                "intervals": {method: [0.0, 9.0] for method in methods},
                "verdicts": {"entropy-sgd": "wider" if name in INVARIANT else "not comparable because raw"},
            }
            for name in (*RAW, *INVARIANT)
        ]
        content = {
            "kind": "widths",
            "task": "digits",
            "seed": seed,
            "networks": {method: f"final-{method}-lr0.1-seed{seed}" for method in methods},
            "examples": 1000,
            "products": 20,
            "reason": None,
            "losses": dict.fromkeys(methods, 0.1),
            "matched_losses": dict.fromkeys(methods, 0.1),
            "rows": rows,
            "verdicts": {"entropy-sgd": "undecided"},
            "caveats": [],
            "seconds": 1.5,
        } | changes
        (folder / "widths" / f"seed{seed}.json").write_text(json.dumps(content), encoding="utf-8")


WIDER = dict.fromkeys((*RAW, *INVARIANT), (0.5, 0.6, 0.45))


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    return synthetic.write_comparison(tmp_path)


def test_the_ratio_is_a_paired_geometric_mean_with_students_interval(complete: Path) -> None:
    write_widths(complete, WIDER)
    (ratio, *_) = (r for r in width_ratios(read(complete))["entropy-sgd"] if r.invariant)
    log = np.log([0.5, 0.6, 0.45])
    ends = ttest_1samp(log, 0.0).confidence_interval(0.95)
    assert ratio.interval.mean == pytest.approx((0.5 * 0.6 * 0.45) ** (1 / 3))
    assert (ratio.interval.low, ratio.interval.high) == pytest.approx((math.exp(ends.low), math.exp(ends.high)))
    assert (ratio.seeds, ratio.verdict) == (3, "wider")
    assert ratio.values == pytest.approx((1.0, 1.8, 1.8))


def test_the_verdict_is_the_intervals_and_the_valleys_takes_all_measures(complete: Path) -> None:
    write_widths(complete, WIDER | {"filter_trace": (0.5, 1.8, 0.7), "element_trace": (2.0, 2.2, 1.9)})
    comparison = read(complete)
    found = width_ratios(comparison)
    verdicts = {ratio.measure: ratio.verdict for ratio in found["entropy-sgd"]}
    assert verdicts["filter_trace"] == "undecided"
    assert verdicts["element_trace"] == "narrower"
    assert verdicts["element_lambda_max"] == "wider"
    assert {verdicts[name] for name in RAW} == {""}
    assert overall(comparison, found) == {"entropy-sgd": "undecided"}
    write_widths(complete, WIDER | {"trace": (2.0, 2.2, 1.9)})
    comparison = read(complete)
    assert overall(comparison, width_ratios(comparison)) == {"entropy-sgd": "wider"}


def test_a_measure_that_is_not_positive_has_no_ratio(complete: Path) -> None:
    write_widths(complete, WIDER | {"element_trace": (0.5, -0.6, 0.45)})
    comparison = read(complete)
    found = width_ratios(comparison)
    (ratio,) = (r for r in found["entropy-sgd"] if r.measure == "element_trace")
    assert math.isnan(ratio.interval.mean)
    assert ratio.verdict == "undecided"
    assert overall(comparison, found) == {"entropy-sgd": "undecided"}
    assert "undecided" in Page(page_of(complete)).tables["Table of widths"]["entropy-sgd"][4]


def test_differences_within_rounding_are_undecided(complete: Path) -> None:
    write_widths(complete, dict.fromkeys((*RAW, *INVARIANT), (0.999, 0.9991, 0.9992)))
    assert {ratio.verdict for ratio in width_ratios(read(complete))["entropy-sgd"]} == {"", "undecided"}


def test_a_seed_whose_losses_were_not_matched_is_left_out(complete: Path) -> None:
    write_widths(complete, WIDER)
    write_widths(
        complete, dict.fromkeys(WIDER, (9.0,)), seeds=(2,), verdicts={"entropy-sgd": "not comparable because its loss"}
    )
    found = width_ratios(read(complete))["entropy-sgd"]
    assert {ratio.seeds for ratio in found} == {2}
    assert "Seed 2: entropy-sgd: not comparable because its loss" in Page(page_of(complete)).text


def test_of_one_seed_the_verdict_is_that_of_its_networks(complete: Path) -> None:
    write_widths(complete, WIDER, seeds=(1,))
    comparison = read(complete)
    found = width_ratios(comparison)
    assert {ratio.verdict for ratio in found["entropy-sgd"] if ratio.invariant} == {"wider"}
    assert overall(comparison, found) == {"entropy-sgd": "undecided"}
    assert "of these networks alone" in finding(comparison, found)
    assert "these weights only" in Page(page_of(complete)).text


def test_the_section_of_the_page(complete: Path) -> None:
    write_widths(complete, WIDER)
    text = page_of(complete)
    page = Page(text)
    assert "How wide the valleys are" in page.text
    assert "the valley is wider than sgd’s for entropy-sgd." in page.text
    cells = page.tables["Table of widths"]["entropy-sgd"]
    assert len(cells) == 2 + 8
    assert cells[0] == "wider3 seeds"
    assert cells[2].startswith("wider")
    assert "× 0.513 (" in cells[2]
    # Raw measures come last, without a verdict.
    assert all(not cell.startswith(("wider", "narrower", "undecided")) for cell in cells[7:])
    assert page.tables["Table of widths"]["sgd"][0] == "the baseline"
    assert figures(text)["ratios-of-widths"] == 1


def test_folders_without_widths_have_no_section(complete: Path) -> None:
    text = page_of(complete)
    assert "How wide the valleys are" not in text
    assert "valley is" not in text


def test_the_reason_why_a_seed_was_not_measured_stands_on_the_page(complete: Path) -> None:
    write_widths(complete, WIDER)
    path = complete / "widths" / "seed1.json"
    content = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("rows", "verdicts", "losses")}
    path.write_text(json.dumps(content | {"reason": "the loss is not finite"}))
    comparison = read(complete)
    assert comparison.widths[1].reason == "the loss is not finite"
    assert {ratio.seeds for ratio in width_ratios(comparison)["entropy-sgd"]} == {2}
    assert "Seed 1: not measured, the loss is not finite" in Page(page_of(complete)).text


def test_a_damaged_file_is_named(complete: Path) -> None:
    write_widths(complete, WIDER)
    (complete / "widths" / "seed1.json").write_text('{"seed": 1')
    with pytest.raises(ResultsError, match=r"seed1\.json"):
        read(complete)


def test_records_are_frozen(complete: Path) -> None:
    write_widths(complete, WIDER)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(complete).widths[0].seed = 3
