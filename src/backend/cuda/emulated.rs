//! The emulated device: kernels compiled as C++, their threads run as fibers on the CPU
//! (`kernels/emulator`). Slow, and exact about what is wrong: memory is as large as it was asked
//! for and NaN until written, and threads run in the order that is asked for.

use super::{Argument, Driver, Kernel, LaunchConfig, PinnedBuffer, pointers};
use crate::error::{Error, Result};
use crate::files::explain;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

unsafe extern "C" {
    fn atrous_emulator_launch(
        kernel: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared: usize,
        arguments: *mut *mut c_void,
        message: *mut c_char,
        message_bytes: usize,
    ) -> c_int;
    fn atrous_emulator_order(order: c_int, seed: c_uint);
}

/// In which order the threads of a block, and the blocks of a grid, run where nothing orders them.
/// A result that depends on it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their numbers.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Shuffled, by this seed.
    Random(u32),
}

/// From now on, for the whole process.
pub fn set_order(order: Order) {
    let (order, seed) = match order {
        Order::Forward => (0, 0),
        Order::Reverse => (1, 0),
        Order::Random(seed) => (2, seed),
    };
    let _one_at_a_time = sizes();
    // SAFETY: it sets two numbers, and no kernel runs meanwhile.
    unsafe { atrous_emulator_order(order, seed) };
}

/// Where launches are written to, if they are: see [`record_to`].
static RECORDING: Mutex<Option<BufWriter<File>>> = Mutex::new(None);

/// From now on, writes every launch that succeeds to a file, with the content of its buffers before and
/// after: `kernels/emulator/replay.cpp`, built with a sanitizer, runs them again. `None` ends it.
pub fn record_to(path: Option<&Path>) -> Result<()> {
    let mut recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut file) = recording.take() {
        file.flush().map_err(|error| Error::Device(format!("the recording of launches: {error}")))?;
    }
    if let Some(path) = path {
        let failed = |error| Error::file(path, explain(&error));
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        file.write_all(b"ATROUSR1").map_err(failed)?;
        *recording = Some(file);
    }
    Ok(())
}

/// The content of every buffer among the arguments, by address: a word that is the address of memory that
/// is lent out is a buffer.
fn contents(sizes: &HashMap<u64, usize>, arguments: &[Argument]) -> BTreeMap<u64, Vec<u8>> {
    let words = arguments.iter().flat_map(|argument| &argument.0);
    let buffers = words.filter_map(|&address| Some((address, *sizes.get(&address)?)));
    let content = |(address, bytes): (u64, usize)| {
        // SAFETY: memory of this many bytes, lent out; no kernel runs now.
        (address, unsafe { std::slice::from_raw_parts(address as *const u8, bytes) }.to_vec())
    };
    buffers.map(content).collect()
}

/// One launch as `replay.cpp` reads it (little-endian).
fn record(
    kernel: Kernel,
    size: LaunchConfig,
    arguments: &[Argument],
    before: &BTreeMap<u64, Vec<u8>>,
    after: &BTreeMap<u64, Vec<u8>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((kernel.name.len() as u16).to_le_bytes());
    bytes.extend(kernel.name.as_bytes());
    for number in size.grid.into_iter().chain(size.block).chain([size.shared]) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend((before.len() as u16).to_le_bytes());
    for (was, is) in before.values().zip(after.values()) {
        bytes.extend((was.len() as u64).to_le_bytes());
        bytes.extend(was);
        bytes.extend(is);
    }
    bytes.extend((arguments.len() as u16).to_le_bytes());
    for argument in arguments {
        bytes.extend((argument.0.len() as u16).to_le_bytes());
        for word in &argument.0 {
            let place = before.keys().position(|known| known == word);
            bytes.push(place.is_some() as u8);
            bytes.extend(place.map_or(*word, |place| place as u64).to_le_bytes());
        }
    }
    bytes
}

pub(super) struct EmulatedDriver;

/// A request of a captured graph.
enum Request {
    Launch(Kernel, LaunchConfig, Vec<Argument>),
    /// From, to, bytes.
    Copy(u64, u64, usize),
}

thread_local! {
    /// What this thread has asked for while it captures.
    static WRITTEN: RefCell<Option<Vec<Request>>> = const { RefCell::new(None) };
}

/// True where this thread captures, and the request is written down instead of done.
fn write_down(request: impl FnOnce() -> Request) -> bool {
    WRITTEN.with_borrow_mut(|written| written.as_mut().map(|all| all.push(request())).is_some())
}

/// While a thread captures: has anybody asked the device for something else meanwhile? That spoils the
/// capture, as it does with NVIDIA's driver, where it is the stream that captures, whoever asks.
static CAPTURING: Mutex<Option<bool>> = Mutex::new(None);

fn capturing() -> MutexGuard<'static, Option<bool>> {
    CAPTURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something is asked for that is not written down.
fn asked() {
    if let Some(spoiled) = capturing().as_mut() {
        *spoiled = true;
    }
}

/// Captured graphs by number.
#[derive(Default)]
struct Graphs {
    made: u64,
    all: HashMap<u64, Arc<Vec<Request>>>,
}

fn graphs() -> MutexGuard<'static, Graphs> {
    static GRAPHS: LazyLock<Mutex<Graphs>> = LazyLock::new(Default::default);
    GRAPHS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct EmulatedPinnedBuffer(Vec<u8>);

impl PinnedBuffer for EmulatedPinnedBuffer {
    fn fill(&mut self, from: &[u8]) -> Result<()> {
        self.0.copy_from_slice(from);
        Ok(())
    }

    fn empty(&mut self, to: u64) -> Result<()> {
        asked();
        EmulatedDriver.upload(&self.0, to)
    }
}

/// Memory that is lent out: address → bytes. Its lock lets one kernel run at a time.
static SIZES: LazyLock<Mutex<HashMap<u64, usize>>> = LazyLock::new(Default::default);

fn sizes() -> MutexGuard<'static, HashMap<u64, usize>> {
    SIZES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As the real one's.
const ALIGNMENT: usize = 256;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("tensor sizes are below isize::MAX")
}

impl Driver for EmulatedDriver {
    fn exact_sizes(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        // SAFETY: the layout has a non-zero size.
        let memory = unsafe { alloc(layout(bytes)) };
        if memory.is_null() {
            handle_alloc_error(layout(bytes));
        }
        // SAFETY: freshly allocated, `bytes` long; all ones is NaN.
        unsafe { memory.write_bytes(0xFF, bytes) };
        sizes().insert(memory as u64, bytes);
        Ok(memory as u64)
    }

    fn free(&self, address: u64) {
        if let Some(bytes) = sizes().remove(&address) {
            // SAFETY: allocated by `allocate` with this layout, and lent out no longer.
            unsafe { dealloc(address as *mut u8, layout(bytes)) };
        }
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        asked();
        // SAFETY: `to` is memory of at least this many bytes, which nobody reads now.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        asked();
        // SAFETY: `from` is memory of at least this many bytes; launches are over when they return.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if write_down(|| Request::Copy(from, to, bytes)) {
            return Ok(());
        }
        asked();
        // SAFETY: both are memory of at least this many bytes, and not the same.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: Kernel, size: LaunchConfig, arguments: &[Argument]) -> Result<()> {
        if write_down(|| Request::Launch(kernel, size, arguments.to_vec())) {
            return Ok(());
        }
        asked();
        let name = CString::new(kernel.name).expect("kernels' names have no zero in them");
        let mut message = [0u8; 1024];
        let sizes = sizes();
        let mut recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = recording.as_ref().map(|_| contents(&sizes, arguments));
        // SAFETY: the caller's contract; grid and block are three numbers each, the message as long
        // as is said.
        let failed = unsafe {
            atrous_emulator_launch(
                name.as_ptr(),
                size.grid.as_ptr(),
                size.block.as_ptr(),
                size.shared as usize,
                pointers(arguments).as_mut_ptr(),
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if failed == 0 {
            if let (Some(file), Some(before)) = (recording.as_mut(), before) {
                let after = contents(&sizes, arguments);
                file.write_all(&record(kernel, size, arguments, &before, &after))
                    .map_err(|error| Error::Device(format!("the recording of launches: {error}")))?;
            }
            return Ok(());
        }
        let end = message.iter().position(|&byte| byte == 0).unwrap_or(message.len());
        let text = String::from_utf8_lossy(&message[..end]).into_owned();
        Err(Error::Device(format!("`emulated`: {}: {text}", kernel.name)))
    }

    fn synchronize(&self) -> Result<()> {
        asked();
        Ok(())
    }

    fn begin_capture(&self) -> Result<()> {
        WRITTEN.set(Some(Vec::new()));
        *capturing() = Some(false);
        Ok(())
    }

    fn end_capture(&self) -> Result<u64> {
        let requests = WRITTEN.take().unwrap_or_default();
        if capturing().take() == Some(true) {
            return Err(Error::Device(
                "`emulated`: something else was asked for during a capture".into(),
            ));
        }
        let mut graphs = graphs();
        graphs.made += 1;
        let number = graphs.made;
        graphs.all.insert(number, Arc::new(requests));
        Ok(number)
    }

    fn replay(&self, graph: u64) -> Result<()> {
        let requests = graphs().all.get(&graph).cloned();
        let requests = requests.ok_or_else(|| Error::Device("there is no such graph".into()))?;
        for request in requests.iter() {
            match request {
                // SAFETY: as when it was asked for: the graph's memory is still there.
                Request::Launch(kernel, size, arguments) => unsafe {
                    self.launch(*kernel, *size, arguments)?
                },
                Request::Copy(from, to, bytes) => self.copy(*from, *to, *bytes)?,
            }
        }
        Ok(())
    }

    fn release(&self, graph: u64) {
        asked();
        graphs().all.remove(&graph);
    }

    fn stage(&self, bytes: usize) -> Result<Box<dyn PinnedBuffer>> {
        Ok(Box::new(EmulatedPinnedBuffer(vec![0xFF; bytes])))
    }

    fn timed(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let start = std::time::Instant::now();
        run()?;
        Ok(start.elapsed().as_secs_f64())
    }
}
