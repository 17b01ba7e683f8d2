"""Recorded motion capture as SMPL motions: readers, retargeting and the motion file."""
