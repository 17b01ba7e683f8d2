"""Residuals of the energy: one small pure function per term."""

from slamhmr.terms import (
    camera,
    contact,
    data,
    flight,
    humor,
    people,
    priors,
    smoothness,
    trajectory,
    transition,
)
from slamhmr.terms.register import TERMS, BorderContext, Term, term, term_settings

__all__ = [
    "TERMS",
    "BorderContext",
    "Term",
    "camera",
    "contact",
    "data",
    "flight",
    "humor",
    "people",
    "priors",
    "smoothness",
    "term",
    "term_settings",
    "trajectory",
    "transition",
]
