//! Captured graphs: what a piece of code asks of a device is written down instead of done, and then done as
//! often as one likes by a single request. At small batches a training step is some hundreds of launches of a
//! few microseconds each, and the asking would take longer than the work.
//!
//! - **Memory** that is asked for while capturing comes from a pool of the graph's own, and goes back
//!   there: every replay uses the same addresses, and nobody else gets them.
//! - **Arguments are frozen.** What changes from replay to replay is in memory: the random numbers' step
//!   and the learning rates, which [`Graph::replay`] sets before each.
//! - **Nothing goes between the CPU's memory and the device's** while capturing, and nobody waits: an error
//!   says so. Other threads' requests wait until the capture is over.

use super::{Cuda, Kernel, LaunchConfig, Memory, Pool, arguments};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::cell::RefCell;
use std::sync::{Arc, PoisonError};

/// Numbers that a captured graph finds in the device's memory.
///
/// [`Graph`] has an example.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayParams {
    /// Step of the run, which dropout's random numbers are a function of.
    pub step: u64,
    /// Learning rates: of the network's head, and of its base.
    pub rates: [f32; 2],
}

/// Where its parts are, in bytes, for kernels (`struct ReplayParams` of `kernels/graph.cu`).
const STEP: u64 = 0;
const RATES: u64 = 8;
const BYTES: usize = 16;

pub(super) struct Capture {
    pub cuda: &'static Cuda,
    pub pool: Arc<Pool>,
    changing: u64,
}

thread_local! {
    pub(super) static CAPTURE: RefCell<Option<Capture>> = const { RefCell::new(None) };
}

/// Is this thread capturing on the device?
pub(super) fn is_capturing(cuda: &Cuda) -> bool {
    CAPTURE.with_borrow(|capture| {
        capture.as_ref().is_some_and(|capture| capture.cuda.device == cuda.device)
    })
}

/// The address of the present step, for kernels; 0 where nothing is captured.
pub(crate) fn step_address() -> u64 {
    CAPTURE.with_borrow(|capture| capture.as_ref().map_or(0, |capture| capture.changing + STEP))
}

/// The address of a learning rate, for kernels; 0 where nothing is captured.
pub(crate) fn rate_address(which: usize) -> u64 {
    let offset = RATES + 4 * which as u64;
    CAPTURE.with_borrow(|capture| capture.as_ref().map_or(0, |capture| capture.changing + offset))
}

/// Ends the thread's capture, also where a panic does.
struct End {
    cuda: &'static Cuda,
    panics: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        CAPTURE.set(None);
        if self.panics
            && let Ok(handle) = self.cuda.driver.end_capture()
        {
            self.cuda.driver.release(handle);
        }
    }
}

/// What was captured.
///
/// ```
/// use atrous::backend::cuda::graph::{Graph, ReplayParams};
/// use atrous::prelude::*;
///
/// # fn main() -> Result<()> {
/// let Ok(device) = Device::Cuda(0).require() else { return Ok(()) }; // there is no GPU here
/// let x = Tensor::from([1.0f32, 2.0]).to_device(device)?;
/// let y = x.square()?; // kernels are loaded at their first call, which a capture could not do
/// let (y, graph) = Graph::capture(device, || x.square())?;
/// graph.replay(ReplayParams::default())?; // now y has its values
/// assert_eq!(y.to_vec_f64(), [1.0, 4.0]);
/// # Ok(())
/// # }
/// ```
pub struct Graph {
    cuda: &'static Cuda,
    handle: u64,
    changing: Memory,
    /// Last: what is above goes back to it.
    _pool: Arc<Pool>,
}

impl Graph {
    /// Writes down what `f` asks of the device. None of it has been done when this returns: the tensors that
    /// `f` made have their values after the first replay, and others after each further one. Tensors that
    /// it only reads must live as long as the graph, and stay what they are.
    pub fn capture<T>(device: Device, f: impl FnOnce() -> Result<T>) -> Result<(T, Graph)> {
        let cuda = Cuda::get(device)?;
        if CAPTURE.with_borrow(Option::is_some) {
            return Err(Error::Device("a capture within a capture".into()));
        }
        // The kernel must be there before: to load it is no work of the stream's.
        let pool = Arc::new(Pool::of_graph(cuda));
        let changing = cuda.allocate_from(&pool, BYTES, DType::U8)?;
        set(cuda, &changing, ReplayParams::default())?;
        // What eager steps used is free, and the graph will want as much.
        cuda.trim();
        let capture_guard = cuda.capture_guard.write().unwrap_or_else(PoisonError::into_inner);
        cuda.driver.begin_capture()?;
        let capture = Capture { cuda, pool: pool.clone(), changing: changing.address() };
        CAPTURE.set(Some(capture));
        let mut end = End { cuda, panics: true };
        let result = f();
        end.panics = false;
        drop(end);
        let handle = cuda.driver.end_capture()?;
        drop(capture_guard);
        // From here on it is released with the graph.
        let graph = Graph { cuda, handle, changing, _pool: pool };
        Ok((result?, graph))
    }

    /// Asks the device to do all of it, with these numbers.
    pub fn replay(&self, now: ReplayParams) -> Result<()> {
        set(self.cuda, &self.changing, now)?;
        let _capture_guard = self.cuda.capture_guard();
        self.cuda.driver.replay(self.handle)
    }
}

fn set(cuda: &Cuda, changing: &Memory, now: ReplayParams) -> Result<()> {
    let all = arguments![changing, now.step, now.rates[0], now.rates[1]];
    let size = LaunchConfig { grid: [1; 3], block: [1; 3], shared: 0 };
    // SAFETY: `changing` is the 16 bytes of the kernel's struct.
    unsafe { cuda.launch(Kernel::of("graph", "graph_set"), size, &all) }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _capture_guard = self.cuda.capture_guard();
        self.cuda.driver.release(self.handle);
    }
}
