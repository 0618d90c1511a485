"""SGD inside SGD as one loop: any torch optimizer takes the inner steps, any other follows their average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from widevalley.optim import checkpoint, cycle, links
from widevalley.optim import settings as default
from widevalley.optim.refusals import has_gradients, refuse, refuse_other_parameters
from widevalley.optim.settings import COUNTERS, OWN, SCHEDULED, check_group, check_settings, key_of, own, scheduled
from widevalley.optim.switch import CenterSwitch
from widevalley.validation import flag, plain

Schedule = Callable[[int], float]


class NestedOptimizer(Optimizer):
    """Entropy-SGD's two loops around any torch optimizer: ``NestedOptimizer(your_tuned_optimizer)``.

    One ``step()`` consumes one minibatch gradient. The optimizer moves itself through the cycle of Algorithm 1::

        calls 1 … L    x′ ← inner step on ∇f(x′; ξ) + γ(x′ − x);  x′ ← x′ + √(2η′T) N(0, I)
                       μ  ← (1 − α)μ + αx′
        call  L + 1    only if ρ > 0: parameters hold x, a fresh minibatch gives ∇f(x; ξ)
        end of cycle   x  ← outer step on ρ∇f(x) + c(x − μ);  x′ ← x, μ ← x

    ==================  ======  ===========================================================================
    argument            symbol  meaning
    ==================  ======  ===========================================================================
    ``lr`` of inner     η′      step that each gradient takes; what a scheduler moves
    ``inner_steps``     L       inner steps a cycle
    ``gamma``           γ       scope: a number, or a function of the count t of outer updates
    ``rho``             ρ       weight of the loss gradient at the centre; > 0 costs one more gradient a cycle
    ``alpha``           α       weight of the newest sample in μ, in (0, 1]
    ``pull``            c       1.0: x ← x − η(x − μ), the authors' later form; None: c = γ, line 9 of the paper
    ``temperature``     T       each inner step adds a Gaussian displacement of variance 2η′T (line 5). T is the
                                chain's temperature for plain inner SGD alone; the text's 2√η′ is T = 2
    ``outer_lr``        η       outer step: a number, or a function of t
    ==================  ======  ===========================================================================

    f is the loss whose gradient ``backward()`` leaves in ``p.grad``: with a mean over the batch, a mean.

    Args:
        inner: an optimizer over the model's parameters. Its ``param_groups`` become this optimizer's own (the same
            list), so its schedulers go on working; every argument below may be given in a group, except
            ``inner_steps``, ``rho`` and ``seed``, which are one for the whole optimizer. Where the inner optimizer
            has a setting of the same name (RMSprop's ``alpha``, Adadelta's ``rho``), the groups hold ours as
            ``nested_alpha``, ``nested_rho``. From now on it belongs to the nested optimizer: neither step it nor load
            into it.
        outer: a function from ``[{"params": centres, …}, …]`` (in the order of the groups) to an optimizer, such as
            ``lambda groups: torch.optim.SGD(groups, lr=0.7, momentum=0.9, nesterov=True)``. None: x ← x − η c(x − μ).
        restart: True: the inner optimizer's state is as new at each cycle. False keeps momenta and step counts.
        decoupled_pull: False: γ(x′ − x) is part of the gradient that the inner optimizer sees (line 4).
            True: x′ ← x′ − η′γ(x′ − x) beside its step, at the x′ before it, so that momentum does not see the pull.
        outer_lr: None: 1.0 without ``outer``, else whatever rate ``outer`` has; a number or function is written into
            the outer optimizer's groups at each update.
        seed: of the private noise stream; the global random state is never consumed.
        check_finite: a NaN or infinite gradient raises before anything is touched. Costs a pass over the gradients.

    Deviations from the paper: the average μ and the momenta are the only memory between steps, as in Algorithm 1, but
    ``restart=False`` (the default) keeps the inner optimizer's state over the cycle's end; line 9 is ``pull=None``.

    Cost: one gradient a step, as SGD. State: x and μ beside the inner optimizer's, and on a CPU a scratch tensor that
    is not saved, each like the parameters (``docs/choosing.md`` has the table).

    Evaluate, save and ship at the centre: ``with optimizer.at_center(): …``, or
    ``center_state_dict(model, optimizer)``.

    Raises:
        TypeError, ValueError: on arguments that are wrong, or that can never move the centre; LBFGS and others
            that need a closure several times.
        RuntimeError: from ``step()`` while the parameters are at the centre.
    """

    # Entropy-SGD and -Adam count weight decay as part of f, so at the centre too; here the decay is the inner one's.
    _decay_at_center = False

    def __init__(
        self,
        inner: Optimizer,
        outer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        *,
        inner_steps: int = default.INNER_STEPS,
        gamma: float | Schedule = default.GAMMA,
        rho: float = 0.0,
        alpha: float = default.ALPHA,
        pull: float | None = 1.0,
        temperature: float = default.TEMPERATURE,
        restart: bool = default.RESTART,
        decoupled_pull: bool = False,
        outer_lr: float | Schedule | None = None,
        seed: int = 0,
        check_finite: bool = False,
    ) -> None:
        if isinstance(inner, NestedOptimizer):
            raise TypeError("inner is a NestedOptimizer already: nest once, around the optimizer inside")
        refuse("inner", inner)
        if any("cycle_position" in group for group in inner.param_groups):
            raise ValueError(
                f"inner={type(inner).__name__} is nested in another NestedOptimizer already: make a new inner optimizer"
            )
        if outer is not None and not callable(outer):
            raise TypeError(f"outer={outer!r} is not a function: give one from the groups of centres to an optimizer")
        settings = {
            "inner_steps": inner_steps, "gamma": gamma, "rho": rho, "alpha": alpha, "pull": pull,
            "temperature": temperature, "restart": restart, "decoupled_pull": decoupled_pull,
            "outer_lr": outer_lr, "seed": seed,
        }  # fmt: skip
        flag("check_finite", check_finite)
        check_group(settings)
        renamed = {key_of(name, inner): value for name, value in settings.items()}
        self.inner = inner
        self.outer: Optimizer | None = None
        self.check_finite = check_finite
        self._schedules: list[dict[str, Schedule]] = []
        self._switch = CenterSwitch()
        self._blanks: dict[str, dict[Tensor, dict[str, Any]]] = {}
        self._scratch: dict[Tensor, Tensor] = {}
        given = [dict(group) for group in inner.param_groups]
        try:
            super().__init__(inner.param_groups, {**inner.defaults, **renamed, **COUNTERS})
            self.param_groups = inner.param_groups
            if outer is not None:
                self.outer = outer([self._outer_group(group) for group in self.param_groups])
                refuse("outer", self.outer)
                refuse_other_parameters(self.outer, [self._outer_group(group)["params"] for group in self.param_groups])
                self._link_outer()
        except Exception:
            for group, before in zip(inner.param_groups, given, strict=True):
                group.clear()
                group.update(before)
            raise

    # ------------------------------------------------------------------ the cycle

    @property
    def cycle_length(self) -> int:
        """Gradients a cycle: L, or L + 1 with ρ > 0."""
        group = self.param_groups[0]
        return int(own(group, "inner_steps")) + (1 if own(group, "rho") > 0 else 0)

    @property
    def cycle_position(self) -> int:
        """Gradients taken since the last outer update: 0 after construction and after each update."""
        return int(self.param_groups[0]["cycle_position"])

    @property
    def outer_updates(self) -> int:
        """The count t of outer updates."""
        return int(self.param_groups[0]["outer_updates"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Consumes the gradient that ``backward()`` left; the last one of a cycle also moves the centre.

        Args:
            closure: called once, with gradients enabled, as by torch's own optimizers; its loss is returned.

        A call in which no parameter has a gradient leaves the cycle where it is.
        """
        self._refuse_at_center("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._switch.confirm()
        self._adopt_new_groups()
        if not has_gradients(self.param_groups, self.check_finite):
            return loss
        position = self.cycle_position
        if position == 0:
            links.follow_model(self.state, self.inner, self.outer)
            cycle.open_cycle(self.param_groups, self.state)
        if position < own(self.param_groups[0], "inner_steps"):
            self._prepare()
            cycle.inner_step(self.inner, self.param_groups, self.state, self._scratch)
            self._count(cycle_position=position + 1, inner_updates=self.param_groups[0]["inner_updates"] + 1)
            if self.cycle_position == self.cycle_length:
                self._close_cycle(with_rho=False)
            elif self.cycle_position == own(self.param_groups[0], "inner_steps"):
                for _, p, state in self._writable():
                    p.copy_(state["center"])
        else:
            self._close_cycle(with_rho=True)
        return loss

    @torch.no_grad()
    def close_cycle(self) -> None:
        """Ends the cycle early: the outer update with the μ there is, without ρ's gradient. Nothing at position 0."""
        self._refuse_at_center("close_cycle()")
        self._switch.confirm()
        if self.cycle_position > 0:
            self._close_cycle(with_rho=False)

    def _prepare(self) -> None:
        """Before each inner step; nothing here."""

    def _renew(self, inner_state: dict[str, Any]) -> None:
        """Makes the inner optimizer's state of one parameter as new: it fills an empty one at its next step."""
        inner_state.clear()

    def _close_cycle(self, with_rho: bool) -> None:
        self._link_outer()
        cycle.pull_centers(self._writable(), self.outer is None, self._decay_at_center, with_rho)
        if self.outer is not None:
            for group, outer_group in zip(self.param_groups, self.outer.param_groups, strict=True):
                outer_group.update(self._outer_settings(group))
            self.outer.step()
            self.outer.zero_grad()
        for group, p, state in self._writable():
            p.copy_(state["center"])
            if own(group, "restart"):
                self._renew(self.inner.state[p])
        for state in self.state.values():
            state["average"].copy_(state["center"])
        self._count(cycle_position=0, outer_updates=self.outer_updates + 1)
        self._apply_schedules()

    # ------------------------------------------------------------------ the centre

    @contextmanager
    def at_center(self) -> Iterator[None]:
        """Inside, the parameters are x; afterwards they are x′ again, bit for bit, also after an exception.

        What is changed inside is discarded. It nests, also with ``eval()``.
        """
        self._switch.depth += 1
        try:
            self._move()
            yield
        finally:
            self._switch.depth -= 1
            self._move()

    def eval(self) -> None:
        """Moves the parameters to x until ``train()``; idempotent."""
        self._switch.evaluating = True
        self._move()

    def train(self) -> None:
        """Moves the parameters back to x′; idempotent. After a checkpoint taken at the centre was loaded: to its x′."""
        self._switch.evaluating = False
        self._move()
        self._switch.restore()

    @torch.no_grad()
    def _move(self) -> None:
        """Brings the parameters to where the switch says they belong."""
        if self._switch.at_center == self.param_groups[0]["at_center"]:
            return
        self._adopt_new_groups()
        if self._switch.at_center and self.cycle_position == 0:
            links.follow_model(self.state, self.inner, self.outer)
            cycle.open_cycle(self.param_groups, self.state)
        # First, so that a move that fails half way (out of memory) is undone when the context is left.
        self._count(at_center=self._switch.at_center)
        self._switch.move(lambda: [(p, state) for _, p, state in self._writable()])

    # ------------------------------------------------------------------ groups and state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group to the inner optimizer and gives it centres; in mid-cycle it joins with x = μ = p."""
        if any(param_group is group for group in self.inner.param_groups):
            super().add_param_group(param_group)
        else:
            self._refuse_at_center("add_param_group()")
            self.inner.add_param_group(param_group)
            param_group = self.inner.param_groups[-1]
            for name, value in self.defaults.items():
                param_group.setdefault(name, value)
        try:
            self._adopt(param_group)
        except Exception:
            if self.param_groups is self.inner.param_groups:
                self.param_groups.pop()
            raise

    def _adopt_new_groups(self) -> None:
        """Groups added to the inner optimizer by hand, and a list of groups put in place of the old one."""
        self.inner.param_groups = self.param_groups
        while len(self._schedules) < len(self.param_groups):
            group = self.param_groups[len(self._schedules)]
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            self._adopt(group)

    def _adopt(self, group: dict[str, Any]) -> None:
        """Gives a group's parameters their centres; nothing is changed if the group is refused."""
        first = self.param_groups[0] if self.param_groups else group
        check_settings(group, first)
        if own(group, "restart") and any(self.inner.state.get(p) for p in group["params"]):
            raise ValueError(
                f"restart={own(group, 'restart')!r} needs an inner optimizer without state, but this "
                f"{type(self.inner).__name__} has some already: give a new one of a kind that creates its state at the "
                "first step, or restart=False"
            )
        group.update({name: first[name] for name in COUNTERS})
        for name in OWN:
            # Python's own numbers: numpy's do not pass torch.load(weights_only=True).
            group[key_of(name, self.inner)] = plain(own(group, name))
        self._schedules.append({name: own(group, name) for name in SCHEDULED if callable(own(group, name))})
        for p in group["params"]:
            x = p.detach().to(cycle.center_dtype(p), copy=True)
            # Only the name, for torch.distributed.checkpoint: the inner optimizer holds its state itself.
            self.state[p] = {"center": x, "average": x.clone(), "inner": {}}
        self._blanks.clear()
        self._apply_schedules()
        if self.outer is not None:
            self.outer.add_param_group(self._outer_group(group))
            self._link_outer()

    def _apply_schedules(self) -> None:
        """Writes the present values of functions into the groups, as LambdaLR does with ``lr``."""
        for group, functions in zip(self.param_groups or [], self._schedules, strict=False):
            for name, function in functions.items():
                group[key_of(name, self.inner)] = scheduled(name, function, group["outer_updates"])

    def _outer_group(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"params": [self.state[p]["center"] for p in group["params"]], **self._outer_settings(group)}

    def _outer_settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """What the outer optimizer's group takes from the inner's at each update."""
        return {} if own(group, "outer_lr") is None else {"lr": own(group, "outer_lr")}

    def _link_outer(self) -> None:
        if self.outer is not None:
            links.point_outer_at_centers(self.outer, self.param_groups, self.state)

    def _writable(self) -> Iterator[tuple[dict[str, Any], Tensor, dict[str, Any]]]:
        """Group, parameter and state of all that the cycle may write: not of the frozen ones."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if p.requires_grad or "sample" in state:
                    yield group, p, state

    def _count(self, **values: int) -> None:
        for group in self.param_groups:
            group.update(values)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """As any optimizer's: tensors under ``"state"`` (x, μ, and in ``"inner"``, ``"outer"`` those of the two
        optimizers; at the centre x′ too), numbers under ``"param_groups"``. Functions are not saved."""
        self._adopt_new_groups()
        self._link_outer()
        self._switch.confirm()
        live = self.state
        self.state = checkpoint.completed(live, self._optimizers(), self._blanks)
        try:
            saved = super().state_dict()
        finally:
            self.state = live
        if self.outer is not None:
            for group, outer_group in zip(saved["param_groups"], self.outer.param_groups, strict=True):
                group["outer"] = {name: value for name, value in outer_group.items() if name != "params"}
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint, bit for bit; the constructor's functions for γ and η stay.

        Load the model first. Afterwards the optimizer is in train mode; of a checkpoint taken at the centre, x′ is put
        back into the parameters.

        Raises:
            ValueError: the groups do not match, or the dictionary is not a nested optimizer's.
            RuntimeError: inside ``at_center()``.
        """
        if self._switch.depth:
            raise RuntimeError("load_state_dict() inside at_center(): leave it first")
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        self._link_outer()
        samples = checkpoint.load(state_dict, self.param_groups, self.state, self._optimizers())
        self._switch.place(samples, self.state)
        self._count(at_center=False)
        self._apply_schedules()
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _optimizers(self) -> dict[str, Optimizer]:
        return {"inner": self.inner} if self.outer is None else {"inner": self.inner, "outer": self.outer}

    def __getstate__(self) -> dict[str, Any]:
        own = ("inner", "outer", "check_finite", "_schedules", "_switch", "_blanks")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}, "_scratch": {}}

    def _refuse_at_center(self, call: str) -> None:
        if self.param_groups[0]["at_center"]:
            raise RuntimeError(
                f"{call} while the parameters are at the centre: leave at_center(), or call optimizer.train(), first"
            )
