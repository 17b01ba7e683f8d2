"""Block-structured Levenberg-Marquardt: residual blocks and manifolds, nothing about people."""
