"""The tables of what the paper says and a reproduction measures once, or reads off its spectra."""

from __future__ import annotations

from markupsafe import Markup

from widevalley.experiments import local_gradient_plots as direction
from widevalley.experiments.measured import Eigenvalues, Measurement
from widevalley.experiments.records import Record
from widevalley.experiments.tables import Heads, Table, significant, with_error

ROWS = {
    "model": "Fisher information, the model’s",
    "empirical": "Fisher information, empirical",
    "adam": "Adam’s moments",
    "adam_per_sample": "Adam’s moments × batch size",
}
# The paper's scopes on MNIST, and how near to 0 an eigenvalue may be for Lemma 2: "some small c > 0" there.
GAMMAS, NEAR = (0.1, 1.0), 1e-4
# The paper's number of inner steps, at which the cosine with ∇f is told.
PAPERS = 20
NETWORKS = {"relu": "with ReLU", "tanh": "with tanh"}


def directions(record: Record) -> list[Table]:
    """For each point of training a row for each γ and way to estimate; cells say cosine ± deviation × length."""
    return [_direction(point) for point in record["points"]]


def _direction(point: Record) -> Table:
    lengths = sorted({each["inner_steps"] for scope in point["scopes"] for each in scope["estimates"]})
    heads: Heads = (("Inner loop", ""), *((f"L = {length}", "cosine, times length") for length in lengths))
    shown = next((length for length in lengths if length >= PAPERS), lengths[-1])
    heads += (("Cosine with ∇f", f"at L = {shown}"),)
    rows = []
    for scope in point["scopes"]:
        for which, name in direction.NAMES.items():
            found = direction.estimates(scope, which)
            aside = next(each["cosine_to_gradient"][0] for each in found if each["inner_steps"] == shown)
            cells = (*(_cosine(each) for each in found), f"{aside:.2f}".replace("-", "−"))
            rows.append((_at(name, scope), cells))
        reference = scope["reference"]
        bound = f"{reference['attainable_cosine']:.3f}"
        cells = (*[bound] * len(lengths), f"{reference['cosine_to_gradient']:.2f}")
        rows.append((_at("without any error", scope), cells))
    loss, norm = significant(point["loss"], 3), significant(point["gradient_norm"], 2)
    caption = f"{direction.POINTS[point['name']]}: after {point['steps']:,} steps, f = {loss}, ‖∇f‖ = {norm}"
    return Table(caption, heads, tuple(rows))


def _at(name: str, scope: Record) -> str:
    return Markup("{} <small>γ = {:g}</small>").format(name, scope["gamma"])


def _cosine(estimate: Record) -> str:
    mean, deviation = estimate["cosine"]
    said = with_error(mean, deviation if estimate["repeats"] > 1 else None, 2).replace("-", "−")
    return said if estimate["ratio"] is None else f"{said}, × {significant(estimate['ratio'][0], 2)}"


def fisher(record: Record) -> list[Table]:
    """A table a network: the Hessian's diagonal, and what is said to be equal to it."""
    return [_fisher(network, record["threshold"]) for network in record["networks"]]


def _fisher(network: Record, threshold: float) -> Table:
    heads: Heads = (("Diagonal", ""), ("Trace", ""), ("Sum / Hessian’s", ""), ("Median ratio", ""))
    heads += (("Correlation", "Pearson’s, Spearman’s"), ("Zero", "%"), (f"Below {threshold:g}", "%"))
    own = network["hessian"]
    trace = with_error(own["trace"], own["trace_error"], 1)
    rows = [("Hessian", (trace, "1", "1", "1, 1", _percent(own["share_zero"]), _percent(own["share_below"])))]
    for name, title in ROWS.items():
        found = network["diagonals"][name]
        cells = (
            significant(found["trace"], 4),
            significant(found["ratio"], 3),
            significant(found["median_ratio"], 3),
            f"{found['correlation']:.3f}, {found['rank_correlation']:.3f}",
            _percent(found["share_zero"]),
            _percent(found["share_below"]),
        )
        rows.append((title, cells))
    return Table(_of(network), heads, tuple(rows))


def _of(network: Record) -> str:
    own = network["hessian"]
    ends = f"λ from {significant(own['lowest_eigenvalue'], 3)} to {significant(own['largest_eigenvalue'], 4)}"
    difference = f"‖H − G‖ / ‖H‖ = {significant(own['difference'], 2)}"
    return f"784-64-10 {NETWORKS[network['name']]}, test error {network['test_error']:.2f} %: {difference}, {ends}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def lemma_2(measurement: Measurement) -> Table:
    """A row a network: how many of its eigenvalues lie where Lemma 2 assumes that there are none (Sec. 4.4)."""
    heads: Heads = (("Network", ""), *((f"γ = {gamma:g}", "% in [−2γ − c, c]") for gamma in GAMMAS))
    heads += (("Above c", "%"),)
    rows = []
    for name, network in measurement.networks.items():
        assert isinstance(network.spectrum, Eigenvalues)
        found = network.spectrum.eigenvalues
        shares = [float(((found >= -2 * gamma - NEAR) & (found <= NEAR)).mean()) for gamma in GAMMAS]
        rows.append((name, tuple(_percent(share) for share in (*shares, float((found > NEAR).mean())))))
    return Table(f"Eigenvalues that Lemma 2 assumes away, c = {NEAR:g}", heads, tuple(rows))
