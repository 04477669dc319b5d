"""Medians of a GPU's work by its own clock, as `atrous bench ops --device cuda` takes them."""
import statistics

import torch

RUNS = 10


def median_ms(run, seconds=None):
    """15 times ten runs that are asked for one after the other: what counts is the work, or the asking where that takes
    longer. (`seconds` is for the CPU's timing, which has the same name.)"""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(15):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(RUNS):
            run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / RUNS)
    return round(statistics.median(times), 4)
