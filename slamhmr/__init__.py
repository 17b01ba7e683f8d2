"""slamhmr: everybody's body and path in one metric, gravity-aligned world, from a moving camera."""

__version__ = "0.1.0"
