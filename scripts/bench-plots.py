#!/usr/bin/env python3
"""Draws the JSON lines of `make bench` as SVG: one picture for each kind of row, no packages needed.

    make bench | tee target/bench.txt
    scripts/bench-plots.py target/bench.txt target/bench-plots

Ratios are drawn on a logarithmic scale with their least and most: the line at 1 is the baseline. Rows that were not
resolved are pale. A row without a baseline shows its rate and is drawn by itself. Repair draws its seconds over the
number of datanodes.
"""
import json
import math
import sys
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 1020, 480, 130, 22, 58, 40
INK, PALE, GRID = "#1f4e79", "#a9bfd3", "#d9d9d9"


def lines(path):
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def text(x, y, words, anchor="start", size=12, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def rule(x1, y1, x2, y2, ink=GRID, wide=1):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{ink}" stroke-width="{wide}"/>')


def svg(height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def decades(low, high):
    first = math.floor(math.log10(max(low, 1e-9)))
    last = max(math.ceil(math.log10(max(high, 1e-9))), first + 1)
    return first, last


def scale(first, last):
    room = WIDTH - LEFT - RIGHT
    return lambda value: LEFT + room * (math.log10(max(value, 10.0**first)) - first) / (last - first)


def machine(facts):
    wanted = ("cores", "kernel", "file_system", "load_1m", "rounds")
    return ", ".join(f"{key} {facts[key]}" for key in wanted if key in facts)


def chart(title, facts, first, last, rows):
    """Rows of (label, value, least, most, pale, told)."""
    at = scale(first, last)
    height = TOP + ROW * len(rows) + BOTTOM
    end = TOP + ROW * len(rows)
    parts = [text(12, 22, title, size=15, weight="bold"), text(12, 40, machine(facts), size=11)]
    for power in range(first, last + 1):
        value = 10.0**power
        parts.append(rule(at(value), TOP - 4, at(value), end, "#000000" if value == 1 else GRID))
        parts.append(text(at(value), end + 16, f"{value:g}", "middle", 11))
    for number, (label, value, least, most, pale, told) in enumerate(rows):
        y, ink = TOP + ROW * number + ROW / 2, PALE if pale else INK
        parts.append(text(LEFT - 8, y + 4, label, "end", 11))
        parts.append(rule(at(least), y, at(most), y, ink, 3))
        parts.append(f'<circle cx="{at(value):.1f}" cy="{y:.1f}" r="4.5" fill="{ink}"/>')
        parts.append(text(WIDTH - RIGHT + 8, y + 4, told, size=11))
    return svg(height, parts)


def ratios(facts, row_id, rows):
    drawn = [(f"{row['what']}: {row['contender']} / {row['baseline']}"[:76], row["ratio_median"], row["ratio_min"],
              row["ratio_max"], row["verdict"] != "resolved", f"{row['ratio_median']:.2f}  {row['class']}")
             for row in rows]
    first, last = decades(min(d[2] for d in drawn), max(max(d[3] for d in drawn), 1))
    return chart(f"{row_id}: ratio to the baseline, median (least to most of the rounds)", facts, first, last, drawn)


def rates(facts, row_id, rows):
    drawn = [(f"{row['what']}: {row['contender']}"[:76], row["rate"], row["rate_min"], row["rate_max"], False,
              f"{row['rate']:.3g}/s") for row in rows]
    first, last = decades(min(d[2] for d in drawn), max(d[3] for d in drawn))
    return chart(f"{row_id}: amount in a second", facts, first, last, drawn)


def repairs(facts, rows):
    drawn = []
    for row in rows:
        figures = row["figures"]
        seconds = max(figures["repaired_s"], 1e-3)
        share = figures.get("share_of_limit")
        told = f"{seconds:.2f} s, " + (f"{share:.2f} of the limit" if share else f"{figures['ratio']:.2f} of dd")
        limit = f", {figures['limit'] >> 20} MiB/s each" if figures.get("limit") else ""
        drawn.append((f"{figures['datanodes']} datanodes, one gone{limit}", seconds, seconds, seconds, False, told))
    first, last = decades(min(d[1] for d in drawn), max(d[1] for d in drawn))
    return chart("W7: seconds until every chunk has its replicas", facts, first, last, drawn)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: bench-plots.py LINES DIRECTORY")
    out = Path(sys.argv[2])
    facts, compared, alone, repaired = {}, {}, {}, []
    for line in lines(sys.argv[1]):
        if "machine" in line:
            facts = line["machine"]
        elif line.get("ratio_median") is not None:
            compared.setdefault(line["id"], []).append(line)
        elif "rate" in line:
            alone.setdefault(line["id"], []).append(line)
        elif line.get("id") == "W7" and (line.get("figures") or {}).get("repaired_s") is not None:
            repaired.append(line)
    pictures = {f"{name}-ratios.svg": ratios(facts, name, rows) for name, rows in compared.items()}
    pictures |= {f"{name}-rates.svg": rates(facts, name, rows) for name, rows in alone.items()}
    if repaired:
        pictures["W7-repair.svg"] = repairs(facts, repaired)
    if not pictures:
        sys.exit(f"{sys.argv[1]} has no figures: it is to be what `make bench` printed")
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (out / name).write_text(picture, encoding="utf-8")
        print(out / name)


if __name__ == "__main__":
    main()
