"""Block-structured Levenberg-Marquardt; knows residual blocks and manifolds, nothing about people."""
