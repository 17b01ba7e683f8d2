"""Starts in camera space, and the alignment of people and cameras in one world."""
