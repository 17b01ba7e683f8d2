"""Detectors and tracking: video -> observations."""
