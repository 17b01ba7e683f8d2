"""Scenes with exact truth: motions, bodies, cameras, observations, pixels."""
