"""Many sequences: local worker processes or a cluster's job arrays, one table of how they went."""
