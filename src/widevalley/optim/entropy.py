"""Entropy-SGD and Entropy-Adam: the paper's algorithm with SGD, or Adam, in both loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from widevalley.optim import settings as default
from widevalley.optim.nested import NestedOptimizer, Schedule
from widevalley.optim.settings import check_group


class EntropySGD(NestedOptimizer):
    """Entropy-SGD (Chaudhari et al., Algorithm 1): SGD with momentum inside SGD with momentum.

    With ``pull=None`` and T = 1 it minimises ρ f(x) − F(x, γ), with the local entropy
    F(x, γ) = log ∫ exp(−f(x′) − γ/2 ‖x − x′‖²) dx′, whose gradient is −γ(x − ⟨x′⟩) (Eqs. 6 and 7): L steps of Langevin
    dynamics around x estimate ⟨x′⟩ by μ. The default pull follows −∇F/γ instead, and at the default T = 0 the inner
    loop descends f(x′) + γ/2 ‖x − x′‖² without noise. With x′ = μ = x at its start, a cycle is::

        L times:   d  = ∇f(x′; ξ) + λx′ + γ(x′ − x)
                   v  ← m v + d,   x′ ← x′ − η′ v  (Nesterov: − η′(d + m v))  + √(2η′T) N(0, I)
                   μ  ← (1 − α)μ + αx′
        then:      x  ← x − η(ρ(∇f(x; ξ) + λx) + c(x − μ))

    It replaces ``torch.optim.SGD`` in one line: ``lr``, its schedule, ``momentum``, ``nesterov`` and ``weight_decay``
    mean the step that each gradient takes, as there. On a constant gradient, plain inner steps and γ = 0, the centre
    moves L − (1 − α)(1 − (1 − α)^L)/α steps of SGD a cycle of L gradients.

    Args:
        params: parameters, named parameters or groups; each setting below but ``inner_steps``, ``rho`` and ``seed`` may
            be given in a group.
        lr: η′, step of each gradient.
        momentum, nesterov: of the inner loop, as in ``torch.optim.SGD``. ``nesterov`` applies in each loop whose
            momentum is > 0.
        weight_decay: λ, coupled L2: part of f in both loops.
        outer_lr, outer_momentum: of the outer loop; η a number or a function of the count t of outer updates.
        inner_steps, gamma, rho, alpha, pull, temperature, restart, decoupled_pull, seed, check_finite: see
            ``NestedOptimizer``.

    ``presets.paper`` and ``presets.authors`` are the settings of the text and of the authors' later runs. The defaults
    are neither: they are meant for a learning rate tuned for SGD (``docs/choosing.md`` has the measurements).

    Cost and state as ``NestedOptimizer``; a momentum for each loop that has one, like the parameters.
    """

    _decay_at_center = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        restart: bool = default.RESTART,
        decoupled_pull: bool = False,
        outer_lr: float | Schedule = 1.0,
        outer_momentum: float = 0.0,
        inner_steps: int = default.INNER_STEPS,
        gamma: float | Schedule = default.GAMMA,
        rho: float = 0.0,
        alpha: float = default.ALPHA,
        pull: float | None = 1.0,
        temperature: float = default.TEMPERATURE,
        seed: int = 0,
        check_finite: bool = False,
    ) -> None:
        own = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        groups = _groups(params, {**own, "outer_momentum": outer_momentum})
        inner = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
        inner.defaults.update(nesterov=nesterov, outer_momentum=outer_momentum)
        super().__init__(
            inner,
            restart=restart, decoupled_pull=decoupled_pull, outer_lr=outer_lr, inner_steps=inner_steps, gamma=gamma,
            rho=rho, alpha=alpha, pull=pull, temperature=temperature, seed=seed, check_finite=check_finite,
        )  # fmt: skip
        self._build_outer()

    def _adopt(self, group: dict[str, Any]) -> None:
        check_group(group)
        if group["outer_lr"] is None:
            raise TypeError("outer_lr=None is not a number: give one > 0, such as 1.0, or a function of t")
        _fuse(group)
        super()._adopt(group)
        self._prepare()

    def _prepare(self) -> None:
        # A zero buffer is as good as none, and torch's fused SGD fails where a first gradient comes late.
        for group in self.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if self.inner.state[p].get("momentum_buffer") is None:
                    self.inner.state[p]["momentum_buffer"] = torch.zeros_like(p)

    def _close_cycle(self, with_rho: bool) -> None:
        self._build_outer()
        super()._close_cycle(with_rho)

    def _build_outer(self) -> None:
        """An outer SGD, from when a group has momentum for it, be it added late or changed by hand."""
        if self.outer is None and any(group["outer_momentum"] for group in self.param_groups):
            self.outer = torch.optim.SGD([self._outer_group(group) for group in self.param_groups], lr=1.0)
            self._link_outer()

    def _renew(self, inner_state: dict[str, Any]) -> None:
        for buffer in inner_state.values():
            if buffer is not None:
                buffer.zero_()

    def _outer_settings(self, group: dict[str, Any]) -> dict[str, Any]:
        momentum = group["outer_momentum"]
        return {"lr": group["outer_lr"], "momentum": momentum, "nesterov": group["nesterov"] and momentum > 0}


class EntropyAdam(NestedOptimizer):
    """Entropy-SGD with Adam in both loops (Sec. 4.3, last paragraph).

    The inner Adam sees ∇f(x′; ξ) + λx′ + γ(x′ − x), the outer one ρ(∇f(x; ξ) + λx) + c(x − μ), each with the bias
    corrections of ``torch.optim.Adam``. T is only the size of the noise here, not the temperature of a chain.

    Args:
        params: as in ``EntropySGD``.
        lr: η′, step of each gradient, as tuned for Adam.
        betas, eps: of the inner Adam; ``eps`` of the outer one too.
        outer_betas: of the outer Adam. It steps L times more rarely than the inner one, so torch's (0.9, 0.999) would
            look back over L times more gradients; on the digits its validation loss was higher at both rates tried.
        weight_decay: λ, coupled L2 (not AdamW's): part of f in both loops.
        outer_lr: η: a number or a function of t. None: the present ``lr`` times the number of inner steps of the cycle
            that ends, with which the centre moves, on a constant gradient, as far as Adam does at the same ``lr``.
            The scale of x − μ cancels in Adam, so that a constant would have to be tuned with ``lr``.
        inner_steps, gamma, rho, alpha, pull, temperature, restart, decoupled_pull, seed, check_finite: see
            ``NestedOptimizer``.

    Cost and state as ``NestedOptimizer``; two moments for each loop, like the parameters.
    """

    _decay_at_center = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        outer_betas: tuple[float, float] = (0.0, 0.99),
        weight_decay: float = 0.0,
        restart: bool = default.RESTART,
        decoupled_pull: bool = False,
        outer_lr: float | Schedule | None = None,
        inner_steps: int = default.INNER_STEPS,
        gamma: float | Schedule = default.GAMMA,
        rho: float = 0.0,
        alpha: float = default.ALPHA,
        pull: float | None = 1.0,
        temperature: float = default.TEMPERATURE,
        seed: int = 0,
        check_finite: bool = False,
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = _groups(params, {**own, "outer_betas": outer_betas})
        inner = torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        inner.defaults.update(outer_betas=outer_betas)
        super().__init__(
            inner, torch.optim.Adam,
            restart=restart, decoupled_pull=decoupled_pull, outer_lr=outer_lr, inner_steps=inner_steps, gamma=gamma,
            rho=rho, alpha=alpha, pull=pull, temperature=temperature, seed=seed, check_finite=check_finite,
        )  # fmt: skip

    def _adopt(self, group: dict[str, Any]) -> None:
        check_group(group)
        _fuse(group)
        super()._adopt(group)

    def _outer_settings(self, group: dict[str, Any]) -> dict[str, Any]:
        taken = min(max(group["cycle_position"], 1), group["inner_steps"])
        eta = float(group["lr"]) * taken if group["outer_lr"] is None else group["outer_lr"]
        return {"lr": eta, "betas": group["outer_betas"], "eps": group["eps"]}


def _groups(params: ParamsT, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups with all settings filled in and checked."""
    check_group(settings)
    if isinstance(params, Tensor):
        raise TypeError("params is a tensor: give an iterable of parameters or of groups, such as model.parameters()")
    try:
        given: list[Any] = list(params)
    except TypeError:
        raise TypeError(
            f"params={params!r} is not an iterable: give parameters or groups, such as model.parameters()"
        ) from None
    if not given:
        raise ValueError("params is empty: give at least one parameter")
    groups: list[dict[str, Any]] = [{**group} for group in given] if isinstance(given[0], dict) else [{"params": given}]
    for group in groups:
        if "params" not in group:
            raise ValueError(f"a group has no 'params', only {sorted(group)}: give its parameters there")
        members = group["params"]
        group["params"] = (
            [members] if isinstance(members, Tensor) else members if isinstance(members, set) else list(members)
        )
        for name, value in settings.items():
            group.setdefault(name, value)
        check_group(group)
    return groups


def _fuse(group: dict[str, Any]) -> None:
    """Fused arithmetic where torch has it and the caller has not chosen."""
    plain = all(
        type(p) in (Tensor, torch.nn.Parameter) and p.is_floating_point() and p.device.type in ("cpu", "cuda")
        for p in group["params"]
    )
    if plain and group.get("fused") is None and not group.get("foreach"):
        group["fused"] = True
