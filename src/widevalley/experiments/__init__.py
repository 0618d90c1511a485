"""The comparisons behind the command: data, networks, training and the report."""
