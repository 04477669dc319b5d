"""Reads the trace of `atrous profile --out` with Perfetto's trace processor, and compares it with the file.

    python3 tests/perfetto.py TRACE.json

Run by hand: it needs `pip install perfetto`, which fetches the trace processor when it is first used.
"""

import json
import sys
from pathlib import Path

# This file's folder comes first, where `perfetto` would be this file.
sys.path.pop(0)

BY_THREAD = """
    select process.name as process, thread.name as thread, slice.category as category, count(*) as n
    from slice join thread_track on slice.track_id = thread_track.id join thread using (utid)
    left join process using (upid) group by 1, 2, 3
"""
OUTSIDE = """
    select child.name as child, parent.name as parent
    from slice child join slice parent on child.parent_id = parent.id
    where child.ts < parent.ts or child.ts + child.dur > parent.ts + parent.dur
"""
PARENTS = """
    select child.name as child, child.category as category, parent.name as parent
    from slice child left join slice parent on child.parent_id = parent.id
    where child.category in ('step', 'backward')
"""


def check(trace, processor):
    query = lambda sql: list(processor.query(sql))
    events = json.loads(trace.read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]

    errors = query("select name, value from stats where severity in ('error', 'data_loss') and value > 0")
    assert not errors, [(e.name, e.value) for e in errors]

    # Every slice has its name, its beginning and its length, to the nanosecond.
    got = sorted((s.name, s.ts, s.dur) for s in query("select name, ts, dur from slice"))
    wanted = sorted((e["name"], round(e["ts"] * 1000), round(e["dur"] * 1000)) for e in slices)
    assert got == wanted, [pair for pair in zip(got, wanted) if pair[0] != pair[1]][:5]

    # Each row is a thread of its own, under the name it is given.
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    wanted = {}
    for event in slices:
        key = (names[event["pid"], event["tid"]], event["cat"])
        wanted[key] = wanted.get(key, 0) + 1
    got = {(row.thread, row.category): row.n for row in query(BY_THREAD)}
    assert got == wanted, (got, wanted)

    # Slices nest: steps in the forward pass, backward functions in the backward pass, but for the loss.
    outside = query(OUTSIDE)
    assert not outside, [(row.child, row.parent) for row in outside]
    parents = query(PARENTS)
    for row in parents:
        wanted = {"step": "forward", "backward": "backward"}[row.category]
        assert row.parent == (None if row.child == "loss" else wanted), (row.child, row.parent)

    counters = query("select count(*) as n, min(value) as least from counter")[0]
    assert counters.n == sum(event["ph"] == "C" for event in events) > 0 and counters.least >= 0

    threads = ", ".join(sorted({thread for thread, _ in got}))
    print(f"{len(slices)} slices of {threads}: {len(parents)} steps and functions nest, {counters.n} counts")


if __name__ == "__main__":
    from perfetto.trace_processor import TraceProcessor

    path = Path(sys.argv[1])
    with TraceProcessor(trace=str(path)) as processor:
        check(path, processor)
