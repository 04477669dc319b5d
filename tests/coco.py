"""Masks and labels of a COCO file as COCO's own tools make them.

    python3 tests/coco.py INSTANCES

Prints a JSON object: for each image's name the classes' numbers of its objects (from 0, in the order of the categories'
ids) and its mask, row by row: class + 1, 255 for crowds, later objects on top. Needs `pip install pycocotools`.
"""

import contextlib
import json
import os
import sys

# This file's folder comes first, where other modules' names may be those of files here.
sys.path.pop(0)
from pycocotools.coco import COCO


def main(instances):
    with contextlib.redirect_stdout(open(os.devnull, "w")):
        coco = COCO(instances)
    numbers = {category: i for i, category in enumerate(sorted(coco.getCatIds()))}
    result = {}
    for image in coco.loadImgs(coco.getImgIds()):
        mask = [[0] * image["width"] for _ in range(image["height"])]
        labels = set()
        annotations = sorted(coco.loadAnns(coco.getAnnIds(imgIds=image["id"])), key=lambda a: a["id"])
        for annotation in annotations:
            crowd = annotation.get("iscrowd", 0)
            number = numbers[annotation["category_id"]]
            if not crowd:
                labels.add(number)
            inside = coco.annToMask(annotation)
            for y in range(image["height"]):
                for x in range(image["width"]):
                    if inside[y][x]:
                        mask[y][x] = 255 if crowd else number + 1
        result[image["file_name"]] = {"labels": sorted(labels), "mask": sum(mask, [])}
    print(json.dumps(result))


main(sys.argv[1])
