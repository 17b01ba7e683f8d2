"""Accuracy against truth: metrics and protocols."""
