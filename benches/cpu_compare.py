#!/usr/bin/env python3
"""Runs atrous and its peers in turn on this machine's CPU and writes a table of who took how long.

    cargo build --release
    benches/cpu_compare.py nets ops --atrous target/release/atrous --torch TORCH/bin/python --keras KERAS/bin/python --out RESULTS
    benches/cpu_compare.py --table RESULTS          the table again, from what is there

A cell is one network or operator in one configuration of one engine, in processes of its own. Each round runs atrous' cell, then
the peers' cells, in the reverse order every other round. Lines of JSON are added to RESULTS/*.jsonl as they come: an interrupted
run goes on where it was, and more rounds can be added later. `atrous bench nets --against RESULTS/nets-torch.jsonl` reads them too.
RESULTS/table.md is written at the end. A quiet machine: a cell beside which others used more than --noise cores is run again.
How to install the peers: benches/peers/README.md.
"""
import argparse
import datetime
import json
import math
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
NETS = ["alexnet", "vgg16_frozen", "resnet50v2_frozen", "mobilenetv2_frozen", "mobilenetv2_full", "deeplabv3plus",
        "fgsm_mobilenetv2"]
# (engine, script, options, slow): slow ones compile, and are run --slow-rounds times.
CONFIGURATIONS = {
    "nets": [
        ("torch", "torch_nets.py", "--modes eager --layouts channels_last --alloc default", False),
        ("torch", "torch_nets.py", "--modes eager --layouts nchw --alloc default", False),
        ("torch", "torch_nets.py", "--modes eager --layouts channels_last --alloc tuned", False),
        ("torch", "torch_nets.py", "--modes eager --layouts nchw --alloc tuned", False),
        ("torch", "torch_nets.py", "--modes compile --layouts channels_last --alloc tuned", True),
        ("torch", "torch_nets.py", "--modes compile --layouts nchw --alloc tuned", True),
        ("torch", "torch_nets.py", "--modes freeze --layouts channels_last --alloc tuned", True),
        ("torch", "torch_nets.py", "--modes freeze --layouts nchw --alloc tuned", True),
        ("keras", "keras_nets.py", "--jit off --alloc default", True),
        ("keras", "keras_nets.py", "--jit off --alloc tuned", True),
        ("keras", "keras_nets.py", "--jit on --alloc tuned", True),
    ],
    "ops": [
        ("torch", "torch_ops.py", "--alloc default", False),
        ("torch", "torch_ops.py", "--alloc tuned", False),
    ],
}
# (key, title, unit); the percentage of the multiply-adds' peak that stands beside some.
MEASURES = {
    "nets": [
        ("train_ms", "Training step", "ms", "train_percent_fma"),
        ("infer_ms", "Inference, a batch", "ms", None),
        ("infer1_ms", "Inference, one picture", "ms", None),
        ("train_rss_mib", "Peak resident memory of a process that only trains", "MiB", None),
        ("peak_rss_mib", "Peak resident memory of a process that predicts and trains", "MiB", None),
    ],
    "ops": [
        ("fwd_ms", "Forward", "ms", "percent_fma"),
        ("fwdbwd_ms", "Forward and backward", "ms", None),
    ],
}
MACHINE = re.compile(r"(\w+), (\d+) threads: multiply-adds ([\d.]+) GFLOP/s, triad ([\d.]+) GB/s")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add(path, line):
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def name_of(line):
    return line.get("net") or f"{line['op']} {line['shape']}"


def busy():
    """Seconds of cores the machine has used, and those that went to processes of ours that have ended."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), ours.ru_utime + ours.ru_stime


class Runner:
    def __init__(self, options):
        self.options = options
        self.folder = options.out

    def call(self, command):
        """(what it printed, cores that others used meanwhile)"""
        command = [*shlex.split(self.options.wrap), *map(str, command)]
        others = None
        try:
            before, begin = busy(), time.monotonic()
        except OSError:
            before = None
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if before is not None:
            all_, ours = (after - then for after, then in zip(busy(), before))
            others = round(max(0.0, all_ - ours) / (time.monotonic() - begin), 2)
        if done.returncode != 0:
            return None, (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return done.stdout, others

    def atrous(self, kind, name):
        """Lines of one network, or of operators whose name has `name` in it."""
        command = [self.options.atrous, "bench", kind, name, "--threads", self.options.threads]
        if kind == "nets":
            text, others = self.call([*command, "--line"])
            return [json.loads(text)] if text else [], others
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lines"
            text, others = self.call([*command, "--save", path])
            lines = read(path) if text else []
        limits = MACHINE.search(text or "")
        for line in lines:
            line.update(fma_gflops=float(limits[3]), triad_gbps=float(limits[4]))
        return lines, others

    def peer(self, engine, script, arguments, name):
        python = getattr(self.options, engine)
        command = [python, PEERS / script, *arguments.split(), "--threads", self.options.threads, "--only", name]
        text, others = self.call(command)
        return [json.loads(line) for line in (text or "").splitlines()], others

    def machine(self, round_):
        text, _ = self.call([self.options.atrous, "bench", "ops", "optimizer/sgd", "--threads", self.options.threads])
        isa, threads, fma, triad = MACHINE.search(text).groups()
        version = subprocess.run([self.options.atrous, "--version"], capture_output=True, text=True).stdout.split()[-1]
        try:
            about = subprocess.run(["lscpu"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
        except OSError:
            about = ""
        facts = dict(line.split(":", 1) for line in about.splitlines() if ":" in line)
        wanted = ["Model name", "CPU(s)", "Thread(s) per core", "Core(s) per socket", "Hypervisor vendor", "L1d cache", "L2 cache", "L3 cache"]
        add(self.folder / "machine.jsonl", {
            "round": round_, "date": datetime.date.today().isoformat(), "system": platform.platform(), "atrous": version,
            "isa": isa, "threads": int(threads), "fma_gflops": float(fma), "triad_gbps": float(triad),
            "lscpu": {key: facts[key].strip() for key in wanted if key in facts}})

    def names(self, kind):
        """What is asked for: networks by name; operators as {"op shape": the case's name in atrous}."""
        only = self.options.only
        if kind == "nets":
            return {name: name for name in NETS if not only or name in only}
        path = self.folder / "cases.json"
        if not path.exists():
            print("looking which operators there are (atrous bench ops, once)", flush=True)
            command = [self.options.atrous, "bench", "ops", "--threads", self.options.threads, "--save", self.folder / "cases"]
            text, problem = self.call(command)
            if text is None:
                raise SystemExit(problem)
            path.write_text(json.dumps({name_of(line): line["case"] for line in read(self.folder / "cases")}, indent=1))
            (self.folder / "cases").unlink()
        cases = json.loads(path.read_text())
        return {name: case for name, case in cases.items() if not only or any(part in f"{name} {case}" for part in only)}

    def run(self, kind):
        options = self.options
        if kind == "nets" and options.only and not any(name in NETS for name in options.only):
            return
        names = self.names(kind)
        peers = [c for c in CONFIGURATIONS[kind] if getattr(options, c[0]) and any(part in f"{c[0]} {c[2]}" for part in options.peers)]
        rounds = {"atrous": options.rounds}
        rounds.update((c[2], options.slow_rounds if c[3] else options.rounds) for c in peers)
        lines = [line for path in self.folder.glob(f"{kind}-*.jsonl") for line in read(path)]
        have = {(line["round"], name_of(line), line["cell"]) for line in lines if "error" not in line}
        todo = []
        for round_ in range(max(rounds.values())):
            for name in names:
                cells = [("atrous", None, "atrous", False), *peers]
                for cell in cells if round_ % 2 == 0 else cells[::-1]:
                    if round_ < rounds[cell[2]] and (round_, name, cell[2]) not in have:
                        todo.append((round_, name, cell))
        known = None
        for i, (round_, name, cell) in enumerate(todo):
            if round_ != known:
                self.machine(round_)
                known = round_
            engine, script, arguments, _ = cell
            begin = time.monotonic()
            for attempt in range(1 + options.again):
                if engine == "atrous":
                    lines, others = self.atrous(kind, names[name])
                else:
                    lines, others = self.peer(engine, script, arguments, name)
                lines = [line for line in lines if name_of(line) == name]
                if not lines or others is None or others <= options.noise:
                    break
            key = "net" if kind == "nets" else "op"
            if not lines and isinstance(others, str):
                op, _, shape = name.partition(" ")
                lines, others = [{key: op, "shape": shape, "error": others}], None
            for line in lines:
                add(self.folder / f"{kind}-{engine}.jsonl", {**line, "round": round_, "cell": arguments, "others": others})
            shown = [f"{line.get(MEASURES[kind][0][0], line.get('error', '-'))}" for line in lines]
            print(f"{kind} {i + 1}/{len(todo)} round {round_ + 1} {name}: {engine if engine != 'atrous' else ''} {arguments}: "
                  f"{', '.join(shown) or 'no such case'} ({time.monotonic() - begin:.0f} s, others {others})", flush=True)


# ---- the table

class Results:
    """Of one kind: ours[key][name][round], theirs[key][name][configuration][round]."""

    def __init__(self, folder, kind):
        self.ours = defaultdict(lambda: defaultdict(dict))
        self.theirs = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
        self.names, self.batches, self.frameworks, self.errors, self.loud, self.lines = [], {}, set(), {}, 0, 0
        keys = [key for measure in MEASURES[kind] for key in (measure[0], measure[3]) if key]
        for path in sorted(folder.glob(f"{kind}-*.jsonl"), key=lambda path: "atrous" not in path.name):
            for line in read(path):
                name, label = name_of(line), configuration(line)
                if "error" in line:
                    self.errors[name, line["cell"]] = line["error"]
                    continue
                self.errors.pop((name, line["cell"]), None)
                self.lines += 1
                self.loud += (line["others"] or 0) > 0.2
                self.frameworks |= {line["framework"]} if "framework" in line else set()
                if name not in self.names:
                    self.names.append(name)
                self.batches[name] = f"{name} [{line['batch']}]" if kind == "nets" else name
                if "train_ms" not in line:
                    # It only predicted.
                    line.pop("peak_rss_mib", None)
                for key in keys:
                    if line.get(key) is not None:
                        where = self.ours[key][name] if label == "atrous" else self.theirs[key][name][label]
                        where[line["round"]] = line[key]
        if kind == "nets":
            self.names.sort(key=NETS.index)

    def against(self, key, name, which=lambda label: True):
        """(theirs, configuration, ratio, its least and greatest) of the best of their configurations. Ratios are taken
        within rounds, of which the median counts."""
        ours, best = self.ours[key].get(name), None
        for label, theirs in self.theirs[key].get(name, {}).items():
            if not ours or not which(label):
                continue
            ratios = [theirs[r] / ours[r] for r in theirs if r in ours]
            ratios = ratios or [statistics.median(theirs.values()) / statistics.median(ours.values())]
            ratio = statistics.median(ratios)
            if best is None or ratio < best[2]:
                best = (statistics.median(theirs.values()), label, ratio, min(ratios), max(ratios))
        return best


def configuration(line):
    if line["cell"] == "atrous":
        return "atrous"
    engine = line["framework"].split()[0] if "framework" in line else "?"
    parts = [line.get("mode"), "XLA" if line.get("jit") == "on" else None, line.get("layout"), line.get("alloc")]
    return " ".join([engine, *(part for part in parts if part and part != "-")])


def installed(label):
    """PyTorch as it comes: neither compiled nor with an allocator of one's choice."""
    return label.startswith("torch") and label.endswith("default") and "compile" not in label and "freeze" not in label


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def times(best):
    """A ratio with its spread, marked where it is below 1."""
    if best is None:
        return "-"
    ratio, low, high = (f"{value:.2f}" for value in best[2:])
    spread = f" ({low}–{high})" if low != high else ""
    return f"**{ratio}** ▼{spread}" if best[2] < 1 else ratio + spread


def geometric_mean(all_):
    ratios = [best[2] for best in all_ if best]
    return f"{math.exp(statistics.fmean(map(math.log, ratios))):.2f}" if ratios else "-"


def table(folder):
    out = []
    machines = read(folder / "machine.jsonl")
    results = {kind: Results(folder, kind) for kind in MEASURES if list(folder.glob(f"{kind}-*.jsonl"))}
    if machines:
        spread = lambda key: "–".join(dict.fromkeys(f"{f([m[key] for m in machines]):.0f}" for f in (min, max)))
        facts, last = ", ".join(f"{key}: {value}" for key, value in machines[-1]["lscpu"].items()), machines[-1]
        frameworks = sorted(set().union(*(r.frameworks for r in results.values())))
        out += [f"{facts}; {last['system']}.", "",
                f"atrous {last['atrous']} ({last['isa']}, {last['threads']} threads), {', '.join(frameworks)}; {last['date']}. "
                f"Limits as `atrous bench` measures them, from round to round: multiply-adds {spread('fma_gflops')} GFLOP/s, "
                f"triad {spread('triad_gbps')} GB/s.", ""]
    out += ["Milliseconds are medians of the processes' medians, with the least and the greatest. × is how many times longer (how much more "
            "memory) the peer took: the median over rounds of the ratios within a round, with the least and the greatest; below 1 (▼) the peer is "
            "ahead. \"Best\": the best of all its configurations in that row. \"Installed\": PyTorch eager with the default allocator, in the "
            "better layout."]
    for kind, result in results.items():
        for key, title, unit, percent in MEASURES[kind]:
            names = [name for name in result.names if result.ours[key].get(name)]
            if not names:
                continue
            head = [{"nets": "network [batch]", "ops": "operator"}[kind], f"atrous {unit}", "runs", f"best peer {unit}", "which", "×",
                    f"installed {unit}", "×"] + ["% FMA"] * bool(percent)
            out += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
            bests, comes = [], []
            for name in names:
                ours = list(result.ours[key][name].values())
                bests.append(result.against(key, name))
                comes.append(result.against(key, name, installed))
                low, high = number(min(ours)), number(max(ours))
                row = [result.batches[name], number(statistics.median(ours)) + (f" ({low}–{high})" if low != high else ""), str(len(ours))]
                row += [number(bests[-1][0]), bests[-1][1]] if bests[-1] else ["-", "-"]
                row += [times(bests[-1]), number(comes[-1][0]) if comes[-1] else "-", times(comes[-1])]
                if percent:
                    shares = result.ours[percent].get(name, {}).values()
                    row.append(f"{statistics.median(shares):.0f}" if shares and max(shares) > 0 else "-")
                out.append("| " + " | ".join(row) + " |")
            row = ["geometric mean", "", "", "", "", geometric_mean(bests), "", geometric_mean(comes)] + [""] * bool(percent)
            below = [sum(best is not None and best[2] < 1 for best in all_) for all_ in (bests, comes)]
            out += ["| " + " | ".join(row) + " |", "", f"Below 1: {below[0]} of {len(names)} rows beside the best, {below[1]} beside the installed."]
        out += ["", f"## Every configuration: {kind}", ""]
        keys = [measure for measure in MEASURES[kind] if any(result.theirs[measure[0]].values())]
        head = ["", "configuration", "runs", *(f"{key.rsplit('_', 1)[0]} {unit}" for key, _, unit, _ in keys)]
        out += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for name in result.names:
            for label in sorted({label for key, *_ in keys for label in result.theirs[key].get(name, {})}):
                found = [result.theirs[key][name].get(label, {}) for key, *_ in keys]
                cells = [number(statistics.median(values.values())) if values else "-" for values in found]
                out.append("| " + " | ".join([name, label, str(max(map(len, found))), *cells]) + " |")
        if result.loud:
            out += ["", f"Beside {result.loud} of {result.lines} lines other processes used more than a fifth of a core."]
        out += [""] * bool(result.errors) + [f"- {name}, {cell}: failed: {error}" for (name, cell), error in result.errors.items()]
    (folder / "table.md").write_text("\n".join(out) + "\n")
    print(folder / "table.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["nets", "ops", []], help="nets, ops or both (default: nets)")
    parser.add_argument("--atrous", default="target/release/atrous", help="the program (default: %(default)s)")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has PyTorch")
    parser.add_argument("--keras", metavar="PYTHON", help="a Python that has Keras and TensorFlow")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where results go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-rounds", type=int, default=3, help="of configurations that compile, and of Keras")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="networks; operators with one of these in their name")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=[""],
                        help="configurations with one of these in their options, as `eager,freeze`")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--noise", type=float, default=0.2, help="cores that others may use beside a cell")
    parser.add_argument("--again", type=int, default=1, help="how often a cell beside which others used more is run again")
    parser.add_argument("--wrap", default="", metavar="COMMAND", help="goes before each command, as `taskset -c 0,1`")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the table from what is there, and run nothing")
    options = parser.parse_args()
    if options.table:
        return table(options.table)
    if not options.out:
        parser.error("--out FOLDER says where results go")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for kind in options.what or ["nets"]:
            Runner(options).run(kind)
    finally:
        table(options.out)


if __name__ == "__main__":
    sys.exit(main())
