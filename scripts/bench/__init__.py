"""What ``scripts/benchmark.py`` measures: a module for each kind of figure, and the programs that they start."""
