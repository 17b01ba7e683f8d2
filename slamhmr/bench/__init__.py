"""Benchmarks of the solver: cost against length and people, convergence against L-BFGS."""
