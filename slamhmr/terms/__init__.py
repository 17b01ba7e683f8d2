"""Residuals of the energy: one small pure function per term."""
