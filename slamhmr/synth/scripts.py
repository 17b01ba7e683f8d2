"""Scripts of key poses: what recordings lack (sitting, crouching, kneeling, falling, lying)."""

import numpy as np

from slamhmr.synth.keyposes import Key

Pair = tuple[str, str]
STANDING_ARMS: tuple[Pair, ...] = (
    ("hang", "hang"), ("crossed", "crossed"), ("phone", "hang"), ("look_phone", "hang"),
    ("hip_hand", "hip_hand"), ("hip_hand", "hang"), ("pocket", "pocket"), ("overhead", "hang"),
    ("reach", "hang"), ("push", "push"), ("side", "side"), ("carry", "carry"), ("reach", "reach"),
    ("behind_head", "behind_head"), ("chin", "hip_hand"), ("overhead", "overhead"),
)  # fmt: skip
SEATED_ARMS: tuple[Pair, ...] = (
    ("on_thigh", "on_thigh"), ("desk", "desk"), ("lap", "lap"), ("crossed", "crossed"),
    ("phone", "on_thigh"), ("look_phone", "look_phone"), ("chin", "on_thigh"),
    ("reach", "on_thigh"), ("on_knee", "on_knee"), ("behind_head", "behind_head"),
    ("desk", "reach"), ("push", "desk"), ("overhead", "on_thigh"), ("side", "lap"),
)  # fmt: skip
SEATED_LEGS: tuple[Pair, ...] = (
    ("sit", "sit"), ("sit", "sit_out"), ("sit_wide", "sit_wide"), ("sit_under", "sit"),
    ("sit", "ankle_on_knee"), ("sit_out", "sit_out"), ("sit", "sit"),
)  # fmt: skip
BACK_ARMS: tuple[Pair, ...] = (
    ("hang", "hang"), ("side", "side"), ("lap", "lap"), ("behind_head", "behind_head"),
    ("look_phone", "look_phone"), ("overhead", "hang"),
)  # fmt: skip
SIDE_ARMS: tuple[Pair, ...] = (("reach", "reach"), ("lap", "lap"), ("push", "push"))
HANG: Pair = ("hang", "hang")
STAND: Pair = ("stand", "stand")
TRUNK_CHOICE = ("upright", "slouch", "forward", "look_down", "turned", "leaning")


def _swap(pair: Pair, rng: np.random.Generator) -> Pair:
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def any_of(options: tuple[Pair, ...], rng: np.random.Generator) -> Pair:
    """One of the pairs, its sides exchanged in half of all cases."""
    return _swap(options[rng.integers(len(options))], rng)


def _standing(rng: np.random.Generator, seconds: float = 1.0) -> Key:
    return Key(seconds, rng.uniform(0.3, 1.2), STAND, any_of(STANDING_ARMS[:6], rng))


def seated(rng: np.random.Generator) -> list[Key]:
    """On a chair: gestures, legs crossed and stretched."""
    keys = []
    for _ in range(rng.integers(5, 9)):
        keys.append(
            Key(
                rng.uniform(0.6, 1.3), rng.uniform(0.3, 1.6), any_of(SEATED_LEGS, rng),
                any_of(SEATED_ARMS, rng), TRUNK_CHOICE[rng.integers(len(TRUNK_CHOICE))],
                pitch=rng.uniform(-8, 8), lift=rng.choice(["", "left", "right"]),
            )
        )  # fmt: skip
    return keys


def crouch(rng: np.random.Generator) -> list[Key]:
    """Down to something on the floor, work there, up again, perhaps with it in the hands."""
    keys = [_standing(rng)]
    for _ in range(rng.integers(2, 4)):
        deep = rng.random() < 0.5
        legs: Pair = ("squat", "squat") if deep else ("half_squat", "half_squat")
        arms = any_of((("reach", "reach"), ("reach", "on_knee"), ("carry", "carry")), rng)
        keys.append(
            Key(rng.uniform(0.8, 1.4), rng.uniform(0.3, 2.0), legs, arms, "forward", pitch=22)
        )
        if rng.random() < 0.5:
            keys.append(Key(0.8, rng.uniform(0.3, 1.5), legs, ("carry", "carry"), pitch=20))
        keys.append(
            Key(rng.uniform(0.8, 1.3), rng.uniform(0.4, 1.5), STAND, any_of(STANDING_ARMS, rng))
        )
    return keys


def bend(rng: np.random.Generator) -> list[Key]:
    """Bend down from the hips and pick something up."""
    keys = [_standing(rng)]
    for _ in range(rng.integers(2, 5)):
        low = rng.random() < 0.5
        legs: Pair = ("low_bow", "low_bow") if low else ("bow", "bow")
        arms = any_of((("reach", "reach"), ("reach", "on_knee"), ("carry", "carry")), rng)
        pitch = rng.uniform(44, 54) if low else rng.uniform(40, 52)
        keys.append(
            Key(rng.uniform(0.7, 1.3), rng.uniform(0.2, 1.2), legs, arms, "forward", pitch=pitch)
        )
        keys.append(
            Key(rng.uniform(0.7, 1.2), rng.uniform(0.3, 1.5), STAND, any_of(STANDING_ARMS, rng))
        )
    return keys


def kneel(rng: np.random.Generator) -> list[Key]:
    """Onto one knee, onto both, work, and up again."""
    down: Pair = ("kneel", "front_knee")
    side = "right"
    keys = [
        _standing(rng),
        Key(1.1, rng.uniform(0.2, 1.5), down, ("hang", "on_knee"), pitch=4, lift=side),
    ]
    if rng.random() < 0.7:
        keys.append(
            Key(0.9, rng.uniform(0.5, 2), ("kneel", "kneel"), any_of(SEATED_ARMS, rng), lift=side)
        )
        for _ in range(rng.integers(1, 3)):
            keys.append(
                Key(
                    0.9, rng.uniform(0.5, 2.0), ("kneel_sit", "kneel_sit"),
                    any_of(SEATED_ARMS, rng), "slouch", pitch=8,
                )
            )  # fmt: skip
        keys.append(Key(0.9, 0.2, ("kneel", "kneel"), ("hang", "on_thigh")))
        keys.append(Key(0.9, 0.2, down, ("hang", "on_knee"), pitch=6, lift=side))
    keys.append(Key(1.0, rng.uniform(0.5, 1.5), STAND, HANG, lift="left"))
    return keys


def on_floor(rng: np.random.Generator) -> list[Key]:
    """Sit down on the floor, stay there, get up."""
    keys = [
        _standing(rng),
        Key(1.2, 0.1, ("squat", "squat"), ("reach", "reach"), "forward", pitch=22),
    ]
    for _ in range(rng.integers(3, 6)):
        legs = any_of((("long_sit", "long_sit"), ("cross_legged", "cross_legged"),
                       ("long_sit", "knee_up"), ("cross_legged", "cross_legged")), rng)  # fmt: skip
        arms = any_of((*SEATED_ARMS, ("support", "support"), ("support", "lap")), rng)
        keys.append(
            Key(
                rng.uniform(0.9, 1.4), rng.uniform(0.5, 2.5), legs, arms,
                TRUNK_CHOICE[rng.integers(3)], pitch=rng.uniform(-15, 5),
            )
        )  # fmt: skip
    keys.append(Key(1.2, 0.1, ("squat", "squat"), ("reach", "reach"), "forward", pitch=24))
    keys.append(Key(1.1, rng.uniform(0.5, 1.5), STAND, HANG))
    return keys


def fall(rng: np.random.Generator) -> list[Key]:
    """Fall to the back, to the side or to the front, lie, get up."""
    start = Key(1.0, rng.uniform(0.8, 2.5), STAND, any_of(STANDING_ARMS[:6], rng))
    way = rng.choice(["back", "front", "side"])
    if way == "front":
        return [start, *_fall_forward(rng), *_rise_from_front(rng)]
    roll = rng.choice([-1, 1]) * rng.uniform(50, 80) if way == "side" else 0.0
    arms = BACK_ARMS[:2] if way == "back" else SIDE_ARMS
    return [
        start,
        Key(0.45, 0.0, ("buckle", "buckle"), ("side", "side"), pitch=-14, roll=0.25 * roll),
        Key(0.4, 0.0, ("squat", "squat"), ("support", "support"), "slouch", -25, 0.5 * roll),
        Key(0.45, rng.uniform(0.8, 3), ("lie_bent", "straight"), any_of(arms, rng), "upright", -86,
            roll),
        *_rise_from_back(rng),
    ]  # fmt: skip


def _fall_forward(rng: np.random.Generator) -> list[Key]:
    return [
        Key(0.4, 0.0, ("buckle", "buckle"), ("reach", "reach"), pitch=18),
        Key(0.4, 0.0, ("kneel", "kneel"), ("reach", "reach"), pitch=25),
        Key(0.45, rng.uniform(0.8, 3), ("straight", "straight"),
            any_of((("overhead", "overhead"), ("overhead", "hang")), rng), "back", 90),
    ]  # fmt: skip


def _rise_from_front(rng: np.random.Generator) -> list[Key]:
    return [
        Key(1.2, rng.uniform(0.1, 0.8), ("on_all_fours", "on_all_fours"), ("reach", "reach"),
            pitch=73, hands=True),
        Key(0.9, 0.1, ("kneel", "kneel"), ("reach", "on_thigh"), pitch=12),
        Key(0.9, 0.2, ("kneel", "front_knee"), ("hang", "on_knee"), pitch=10, lift="right"),
        Key(1.0, rng.uniform(0.6, 1.5), STAND, HANG, lift="left"),
    ]  # fmt: skip


def _rise_from_back(rng: np.random.Generator) -> list[Key]:
    return [
        Key(1.1, rng.uniform(0.2, 1.0), ("knee_up", "knee_up"), ("support", "support"), "slouch",
            -12),
        Key(1.0, 0.1, ("squat", "squat"), ("reach", "reach"), "forward", 26),
        Key(1.1, rng.uniform(0.6, 1.5), STAND, HANG),
    ]  # fmt: skip


def lie(rng: np.random.Generator) -> list[Key]:
    """Lie on the back, on a side, move the limbs, sit up and lie down again."""
    lying: tuple[Pair, ...] = (
        ("straight", "straight"), ("lie_bent", "straight"), ("lie_bent", "lie_bent"),
    )  # fmt: skip
    keys = []
    for _ in range(rng.integers(5, 8)):
        roll = rng.choice([0.0, 0.0, 75.0, -75.0])
        arms = BACK_ARMS if roll == 0 else SIDE_ARMS
        keys.append(
            Key(rng.uniform(1.0, 1.8), rng.uniform(0.5, 2), any_of(lying, rng), any_of(arms, rng),
                "upright", -88, roll)
        )  # fmt: skip
        if rng.random() < 0.3:
            keys.append(Key(1.3, rng.uniform(0.3, 1.5), ("long_sit", "long_sit"),
                            any_of(SEATED_ARMS, rng), "slouch", -5))  # fmt: skip
    return keys


def crawl(rng: np.random.Generator) -> list[Key]:
    """On hands and knees: rock, reach out, look around, up."""
    keys = []
    for _ in range(rng.integers(4, 7)):
        keys.append(
            Key(rng.uniform(0.7, 1.3), rng.uniform(0.2, 1.0), ("on_all_fours", "on_all_fours"),
                any_of((("reach", "reach"), ("reach", "reach"), ("push", "reach")), rng),
                rng.choice(["upright", "back", "turned"]), rng.uniform(71, 75), hands=True)
        )  # fmt: skip
    return [*keys, *_rise_from_front(rng)]
