"""What a group of a nested optimizer holds, its defaults, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from widevalley.validation import flag, integer, pair_of_betas, real

# Defaults with which a newcomer passes only the parameters and the learning rate that SGD had. L and α are the authors'
# later runs'; γ lies between their MNIST and CIFAR-10 values. The measurements behind them
# (results/defaults/digits.jsonl, read in docs/choosing.md) rule out γ = 1 and T = 1/N, and show that restarting slows
# training down; among the rest they do not decide.
INNER_STEPS = 20
GAMMA = 1e-2
ALPHA = 0.25
TEMPERATURE = 0.0
RESTART = False

# What a nested optimizer adds to the groups of its inner optimizer.
OWN = (
    "inner_steps", "gamma", "rho", "alpha", "pull", "temperature", "restart", "decoupled_pull", "outer_lr", "seed",
)  # fmt: skip

# What may be a function of the count t of outer updates.
SCHEDULED = ("gamma", "outer_lr")

# One value for the whole optimizer, repeated in each group; a group that differs is refused.
WHOLE = ("inner_steps", "rho", "seed")

# What a checkpoint needs beside tensors. ``inner_updates`` counts inner steps, for the noise; ``outer_updates`` is t.
COUNTERS = {"cycle_position": 0, "inner_updates": 0, "outer_updates": 0, "at_center": False}


def key_of(name: str, inner: Optimizer) -> str:
    """The key of our setting in a group: ``name``, unless the inner optimizer has one of that name itself."""
    return f"nested_{name}" if name in inner.defaults else name


def own(group: dict[str, Any], name: str) -> Any:
    """Our setting of that name, not the inner optimizer's."""
    key = f"nested_{name}"
    return group[key] if key in group else group[name]


def check_group(group: dict[str, Any]) -> None:
    """Refuses wrong types and values among the settings that a group holds.

    Raises:
        TypeError, ValueError: naming the argument, the value and the remedy.
    """
    for name, check in _CHECKS.items():
        if name in group:
            check(name, group[name])
    if group.get("nesterov") and "outer_momentum" in group and not (group["momentum"] or group["outer_momentum"]):
        raise ValueError(
            f"nesterov={group['nesterov']!r} needs momentum > 0 or outer_momentum > 0, but both are 0: give one, or "
            "nesterov=False"
        )


def check_movable(group: dict[str, Any]) -> None:
    """Refuses settings with which the centre can never move."""
    gamma, pull, rho = group["gamma"], group["pull"], group["rho"]
    if rho == 0 and (pull == 0 or (pull is None and not callable(gamma) and gamma == 0)):
        raise ValueError(
            f"gamma={gamma!r} with pull={pull!r} and rho={rho!r} never moves the centre: give pull=1.0 (x ← x − "
            f"η(x − μ)), "
            "or gamma > 0, or rho > 0"
        )


def check_settings(group: dict[str, Any], first: dict[str, Any]) -> None:
    """Refuses a group whose settings are wrong, can never move, or differ from the first's where one is for all."""
    if group.get("maximize"):
        raise ValueError(
            f"maximize={group['maximize']!r} would turn the pull away from the centre: give maximize=False and the "
            "negative of what is to be maximized"
        )
    settings = {name: own(group, name) for name in OWN}
    check_group(settings)
    check_movable(settings)
    for name in SCHEDULED:
        if callable(settings[name]):
            scheduled(name, settings[name], first.get("outer_updates", 0))
    for name in WHOLE:
        if settings[name] != own(first, name):
            raise ValueError(
                f"{name}={settings[name]!r} in one group but {own(first, name)!r} in another: it is one for the whole "
                "optimizer, so give it to the constructor alone"
            )


def scheduled(name: str, function: Callable[[int], float], t: int) -> float:
    """function(t), refused unless it is a finite number >= 0 (a constant η of 0 would never move; a schedule may end
    there).

    Raises:
        TypeError, ValueError: naming the setting, the value and t.
    """
    try:
        value = function(t)
    except Exception as error:
        raise ValueError(f"{name}={function!r} failed at t = {t} ({error!r}): give a function of that count") from error
    try:
        real(name, value, minimum=0.0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"at t = {t} its function gave {error}") from None
    return float(value)


def _nonnegative(name: str, value: Any) -> None:
    real(name, value, minimum=0.0)


def _momentum(name: str, value: Any) -> None:
    real(name, value, minimum=0.0, below=1.0)


def _alpha(name: str, value: Any) -> None:
    real(name, value, above=0.0, maximum=1.0)


def _gamma(name: str, value: Any) -> None:
    if not callable(value):
        real(name, value, minimum=0.0)


def _outer_lr(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        real(name, value, above=0.0)


def _pull(name: str, value: Any) -> None:
    if value is not None:
        real(name, value, minimum=0.0)


def _inner_steps(name: str, value: Any) -> None:
    integer(name, value, minimum=1)


def _seed(name: str, value: Any) -> None:
    integer(name, value, minimum=0, maximum=2**64 - 1)


_CHECKS = {
    "lr": _nonnegative,
    "momentum": _momentum,
    "nesterov": flag,
    "betas": pair_of_betas,
    "outer_betas": pair_of_betas,
    "eps": _nonnegative,
    "weight_decay": _nonnegative,
    "restart": flag,
    "decoupled_pull": flag,
    "outer_lr": _outer_lr,
    "outer_momentum": _momentum,
    "inner_steps": _inner_steps,
    "gamma": _gamma,
    "rho": _nonnegative,
    "alpha": _alpha,
    "pull": _pull,
    "temperature": _nonnegative,
    "seed": _seed,
}
