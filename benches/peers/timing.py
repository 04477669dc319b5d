"""What the scripts of this folder share: medians as `atrous bench` takes them, the allocator's settings, and cells in
processes of their own."""
import json
import os
import resource
import statistics
import subprocess
import sys
import time

# glibc gives large blocks straight back to the system, and the next layer pays for fresh pages. "tuned" makes it keep them, and
# asks for huge pages: what a user who knows can set without a change to the program.
ALLOCATORS = {
    "default": {},
    "tuned": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
        "MALLOC_TOP_PAD_": str(64 << 20),
        "THP_MEM_ALLOC_ENABLE": "1",
    },
}

# The batch each network is trained with; `atrous bench nets` has the same.
BATCHES = {"alexnet": 16, "vgg16_frozen": 10, "resnet50v2_frozen": 16, "mobilenetv2_frozen": 16,
           "mobilenetv2_full": 16, "deeplabv3plus": 4, "fgsm_mobilenetv2": 1}


def median_ms(run, seconds):
    """Two runs to warm up, then 15, or as many as fit into `seconds`, but three at least."""
    for _ in range(2):
        run()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or (len(times) < 15 and time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 4)


class Timer:
    """Medians; `first` is how many seconds all first runs took, compilation included."""

    def __init__(self):
        self.first = 0.0

    def median_ms(self, run, seconds):
        begin = time.perf_counter()
        run()
        self.first += time.perf_counter() - begin
        return median_ms(run, seconds)


def environment(alloc):
    """For a process with this allocator."""
    others = {key: value for key, value in os.environ.items() if key not in ALLOCATORS["tuned"]}
    return {**others, **ALLOCATORS[alloc]}


def peak_rss_mib():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def in_a_process_of_its_own(script, cell):
    """The line that `script --cell CELL` prints, or one that says what went wrong."""
    command = [sys.executable, os.path.abspath(script), "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(cell["alloc"]))
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return {**cell, "error": last[:300]}


def measure_cell(script, cell):
    """The line of a network's cell. What training alone needs of memory shows only in a process that does nothing else."""
    line = in_a_process_of_its_own(script, {**cell, "part": "times"})
    if "train_ms" in line:
        alone = in_a_process_of_its_own(script, {**cell, "part": "train"})
        line["train_rss_mib"] = alone.get("peak_rss_mib")
    line.pop("part", None)
    return line


def listed(text):
    return [part for part in text.split(",") if part]
