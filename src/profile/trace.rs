//! A pass as a time line, in the Chrome trace event format, which Perfetto and `chrome://tracing` open.
//!
//! One process is the CPU. Its first row has forward and backward pass with their steps in them, and in those
//! the backward functions of operators; each further row is a thread of the pool with the pieces of parallel
//! loops that it ran. A second process is the device, where there is one, with its kernels. A counter shows
//! the memory that tensors hold.

use crate::nn::PlanTable;
use crate::spans::{Span, What};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What ran when, in one pass of which everything was recorded. Recording takes time: lengths are for
/// comparison within the trace, and [`super::Profile`] has the times.
///
/// [`profile`](super::profile()) has an example.
pub struct Trace {
    /// What was run.
    name: String,
    device: String,
    steps: Vec<String>,
    spans: Vec<Span>,
}

/// Processes, by the number of their first thread. Perfetto takes a thread 0 for none, and a number that is
/// also a process' for that process' first thread: so all differ, and none is 0.
const CPU: usize = 1;
const DEVICE: usize = 1_000_000;
/// The first row.
const STEPS: usize = CPU;

/// Pieces of one loop follow each other closely: one after the other, they are drawn as one.
const GAP: f64 = 5e-6;

impl Trace {
    pub(super) fn new(plan: &PlanTable, spans: Vec<Span>) -> Self {
        let name = format!("{}: {} of {}", plan.model, plan.purpose, plan.input);
        let steps = plan
            .steps
            .iter()
            .enumerate()
            .map(|(i, step)| format!("{}. {}", i + 1, step.layers.join(" + ")));
        let steps = steps.chain(["loss".into()]).collect();
        Trace { name, device: plan.device.to_string(), steps, spans }
    }

    /// The trace, for a file that such a viewer opens.
    pub fn to_json(&self) -> Value {
        let mut events = self.names();
        events.extend(self.passes());
        events.extend(self.spans.iter().filter_map(|span| self.step(span)));
        events.extend(self.pieces());
        events.extend(self.spans.iter().filter_map(memory));
        json!({"traceEvents": events, "displayTimeUnit": "ms"})
    }

    /// What processes and threads are called.
    fn names(&self) -> Vec<Value> {
        let named = |what: &str, pid: usize, tid: usize, name: String| {
            let args = json!({"name": name});
            json!({"name": what, "ph": "M", "pid": pid, "tid": tid, "args": args})
        };
        let mut all = vec![
            named("process_name", CPU, STEPS, self.name.clone()),
            named("thread_name", CPU, STEPS, "steps".into()),
        ];
        all.extend(self.threads().into_iter().map(|thread| {
            named("thread_name", CPU, row(thread), format!("thread {thread} of the pool"))
        }));
        if self.spans.iter().any(|span| matches!(span.what, What::Kernel { .. })) {
            all.push(named("process_name", DEVICE, DEVICE, self.device.clone()));
            all.push(named("thread_name", DEVICE, DEVICE, "kernels".into()));
        }
        all
    }

    /// The passes as wholes, from their first span to their last.
    fn passes(&self) -> Vec<Value> {
        let loss = self.steps.len() - 1;
        let is_forward = |what: What| matches!(what, What::Step(step) if step < loss);
        let is_backward = |what: What| matches!(what, What::Backward { .. });
        let whole = |name: &str, is: &dyn Fn(What) -> bool| {
            let spans = self.spans.iter().filter(|span| is(span.what));
            let [start, end] = spans.fold([f64::INFINITY, 0.0], |[start, end]: [f64; 2], span| {
                [start.min(span.start), end.max(span.end)]
            });
            (start < end).then(|| event(name, "pass", [CPU, STEPS], [start, end], json!({})))
        };
        [whole("forward", &is_forward), whole("backward", &is_backward)].into_iter().flatten().collect()
    }

    /// A step, a backward function or a kernel.
    fn step(&self, span: &Span) -> Option<Value> {
        let times = [span.start, span.end];
        match span.what {
            What::Step(step) => {
                let args = json!({"step": step + 1});
                Some(event(self.steps.get(step)?, "step", [CPU, STEPS], times, args))
            }
            What::Backward { step, op } => {
                let of = step.and_then(|step| self.steps.get(step)).map_or("loss", String::as_str);
                let args = json!({"step": step.map(|step| step + 1), "operator": op});
                Some(event(&format!("{of} ({op})"), "backward", [CPU, STEPS], times, args))
            }
            What::Kernel { name } => Some(event(name, "kernel", [DEVICE, DEVICE], times, json!({}))),
            What::Piece { .. } => None,
        }
    }

    /// Pieces of parallel loops, thread by thread, those that follow each other within a step as one.
    fn pieces(&self) -> Vec<Value> {
        let is_step = |span: &&Span| matches!(span.what, What::Step(_) | What::Backward { .. });
        let steps: Vec<&Span> = self.spans.iter().filter(is_step).collect();
        self.threads().into_iter().flat_map(|thread| self.pieces_of(thread, &steps)).collect()
    }

    /// Those that ran pieces of loops.
    fn threads(&self) -> BTreeSet<usize> {
        self.spans.iter().filter_map(piece).collect()
    }

    fn pieces_of(&self, thread: usize, steps: &[&Span]) -> Vec<Value> {
        let mut spans: Vec<&Span> =
            self.spans.iter().filter(|span| piece(span) == Some(thread)).collect();
        // What began first holds what began later.
        spans.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.end.total_cmp(&a.end)));
        let mut merged: Vec<(&str, [f64; 2], usize)> = Vec::new();
        for span in spans {
            let name = self.name_at(span.start, steps);
            match merged.last_mut() {
                Some((last, [_, end], count))
                    if *last == name && span.start >= *end && span.start - *end < GAP =>
                {
                    (*end, *count) = (span.end, *count + 1);
                }
                _ => merged.push((name, [span.start, span.end], 1)),
            }
        }
        let piece = |(name, times, count): (&str, [f64; 2], usize)| {
            event(name, "pieces", [CPU, row(thread)], times, json!({"pieces": count}))
        };
        merged.into_iter().map(piece).collect()
    }

    /// The step that was under way.
    fn name_at(&self, time: f64, steps: &[&Span]) -> &str {
        let under_way = steps.iter().find(|span| (span.start..=span.end).contains(&time));
        match under_way.map(|span| span.what) {
            Some(What::Step(step) | What::Backward { step: Some(step), .. }) => {
                self.steps.get(step).map_or("", String::as_str)
            }
            Some(_) => "loss",
            None => "between steps",
        }
    }
}

/// The thread of a piece of a loop.
fn piece(span: &Span) -> Option<usize> {
    match span.what {
        What::Piece { thread } => Some(thread),
        _ => None,
    }
}

/// Below the steps.
fn row(thread: usize) -> usize {
    STEPS + 1 + thread
}

/// A complete event ("X"): microseconds, to a nanosecond.
fn event(name: &str, category: &str, [pid, tid]: [usize; 2], times: [f64; 2], args: Value) -> Value {
    let [start, end] = times.map(nanoseconds);
    let (ts, dur) = (start / 1e3, (end - start) / 1e3);
    json!({
        "name": name, "cat": category, "ph": "X", "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args,
    })
}

fn nanoseconds(seconds: f64) -> f64 {
    (seconds * 1e9).round()
}

/// A counter ("C") of the memory that is lent out when a step or a backward function is over.
fn memory(span: &Span) -> Option<Value> {
    let [in_use, _] = span.pool?;
    let ts = nanoseconds(span.end) / 1e3;
    let args = json!({"MB": in_use as f64 / 1e6});
    Some(json!({"name": "pool", "ph": "C", "pid": CPU, "tid": STEPS, "ts": ts, "args": args}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::models::by_name;
    use crate::nn::Purpose;

    fn span(what: What, start: f64, end: f64) -> Span {
        Span { what, start, end, pool: None }
    }

    #[test]
    fn pieces_that_follow_each_other_in_a_step_are_one_event_and_others_are_not() {
        let graph = by_name("alexnet", 120, 20).unwrap();
        let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Inference, 1).unwrap();
        let piece = |start, end| span(What::Piece { thread: 1 }, start, end);
        let spans = vec![
            piece(1.0, 2.0),
            piece(2.000_001, 3.0),
            piece(4.0, 4.5),
            span(What::Step(0), 0.5, 5.0),
            piece(6.0, 7.0),
            span(What::Step(1), 5.0, 8.0),
            span(What::Kernel { name: "copy" }, 1.0, 2.0),
        ];
        let trace = Trace::new(&plan, spans);
        let pieces = trace.pieces();
        let seconds: Vec<[f64; 2]> =
            pieces.iter().map(|e| ["ts", "dur"].map(|key| e[key].as_f64().unwrap() / 1e6)).collect();
        assert_eq!(seconds, [[1.0, 2.0], [4.0, 0.5], [6.0, 1.0]]);
        assert_eq!(pieces[0]["args"]["pieces"], 2);
        assert!(pieces[2]["name"].as_str().unwrap().starts_with("2. "), "{}", pieces[2]);
        let json = trace.to_json();
        let named = |name: &str| {
            json["traceEvents"].as_array().unwrap().iter().any(|e| e["args"]["name"] == name)
        };
        assert!(named("kernels") && named("thread 1 of the pool") && named("steps"));
    }

    #[test]
    fn each_row_is_a_thread_of_its_own_for_viewers_to_which_thread_0_is_none() {
        let graph = by_name("alexnet", 120, 20).unwrap();
        let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Inference, 1).unwrap();
        let spans = [0, 1]
            .map(|thread| span(What::Piece { thread }, 1.0, 2.0))
            .into_iter()
            .chain([span(What::Step(0), 0.5, 5.0), span(What::Kernel { name: "copy" }, 1.0, 2.0)]);
        let json = Trace::new(&plan, spans.collect()).to_json();
        let events = json["traceEvents"].as_array().unwrap();
        let named = events.iter().filter(|event| event["name"] == "thread_name");
        let rows: BTreeSet<u64> = named.clone().map(|event| event["tid"].as_u64().unwrap()).collect();
        assert_eq!((rows.len(), named.count(), rows.contains(&0)), (4, 4, false));
        let used = events.iter().map(|event| event["tid"].as_u64().unwrap());
        assert!(used.clone().all(|tid| rows.contains(&tid)), "{:?}", used.collect::<Vec<_>>());
    }
}
