"""Reads the event files of a run with TensorBoard itself, and compares them with the run's history.

    python3 tests/tensorboard.py BOARD RUN

BOARD is the folder of --tensorboard, RUN the run's. Needs `pip install tensorboard`.
"""

import json
import math
import struct
import sys
from pathlib import Path

# This file's folder comes first, where `tensorboard` would be this file.
sys.path.pop(0)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCALARS = {
    "loss/train": "loss",
    "loss/validation": "val_loss",
    "accuracy/train": "accuracy",
    "accuracy/validation": "val_accuracy",
    "mean_average_precision/validation": "val_map",
    "mean_iou/validation": "val_miou",
    "mean_dice/validation": "val_dice",
    "learning_rate": "learning_rate",
}


def main(board, run):
    history = json.loads((run / "history.json").read_text())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    # 0: keep everything.
    reader = EventAccumulator(str(board), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    reader.Reload()
    tags = reader.Tags()

    compared = 0
    for tag, key in SCALARS.items():
        expected = [(row["epoch"], row[key]) for row in history if row[key] is not None]
        got = [(s.step, s.value) for s in reader.Scalars(tag)] if tag in tags["scalars"] else []
        assert [step for step, _ in got] == [epoch for epoch, _ in expected], (tag, got, expected)
        for (_, value), (_, wanted) in zip(got, expected):
            assert math.isclose(value, wanted, rel_tol=1e-6), (tag, value, wanted)
            compared += 1

    steps = [event for event in events if event["event"] == "step"]
    got = [(s.step, s.value) for s in reader.Scalars("step/loss")]
    assert [step for step, _ in got] == [step["global_step"] for step in steps], (got, steps)
    for (_, value), step in zip(got, steps):
        assert math.isclose(value, step["loss"], rel_tol=1e-6), (value, step)
        compared += 1

    images = reader.Images("predictions")
    assert [image.step for image in images] == [row["epoch"] for row in history], images
    for image in images:
        png = image.encoded_image_string
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", png[16:24]) == (image.width, image.height) > (100, 100), image

    assert tags["histograms"], tags
    for tag in tags["histograms"]:
        histograms = reader.Histograms(tag)
        assert [h.step for h in histograms] == [row["epoch"] for row in history], tag
        for h in histograms:
            values = h.histogram_value
            assert math.isclose(sum(values.bucket), values.num) and values.num >= 1, tag
            limits = values.bucket_limit
            assert all(a < b for a, b in zip(limits, limits[1:])), tag
            assert math.isclose(limits[-1], values.max, rel_tol=1e-9, abs_tol=1e-12), tag

    print(
        f"{len(history)} epochs: {compared} scalars of {len(tags['scalars'])} tags are the history's, "
        f"{len(images)} images, histograms of {len(tags['histograms'])} parameters"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
