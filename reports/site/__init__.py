"""A static site over any number of runs: `vcbench site`."""
