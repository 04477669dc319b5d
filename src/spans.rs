//! What runs when: spans of time that a pass leaves while somebody records it (`crate::profile`).
//!
//! A [`Recorder`] holds for a scope of one thread ([`record`]) and goes along to the threads that work is
//! handed to. Without one, which is the rule, a look at a thread's own variable is all that a step, a
//! backward function or a parallel loop pays for being observable.
//!
//! Steps of a plan run one after the other, and nodes of the tape are made within them: a node that was made
//! during a step is that step's, and so is the time of its backward function.

use crate::pool;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a span of time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A plan's step, forward, by its place in the plan.
    Step(usize),
    /// The backward function of a node of the tape, and the step that made it, if one did.
    Backward { step: Option<usize>, op: &'static str },
    /// A piece of a parallel loop, on the thread of this number.
    Piece { thread: usize },
    /// A device's kernel.
    Kernel { name: &'static str },
}

/// From when to when, in seconds since the recorder was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub what: What,
    pub start: f64,
    pub end: f64,
    /// Bytes lent out by the CPU's pool when it was over, and at most meanwhile. Of steps and backward
    /// functions that are recorded in detail.
    pub pool: Option<[usize; 2]>,
}

/// Takes down spans.
pub(crate) struct Recorder {
    begin: Instant,
    /// Whether pieces of parallel loops, kernels and memory are of interest: they are many, and cost time.
    detailed: bool,
    /// Waits for the device, so that a step's work is over when its span is.
    wait: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// The step under way.
    step: Option<usize>,
    /// By a node's number, the step during which it was made.
    nodes: HashMap<u64, usize>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Recorder>>> = const { RefCell::new(None) };
}

/// The recorder of this thread, if there is one.
pub(crate) fn current() -> Option<Arc<Recorder>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The recorder of this thread, if it wants details.
pub(crate) fn detailed() -> Option<Arc<Recorder>> {
    CURRENT.with_borrow(|current| current.as_ref().filter(|recorder| recorder.detailed).cloned())
}

/// Runs `f` with this recorder, or without one.
pub(crate) fn record<R>(recorder: Option<Arc<Recorder>>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<Recorder>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(recorder));
    f()
}

/// Runs a plan's step.
pub(crate) fn step<R>(number: usize, f: impl FnOnce() -> R) -> R {
    let Some(recorder) = current() else { return f() };
    recorder.state().step = Some(number);
    let result = recorder.timed(|| What::Step(number), f);
    recorder.state().step = None;
    result
}

/// Says that a node of the tape was made.
pub(crate) fn node(id: u64) {
    CURRENT.with_borrow(|current| {
        let Some(recorder) = current else { return };
        let mut state = recorder.state();
        if let Some(step) = state.step {
            state.nodes.insert(id, step);
        }
    });
}

/// Runs the backward function of a node of the tape.
pub(crate) fn backward<R>(id: u64, op: &'static str, f: impl FnOnce() -> R) -> R {
    let Some(recorder) = current() else { return f() };
    recorder.timed(|| What::Backward { step: recorder.state().nodes.get(&id).copied(), op }, f)
}

/// Runs what is left to do of a step's backward pass.
pub(crate) fn backward_of<R>(step: Option<usize>, op: &'static str, f: impl FnOnce() -> R) -> R {
    let Some(recorder) = current() else { return f() };
    recorder.timed(|| What::Backward { step, op }, f)
}

impl Recorder {
    /// A recorder whose clock begins now; `wait` is called where a step's or a backward function's work has
    /// been asked for.
    pub fn new(detailed: bool, wait: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (begin, wait, state) = (Instant::now(), Box::new(wait), Mutex::default());
        Arc::new(Recorder { begin, detailed, wait, state })
    }

    /// What was recorded so far, in the order in which it was over.
    pub fn spans(&self) -> Vec<Span> {
        self.state().spans.clone()
    }

    /// Seconds since it was made.
    pub fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Takes down a kernel that began `start` seconds after the recorder and took so many.
    pub fn kernel(&self, name: &'static str, start: f64, seconds: f64) {
        self.push(What::Kernel { name }, start, start + seconds, None);
    }

    /// Runs a piece of a parallel loop.
    pub fn piece(&self, f: impl FnOnce()) {
        let start = self.now();
        f();
        let thread = rayon::current_thread_index().unwrap_or(0);
        self.push(What::Piece { thread }, start, self.now(), None);
    }

    fn timed<R>(&self, what: impl FnOnce() -> What, f: impl FnOnce() -> R) -> R {
        if self.detailed {
            pool::reset_peak();
        }
        let start = self.now();
        let result = f();
        (self.wait)();
        let end = self.now();
        let usage = self.detailed.then(pool::usage);
        self.push(what(), start, end, usage.map(|usage| [usage.in_use, usage.peak]));
        result
    }

    fn push(&self, what: What, start: f64, end: f64, pool: Option<[usize; 2]>) {
        self.state().spans.push(Span { what, start, end, pool });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_recorded_without_a_recorder_and_a_scope_s_recorder_ends_with_it() {
        let recorder = Recorder::new(false, || ());
        step(0, || node(1));
        record(Some(recorder.clone()), || assert!(current().is_some() && detailed().is_none()));
        assert!(current().is_none() && recorder.spans().is_empty());
    }

    #[test]
    fn the_backward_function_of_a_node_is_of_the_step_that_made_it() {
        let recorder = Recorder::new(false, || ());
        record(Some(recorder.clone()), || {
            step(0, || node(7));
            step(1, || node(8));
            node(9);
            [9, 8, 7].into_iter().for_each(|id| backward(id, "op", || ()));
        });
        let what: Vec<What> = recorder.spans().iter().map(|span| span.what).collect();
        let back = |step| What::Backward { step, op: "op" };
        assert_eq!(what, [What::Step(0), What::Step(1), back(None), back(Some(1)), back(Some(0))]);
        let spans = recorder.spans();
        assert!(spans.iter().all(|span| span.start <= span.end && span.pool.is_none()));
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn a_step_ends_when_the_device_has_done_its_work_and_details_have_memory() {
        let recorder = Recorder::new(true, || std::thread::sleep(std::time::Duration::from_millis(2)));
        record(Some(recorder.clone()), || {
            step(0, || ());
            detailed().unwrap().kernel("copy", 0.5, 0.25);
        });
        let [first, kernel] = recorder.spans().try_into().unwrap();
        assert!(first.end - first.start >= 2e-3);
        let [after, peak] = first.pool.unwrap();
        assert!(after <= peak);
        assert_eq!((kernel.what, kernel.start, kernel.end), (What::Kernel { name: "copy" }, 0.5, 0.75));
    }
}
