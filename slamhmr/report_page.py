"""`report.html`: one page that needs no other file, of the facts in `report.json`."""

import base64
import html
from pathlib import Path
from typing import Any

from slamhmr.artifacts import write_text
from slamhmr.video import open_video, read_frames

FRAMES_SHOWN = 6
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.15em;margin:1.6em 0 .4em;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:.4em 0}td,th{padding:.2em .8em;text-align:right}
td:first-child,th:first-child,.words{text-align:left}tr:nth-child(even){background:#f5f5f7}
.good{color:#17803d}.bad{color:#c22;font-weight:600}
.banner{padding:.6em 1em;border-radius:6px;background:#e8f5ec}.banner.bad{background:#fdeaea}
.frames{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:8px}
img{max-width:100%;border-radius:4px}code{font-size:.9em;word-break:break-all}
"""

Facts = dict[str, Any]


def write_page(path: Path, facts: Facts, *, topview: Path | None, overlay: Path | None) -> None:
    """Write the page with tables, the top view and some frames of the overlay embedded."""
    write_text(path, page(facts, topview=topview, overlay=overlay))


def page(facts: Facts, *, topview: Path | None, overlay: Path | None) -> str:
    """HTML text of the page."""
    title = f"slamhmr: {facts['sequence']}"
    sections = [
        f"<h1>{_text(title)}</h1>",
        _banner(facts),
        _section("Gates", _gates(facts["gates"])),
        _section("People", _people(facts)),
        _section("Not observable in this clip", _list(facts["unobservable"])),
        _section("Degraded", _list(facts["degraded"])),
        _section("Notes", _list(_other_notes(facts))),
        _section(
            "Camera", _table(["", ""], [[key, value] for key, value in facts["camera"].items()])
        ),
        _section("Uncertainty, one standard deviation", _uncertainty(facts["uncertainty"])),
        _section("Pixel errors of well-seen keypoints", _scores(facts["scores"])),
        _section("From above", _image(topview.read_bytes(), "png") if topview is not None else ""),
        _section("On the pixels", _frames(overlay) if overlay is not None else ""),
        _section("Stages", "".join(_stage(stage) for stage in facts["stages"])),
        _section("Seconds", _table(["step", "s"], [[k, v] for k, v in facts["seconds"].items()])),
        _section("Provenance", _provenance(facts["provenance"])),
    ]
    head = f"<meta charset='utf-8'><title>{_text(title)}</title><style>{STYLE}</style>"
    body = "\n".join(section for section in sections if section != "")
    return f"<!doctype html>\n<html lang='en'><head>{head}</head>\n<body>{body}</body></html>\n"


def _banner(facts: Facts) -> str:
    failed = [gate["sentence"] for gate in facts["gates"] if not gate["passed"]]
    count = len(facts["people"])
    people = "1 person" if count == 1 else f"{count} people"
    frames = f"{facts['frames']} frames at {facts['fps']:.2f} per second, {people}"
    if len(failed) > 0:
        return f"<p class='banner bad'>{frames}. Below the gates: {_text('; '.join(failed))}.</p>"
    alone = len(facts["failures"])
    some = f" {alone} span{'s' * (alone > 1)} of frames failed alone, see People." if alone else ""
    return f"<p class='banner'>{frames}. All gates hold.{some}</p>"


def _other_notes(facts: Facts) -> list[str]:
    """Notes that do not stand in a section of their own."""
    told = {*facts["unobservable"], *facts["degraded"]}
    told |= {failure["sentence"] for failure in facts["failures"]}
    return [note for note in facts["notes"] if note not in told]


def _people(facts: Facts) -> str:
    final = list(facts["scores"].values())[-1]["median_percent_by_person"]
    names = ["id", "frames", "valid", "seen", "longest gap", "median error, % of box", "stature, m"]
    rows = [
        [
            person,
            row["frames"],
            row["valid_frames"],
            f"{100 * row['seen_share']:.0f} %",
            row["longest_gap"],
            final[person],
            _stature(row),
        ]
        for person, row in facts["people"].items()
    ]
    reasons = [reason for row in facts["people"].values() for reason in row["failures"]]
    items = "".join(f"<li class='bad'>{_text(reason)}</li>" for reason in reasons)
    return _table(names, rows) + (f"<ul>{items}</ul>" if items != "" else "")


def _stature(person: Facts) -> str:
    sigma = person["stature_std_m"]
    return f"{person['stature_m']:.2f}" + (f" ± {sigma:.2f}" if sigma is not None else "")


def _uncertainty(facts: Facts | None) -> str:
    if facts is None:
        return ""
    names = {
        "joints_std_root_mm": "joints relative to the pelvis, mm per axis",
        "joints_std_mm": "joints in the world, mm per axis",
        "scale_std_percent": "scale, %",
        "floor_tilt_std_deg": "tilt of the floor, degrees",
        "floor_height_std_mm": "height of the floor, mm",
    }
    rows = [[label, facts[key]] for key, label in names.items() if facts[key] is not None]
    return _table(["of", ""], rows)


def _scores(scores: dict[str, Facts]) -> str:
    columns = ["mean_percent", "median_px", "p90_px", "median_percent", "p90_percent", "keypoints"]
    names = ["after", "mean, % of box", "median, px", "90 %, px", "median, % of box",
             "90 %, % of box", "keypoints"]  # fmt: skip
    return _table(names, [[name, *(row[c] for c in columns)] for name, row in scores.items()])


def _stage(stage: Facts) -> str:
    before, after = stage["energy_before"], stage["energy_after"]
    rows = [[term, before.get(term), after.get(term)] for term in {**before, **after}]
    rows.append(["sum", *(sum(v or 0 for v in e.values()) for e in (before, after))])
    heading = f"{stage['name']}: {stage['iterations']} iterations, {stage['rejected']} rejected, "
    heading += f"{stage['seconds']:.1f} s; {stage['stopped']}"
    return f"<p>{_text(heading)}</p>" + _table(["term", "energy before", "energy after"], rows)


def _gates(gates: list[Facts]) -> str:
    rows = "".join(
        f"<tr><td class='{'good' if gate['passed'] else 'bad'}'>"
        f"{'holds' if gate['passed'] else 'fails'}</td><td class='words'>{_text(gate['sentence'])}"
        f"</td><td>{_cell(gate['value'])}</td><td>{_cell(gate['limit'])}</td></tr>"
        for gate in gates
    )
    head = "<tr><th></th><th class='words'>gate</th><th>value</th><th>limit</th></tr>"
    return f"<table>{head}{rows}</table>"


def _provenance(facts: Facts) -> str:
    rows = [[key, value] for key, value in facts.items() if key != "inputs"]
    rows += [[f"input {name}", digest] for name, digest in facts["inputs"].items()]
    return _table(["", ""], rows)


def _frames(overlay: Path) -> str:
    import cv2

    video = open_video(overlay)
    stride = max(1, video.frame_count // FRAMES_SHOWN)
    pictures = []
    for _, image in read_frames(video, stride=stride):
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        pictures.append(_image(data.tobytes(), "jpeg"))
    return f"<div class='frames'>{''.join(pictures[:FRAMES_SHOWN])}</div>"


def _image(data: bytes, kind: str) -> str:
    return f"<img alt='' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content != "" else ""


def _list(sentences: list[str]) -> str:
    items = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items != "" else ""


def _table(names: list[str], rows: list[list[object]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    lines = ["".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"
    return _text(", ".join(map(_cell, value)) if isinstance(value, list) else str(value))


def _text(words: str) -> str:
    return html.escape(words)
