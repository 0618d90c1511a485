"""Units of work that several processes share out through the locks of one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from widevalley.experiments.folder import Folder, Named
from widevalley.experiments.recording import Progress
from widevalley.experiments.train import Stopped

# Seconds between two looks at units that other processes have.
PATIENCE = 1.0

Item = TypeVar("Item", bound=Named)
Result = TypeVar("Result")


def share(
    units: Iterable[Item],
    folder: Folder,
    progress: Progress,
    *,
    ended: Callable[[Item], Result | None],
    work: Callable[[Item], Result],
    tell: Callable[[Item, Result, bool], None],
    ready: Callable[[Item], bool] = lambda item: True,
) -> list[tuple[Item, Result]]:
    """Works the units off one after the other, leaving those alone that other processes are at.

    Returns when all have a result, whoever got it, in the order given.

    Args:
        ended: the result of a unit that has one.
        work: what makes it; the unit is this process's alone meanwhile.
        tell: told of each result, and whether it was there already.
        ready: whether a unit can be worked off yet; some wait for the results of others.

    Raises Stopped when ``progress`` asks for it.
    """
    open_units = list(units)
    results: dict[str, tuple[Item, Result]] = {}
    order = [unit.name for unit in open_units]
    while open_units:
        left = []
        for unit in open_units:
            found = ended(unit)
            if found is None and not ready(unit):
                left.append(unit)
                continue
            if found is None:
                with folder.try_lock(unit) as ours:
                    # Looked at again: another process may have ended it and let go in between.
                    found = ended(unit)
                    if found is None and not ours:
                        left.append(unit)
                        continue
                    result = work(unit) if found is None else found
            else:
                result = found
            tell(unit, result, found is not None)
            results[unit.name] = unit, result
        if len(left) == len(open_units):
            progress.waiting(left)
            time.sleep(PATIENCE)
        if progress.stop():
            raise Stopped
        open_units = left
    return [results[name] for name in order]
