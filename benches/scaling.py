#!/usr/bin/env python3
"""How atrous' time grows and shrinks on this machine's CPU.

    benches/scaling.py threads --atrous target/release/atrous --out RESULTS              convolutions on 1 and on 2 threads
    benches/scaling.py sizes --atrous target/release/atrous --out RESULTS --net mobilenetv2_full

`threads` times the operators whose name has --only in it on each number of threads in turn, and writes how many times as fast they
are (threads.md); below --goal they are marked. `sizes` times one network with batches of --batches pictures at its own size, and with
pictures of --sizes pixels in batches of its own, and writes the times with a straight line through them (sizes-NET.md) and a
plot (sizes-NET.svg). Lines of JSON are added beside them; what is there is not measured again.
"""
import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

from cpu_compare import add, name_of, number, read


def call(options, *arguments):
    command = [*shlex.split(options.wrap), options.atrous, "bench", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}: ended with {done.returncode}")
    return done.stdout


# ---- threads

def measure_threads(options):
    path = options.out / "threads.jsonl"
    have = {(line["round"], line["threads"], line["only"]) for line in read(path)}
    for round_ in range(options.rounds):
        for threads in options.threads if round_ % 2 == 0 else options.threads[::-1]:
            if (round_, threads, options.only) in have:
                continue
            print(f"round {round_ + 1}, {threads} threads", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "lines"
                call(options, "ops", options.only, "--threads", threads, "--save", file)
                for line in read(file):
                    add(path, {**line, "round": round_, "only": options.only})
    one, many = options.threads[0], options.threads[-1]
    times = defaultdict(dict)
    for line in read(path):
        if line["only"] != options.only:
            continue
        for key in ("fwd_ms", "fwdbwd_ms"):
            if line.get(key):
                times[line["case"], key][line["threads"], line["round"]] = line[key]
    cases = list(dict.fromkeys(case for case, _ in times))
    out = [f"Milliseconds on {one} and on {many} threads, medians of {options.rounds} processes each, and how many times as fast {many} are: the "
           f"median over rounds of the ratios within a round. ▼: below {options.goal}.", "",
           f"| operator | forward, {one} | {many} | × | forward + backward, {one} | {many} | × |", "|---" * 7 + "|"]
    all_ = defaultdict(list)
    for case in cases:
        row = [case]
        for key in ("fwd_ms", "fwdbwd_ms"):
            found = times.get((case, key), {})
            ratios = [ms / found[many, r] for (threads, r), ms in found.items() if threads == one and (many, r) in found]
            if not ratios:
                row += ["-"] * 3
                continue
            ratio = statistics.median(ratios)
            all_[key].append(ratio)
            row += [number(statistics.median(ms for (threads, _), ms in found.items() if threads == t)) for t in (one, many)]
            row.append(f"{ratio:.2f}" if ratio >= options.goal else f"**{ratio:.2f}** ▼")
        out.append("| " + " | ".join(row) + " |")
    means = [f"{math.exp(statistics.fmean(map(math.log, all_[key]))):.2f}" if all_[key] else "-" for key in ("fwd_ms", "fwdbwd_ms")]
    out.append(f"| geometric mean | | | {means[0]} | | | {means[1]} |")
    write(options.out / "threads.md", "\n".join(out) + "\n")


# ---- batch and pixels

def measure_sizes(options):
    path = options.out / f"sizes-{options.net}.jsonl"
    points = [("batch", n, ["--batch", n]) for n in options.batches] + [("size", n, ["--size", n]) for n in options.sizes]
    have = {(line["round"], line["axis"], line["value"]) for line in read(path)}
    for round_ in range(options.rounds):
        for axis, value, arguments in points if round_ % 2 == 0 else points[::-1]:
            if (round_, axis, value) in have:
                continue
            print(f"round {round_ + 1}, {axis} {value}", flush=True)
            line = json.loads(call(options, "nets", options.net, "--line", "--threads", options.threads, *arguments))
            add(path, {**line, "round": round_, "axis": axis, "value": value})
    lines = [line for line in read(path) if line["round"] < options.rounds]
    out, plots = [f"{options.net}, {options.threads} threads: medians of {options.rounds} processes each."], []
    for axis, asked, title in (("batch", options.batches, "pictures a batch"), ("size", options.sizes, "million pixels a batch")):
        here = [line for line in lines if line["axis"] == axis and line["value"] in asked]
        if not here:
            continue
        groups = defaultdict(list)
        for line in here:
            groups[line["value"]].append(line)
        series = {}
        for key, label in (("train_ms", "training step"), ("infer_ms", "inference")):
            series[label] = []
            for value, group in sorted(groups.items()):
                of_batch = group[0]["batch"] * group[0]["shape"][0] * group[0]["shape"][1] / 1e6
                x = value if axis == "batch" else of_batch
                series[label].append((x, statistics.median(line[key] for line in group)))
        plots.append((title, series))
        out += ["", f"## Time by {title}", "", f"| {axis} | {title} | training step ms | each | inference ms | each |", "|---" * 6 + "|"]
        for value, (x, train), (_, infer) in zip(sorted(groups), *series.values()):
            out.append(f"| {value} | {x:.3g} | {number(train)} | {number(train / x)} | {number(infer)} | {number(infer / x)} |")
        out.append("")
        for label, points_ in series.items():
            if len(points_) > 1:
                start, slope, fit = line_through(points_)
                out.append(f"- {label}: {number(start)} ms + {number(slope)} ms × {title}, R² = {fit:.4f}")
    write(options.out / f"sizes-{options.net}.md", "\n".join(out) + "\n")
    write(options.out / f"sizes-{options.net}.svg", svg(options.net, plots))


def line_through(points):
    """Least squares: (start, slope, R²)."""
    xs, ys = zip(*points)
    slope, start = statistics.linear_regression(xs, ys)
    mean = statistics.fmean(ys)
    total = sum((y - mean) ** 2 for y in ys)
    left = sum((y - start - slope * x) ** 2 for x, y in points)
    return start, slope, 1 - left / total if total else 1.0


def ticks(most):
    """Round numbers from 0 to `most`: five to ten of them."""
    step = 10 ** math.floor(math.log10(most))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1) if most / (step * part) <= 10)
    return [i * step for i in range(int(most / step * 1.0001) + 1)]


def svg(title, plots):
    """Plots side by side, of {label: [(x, ms)]}, each with its straight line."""
    width, height, left, bottom, top = 420, 320, 62, 48, 40
    colours = ["#c0392b", "#2471a3"]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(plots)}" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>']
    for i, (x_title, series) in enumerate(plots):
        most_x, most_y = (1.05 * max(point[axis] for points in series.values() for point in points) for axis in (0, 1))
        at_x = lambda x: round(i * width + left + x / most_x * (width - left - 16), 1)
        at_y = lambda y: round(height - bottom - y / most_y * (height - bottom - top), 1)
        out.append(f'<text x="{at_x(most_x / 2)}" y="18" text-anchor="middle" font-size="14">{title}: ms by {x_title}</text>')
        for x in ticks(most_x):
            out.append(f'<line x1="{at_x(x)}" y1="{at_y(0)}" x2="{at_x(x)}" y2="{at_y(most_y)}" stroke="#ddd"/>'
                       f'<text x="{at_x(x)}" y="{at_y(0) + 16}" text-anchor="middle">{x:g}</text>')
        for y in ticks(most_y):
            out.append(f'<line x1="{at_x(0)}" y1="{at_y(y)}" x2="{at_x(most_x)}" y2="{at_y(y)}" stroke="#ddd"/>'
                       f'<text x="{at_x(0) - 6}" y="{at_y(y) + 4}" text-anchor="end">{y:g}</text>')
        out.append(f'<text x="{at_x(most_x / 2)}" y="{height - 10}" text-anchor="middle">{x_title}</text>')
        for j, (label, points) in enumerate(series.items()):
            colour = colours[j % len(colours)]
            if len(points) > 1:
                start, slope, _ = line_through(points)
                # From the axis on: a line that begins below 0 would leave the plot.
                first = max(0.0, -start / slope) if slope > 0 else 0.0
                last = max(x for x, _ in points)
                out.append(f'<line x1="{at_x(first)}" y1="{at_y(start + slope * first)}" x2="{at_x(last)}" '
                           f'y2="{at_y(start + slope * last)}" stroke="{colour}"/>')
            out += [f'<circle cx="{at_x(x)}" cy="{at_y(y)}" r="4" fill="{colour}"/>' for x, y in points]
            out.append(f'<circle cx="{at_x(0) + 14}" cy="{top + 8 + 18 * j}" r="4" fill="{colour}"/>'
                       f'<text x="{at_x(0) + 24}" y="{top + 12 + 18 * j}">{label}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def write(path, text):
    path.write_text(text)
    print(path)


def main():
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    threads = kinds.add_parser("threads", help="operators on one thread and on several")
    threads.add_argument("--threads", type=numbers, default=[1, 2], help="the first and the last are compared (default: 1,2)")
    threads.add_argument("--only", default="conv2d", help="operators with this in their name (default: %(default)s)")
    threads.add_argument("--goal", type=float, default=1.8)
    sizes = kinds.add_parser("sizes", help="a network's time by pictures a batch and by pixels")
    sizes.add_argument("--net", default="mobilenetv2_full")
    sizes.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 16, 32])
    sizes.add_argument("--sizes", type=numbers, default=[96, 128, 160, 192, 224, 256, 320])
    sizes.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for kind in (threads, sizes):
        kind.add_argument("--atrous", default="target/release/atrous", help="the program (default: %(default)s)")
        kind.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results go")
        kind.add_argument("--rounds", type=int, default=3)
        kind.add_argument("--wrap", default="", metavar="COMMAND", help="goes before each command, as `taskset -c 0,1`")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    {"threads": measure_threads, "sizes": measure_sizes}[options.kind](options)


if __name__ == "__main__":
    main()
