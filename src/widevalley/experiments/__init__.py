"""The comparisons behind the command: data, networks, training and the report.

For a task of your own: ``Task``, with its ``Data`` of ``Split``, which ``split`` cuts from your tensors.
"""

from widevalley.experiments.data import Data, Split, split
from widevalley.experiments.tasks import Task

__all__ = ["Data", "Split", "Task", "split"]
