#!/usr/bin/env python3
"""The attacks' figures on the demo's networks: the tables of benches/results/*-attack.md.

    benches/attack.py --atrous target/release/atrous --demo out/demo --out out/attack-figures

`atrous demo` makes the networks. Each attack is a command of its own, which leaves its folder in --out; what is finished
there is not run again. Then the tables are written to tables.md beside them. --images 60 takes a third of the time, and says
in the tables that it was 60 pictures; --defences adds the table of defences, which trains three networks.
"""
import argparse
import json
import shlex
import subprocess
from pathlib import Path

METHODS = ["fgsm", "pgd", "mim", "deepfool", "square", "universal", "generator"]
LEVELS = [1, 2, 3, 4, 6, 8, 12, 16]
# What the curves are made with; the rows "each on its own" take more steps.
CURVE = ["--steps", "7", "--queries", "50"]
STEPS = ["--steps", "10"]


def attack(options, name, *arguments):
    """What the command left: its summary, and what it printed."""
    folder = options.out / name
    printed = folder / "printed.txt"
    command = [options.atrous, *shlex.split(options.flags), "attack", "--data", str(options.data), "--checkpoint",
               str(options.demo), "--out", str(folder), *arguments]
    line = shlex.join(command)
    if not printed.exists() or printed.read_text().splitlines()[:1] != [line]:
        print(line, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{line}: ended with {done.returncode}")
        # Last of all: with it the folder is complete.
        printed.write_text(f"{line}\n{done.stdout}")
    return json.loads((folder / "summary.json").read_text()), printed.read_text()


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def table(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def curves(options, images):
    epsilons = ",".join(f"{level}/255" for level in options.levels)
    found = {}
    for method in METHODS:
        more = ["--generator-steps", str(options.generator_steps)] if method == "generator" else []
        found[method], _ = attack(options, f"curve-{method}", "--task", "classify", "--method", method, "--epsilon", epsilons,
                                  *CURVE, *images, *more)
    first = found["fgsm"]["attacks"][0]
    headings = ["ε·255", *options.levels]

    def curve(which):
        def row(method):
            [line] = [line for line in found[method]["curves"] if line["method"] == method]
            return [method, *(number(y) for _, y in line[which])]
        return table(headings, map(row, METHODS))

    def figures(key, digits):
        rows = [[method, *(number(line[key], digits) for line in found[method]["attacks"])]
                for method in METHODS if method != "deepfool"]
        return table(headings, rows)

    deepfool = found["deepfool"]["attacks"][0]
    doubt = f"\n**{first['doubt']}**\n" if first["doubt"] else ""
    return f"""## Classifier, L∞, {first['pictures']} pictures
{doubt}
As they are {number(first['clean'])} of the pictures are right, mAP {number(first['score_clean'])}. Steps of PGD and MIM, and
queries of Square: `{' '.join(CURVE)}`. DeepFool has no ε: its perturbations no larger than this. The generator is trained at 8/255.

Share that resists, each ε on its own:

{curve('points')}

The best so far: what resists this ε and all smaller ones of the table:

{curve('so_far')}

mAP, each ε on its own:

{figures('score', 3)}

Median L2 of what succeeded, each ε on its own:

{figures('median_l2', 2)}

DeepFool succeeds on {number(deepfool['success'])} of the pictures that were right, with a median L2 of {number(deepfool['median_l2'], 2)}
(mean {number(deepfool['mean_l2'], 2)}; SSIM {number(deepfool['mean_ssim'])}; {number(deepfool['seconds_per_picture'])} s a picture).
"""


def alone(options, images):
    generator = options.out / "curve-generator" / "generator.safetensors"
    rows = []
    for method, more in [("fgsm", []), ("pgd", STEPS), ("generator", ["--generator", str(generator)])]:
        summary, _ = attack(options, f"alone-{method}", "--task", "classify", "--method", method, "--epsilon", "8/255", *images,
                            *more)
        line = summary["attacks"][0]
        rows.append([" ".join([method, *(more if method == "pgd" else [])]), number(line["robust"]), number(line["robust_rounded"]),
                     number(line["success"]), number(line["score"]), number(line["median_l2"], 2), number(line["mean_ssim"]),
                     number(line["seconds_per_picture"])])
    headings = ["", "resists", "the same, rounded to bytes", "success", "mAP", "median L2", "SSIM", "s a picture"]
    return f"## At ε = 8/255\n\n{table(headings, rows)}\n"


def masks(options, images):
    away, _ = attack(options, "masks-segpgd", "--task", "segment", "--epsilon", "8/255", *STEPS, *images)
    source, target = options.turn
    turn = ["--from", source, "--target", target]
    turned, _ = attack(options, "masks-turned", "--task", "segment", "--epsilon", "8/255", *STEPS, *turn, *images)
    a, t = away["attacks"][0], turned["attacks"][0]
    return f"""## Masks, ε = 8/255, {a['pictures']} validation pictures, `{' '.join(STEPS)}`

SegPGD: mean IoU {number(a['score_clean'])} → {number(a['score'])}, after rounding {number(a['score_rounded'])};
{100 * a['led']:.1f} % of all pixels wrong; SSIM {number(a['mean_ssim'])}; {number(a['seconds_per_picture'])} s a picture.
`{' '.join(turn)}`, {t['pictures']} pictures in which the network sees {source}: {100 * t['led']:.1f} % of those pixels become
{target}, {100 * t['kept']:.1f} % of the others stay what they were.
"""


def defences(options):
    summary, _ = attack(options, "defences", "--task", "classify", "--images", "120", "--steps", "5", "--defences",
                        "--defence-epochs", "3")
    rows = [[line["defence"], *(number(line[key]) for key in ("clean", "attacked", "adaptive")), line["note"]]
            for line in summary["defences"]]
    headings = ["", "clean", "attacked, unaware", "adaptive", ""]
    return f"## Defences, PGD of 5 steps at 8/255, 120 pictures: share of pictures that are right\n\n{table(headings, rows)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atrous", default="target/release/atrous")
    parser.add_argument("--flags", default="", help="flags of the program in front of the command, as --threads 1")
    parser.add_argument("--demo", type=Path, required=True, help="the folder that `atrous demo` left")
    parser.add_argument("--data", type=Path, help="the pictures [default: DEMO/data]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200, help="validation pictures; half as many for masks")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS, help="ε·255")
    parser.add_argument("--generator-steps", type=int, default=200)
    parser.add_argument("--turn", nargs=2, default=["person", "background"], metavar=("FROM", "TO"), help="of masks")
    parser.add_argument("--defences", action="store_true")
    options = parser.parse_args()
    options.data = options.data or options.demo / "data"
    options.out.mkdir(parents=True, exist_ok=True)
    images = ["--images", str(options.images)]
    parts = [curves(options, images), alone(options, images), masks(options, ["--images", str(max(options.images // 2, 1))])]
    if options.defences:
        parts.append(defences(options))
    path = options.out / "tables.md"
    path.write_text("\n".join(parts))
    print(path)


if __name__ == "__main__":
    main()
