"""Motion and pose priors: a leaf package that knows torch only."""
