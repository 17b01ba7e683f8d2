"""Colours of people in pictures, RGB 0..255; the same person has the same colour everywhere."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (66, 133, 244), (234, 100, 53), (52, 168, 83), (168, 85, 200),
    (240, 180, 30), (0, 172, 193), (233, 80, 140), (120, 130, 60),
)  # fmt: skip


def person_colour(row: int) -> tuple[int, int, int]:
    """Colour of the person in this row of the result."""
    return PALETTE[row % len(PALETTE)]
