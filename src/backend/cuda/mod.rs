//! CUDA devices: memory, kernels, launches.
//!
//! Operators say *what* runs (`Cuda::launch`: a kernel of `kernels/*.cu`, a grid, arguments); a
//! `Driver` does it. There are two: the real one (feature `cuda`; NVIDIA's driver and compiler are
//! looked for when the program runs) and the emulated one (feature `emulator`), which runs the same
//! kernels, compiled as C++, on the CPU. Everything on one device happens in the order it was asked
//! for; the CPU waits only where it reads (`Memory::download`).
//!
//! A tensor on a device is f32 or u8. Its memory comes from a pool, as the CPU's does: a training
//! step asks for the same sizes over and over. The emulated device gets every buffer at its exact
//! size instead, and filled with NaN, so that an overrun or a forgotten element shows.

#[cfg(feature = "cuda")]
pub mod compiler;
mod driver;
#[cfg(feature = "emulator")]
pub mod emulated;
pub mod graph;
mod kernels;
#[cfg(feature = "cuda")]
mod real;
pub(crate) mod staging;
mod tensor;

pub(crate) use driver::{Driver, Kernel, PinnedBuffer};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::spans;
use crate::tensor::DType;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

/// A device that is ready to run. There is one a device for the life of the process.
pub(crate) struct Cuda {
    pub device: Device,
    driver: Box<dyn Driver>,
    pool: Arc<Pool>,
    /// Held while a thread captures, so that no other's requests come among those.
    capture_guard: RwLock<()>,
}

/// Memory that tensors gave back, by size.
pub(crate) struct Pool {
    free: Mutex<HashMap<usize, Vec<u64>>>,
    /// The device, of a graph's own pool: its memory goes back to the driver with it.
    graphs: Option<&'static Cuda>,
}

impl Pool {
    fn of_graph(cuda: &'static Cuda) -> Self {
        Pool { free: Mutex::default(), graphs: Some(cuda) }
    }

    fn list(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_all(&self) -> Vec<u64> {
        self.list().drain().flat_map(|(_, all)| all).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(cuda) = self.graphs {
            let _capture_guard = cuda.capture_guard();
            // Replays that still use it come first.
            let _ = cuda.driver.synchronize();
            self.take_all().into_iter().for_each(|address| cuda.driver.free(address));
        }
    }
}

static OPEN: Mutex<Vec<&'static Cuda>> = Mutex::new(Vec::new());

impl Cuda {
    /// The device, opened at its first use; an error that says why, where there is none.
    pub fn get(device: Device) -> Result<&'static Cuda> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cuda) = open.iter().find(|cuda| cuda.device == device) {
            return Ok(cuda);
        }
        let driver = driver_of(device)?;
        let pool = Arc::new(Pool { free: Mutex::default(), graphs: None });
        let cuda: &'static Cuda =
            Box::leak(Box::new(Cuda { device, driver, pool, capture_guard: RwLock::default() }));
        open.push(cuda);
        Ok(cuda)
    }

    /// Memory for `len` elements, its content unspecified.
    pub fn allocate(&'static self, len: usize, dtype: DType) -> Result<Memory> {
        let of_graph = graph::CAPTURE.with_borrow(|capture| {
            capture.as_ref().filter(|c| c.cuda.device == self.device).map(|c| c.pool.clone())
        });
        self.allocate_from(of_graph.as_ref().unwrap_or(&self.pool), len, dtype)
    }

    fn allocate_from(&'static self, pool: &Arc<Pool>, len: usize, dtype: DType) -> Result<Memory> {
        let bytes = len * size_of_element(dtype)?;
        let class = if self.driver.exact_sizes() { bytes } else { crate::pool::size_class(bytes) };
        let reused = pool.list().get_mut(&class).and_then(Vec::pop);
        let address = match reused {
            Some(address) => address,
            None => match self.driver.allocate(class) {
                // What is kept for tensors of other sizes may be what is missing.
                Err(_) if !graph::is_capturing(self) && self.trim() => self.driver.allocate(class)?,
                result => result?,
            },
        };
        Ok(Memory { cuda: self, address, len, class, dtype, pool: pool.clone() })
    }

    /// Memory for kernels among themselves: partial sums, statistics.
    pub fn scratch(&'static self, bytes: usize) -> Result<Memory> {
        self.allocate(bytes, DType::U8)
    }

    /// A copy of values that are in the CPU's memory.
    pub fn upload(&'static self, bytes: &[u8], len: usize, dtype: DType) -> Result<Memory> {
        let memory = self.allocate(len, dtype)?;
        assert_eq!(bytes.len(), memory.bytes());
        let _capture_guard = self.not_while_capturing("an upload")?;
        self.driver.upload(bytes, memory.address)?;
        Ok(memory)
    }

    /// Another buffer with the same content.
    pub fn copied(&'static self, memory: &Memory) -> Result<Memory> {
        let copy = self.allocate(memory.len, memory.dtype)?;
        self.copy(memory, &copy)?;
        Ok(copy)
    }

    /// The content of one buffer into another of the same size.
    pub fn copy(&self, from: &Memory, to: &Memory) -> Result<()> {
        assert_eq!(from.bytes(), to.bytes());
        let _capture_guard = self.capture_guard();
        self.driver.copy(from.address, to.address, from.bytes())
    }

    /// Can what it is asked for be captured?
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
    pub fn can_capture(&self) -> bool {
        self.driver.can_capture()
    }

    /// A way for batches of this many bytes: see [`staging::Staging`].
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
    fn stage(&self, bytes: usize) -> Result<Box<dyn PinnedBuffer>> {
        self.driver.stage(bytes)
    }

    /// Gives all memory that is kept for reuse back to the device; false where there was none.
    fn trim(&self) -> bool {
        let _capture_guard = self.capture_guard();
        let kept = self.pool.take_all();
        // Launches that still use it come first.
        let idle = !kept.is_empty() && self.driver.synchronize().is_ok();
        kept.iter().for_each(|&address| self.driver.free(address));
        idle
    }

    /// Waits while another thread captures: in the middle of a capture the driver must not be asked for
    /// anything else of the same stream, not even to wait. Nobody who holds a turn may ask for another.
    fn capture_guard(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let mine = graph::is_capturing(self);
        (!mine).then(|| self.capture_guard.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn not_while_capturing(&self, what: &str) -> Result<RwLockReadGuard<'_, ()>> {
        self.capture_guard().ok_or_else(|| {
            Error::Device(format!(
                "{what} cannot be part of a captured graph: its values would be frozen"
            ))
        })
    }

    /// Asks for a kernel to run.
    ///
    /// # Safety
    /// The arguments are the kernel's parameters in number, order and type, and with this grid the
    /// kernel reads and writes within the buffers among them, and writes only into those that no
    /// tensor but the result holds.
    pub unsafe fn launch(
        &self,
        kernel: Kernel,
        size: LaunchConfig,
        arguments: &[Argument],
    ) -> Result<()> {
        if size.grid.contains(&0) {
            return Ok(());
        }
        let capture_guard = self.capture_guard();
        // SAFETY: passed on to the caller.
        let launch = || unsafe { self.driver.launch(kernel, size, arguments) };
        match spans::detailed() {
            // (While a graph is captured, nothing runs that could be timed.)
            Some(recorder) if capture_guard.is_some() => {
                let start = recorder.now();
                recorder.kernel(kernel.name, start, self.driver.timed(&mut || launch())?);
                Ok(())
            }
            _ => launch(),
        }
    }

    /// Launches a pass over n elements by kernels on `kernels/vector.cuh`: the first takes an element a
    /// thread, the second four channels of one, where they are a multiple of four.
    ///
    /// # Safety
    /// [`Cuda::launch`]'s contract.
    pub unsafe fn launch_pass(
        &self,
        module: &'static str,
        names: [&'static str; 2],
        n: usize,
        channels: usize,
        arguments: &[Argument],
    ) -> Result<()> {
        let (name, threads) = if is_wide(channels) { (names[1], n / 4) } else { (names[0], n) };
        // SAFETY: passed on to the caller.
        unsafe { self.launch(Kernel::of(module, name), LaunchConfig::elements(threads), arguments) }
    }

    /// Seconds that what `run` asks for takes, by the device's own clock.
    pub fn timed(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.driver.timed(run)
    }

    /// Waits until everything that was asked for is done; tells of faults on the way.
    pub fn synchronize(&self) -> Result<()> {
        let _capture_guard = self.not_while_capturing("to wait")?;
        self.driver.synchronize()
    }
}

/// A device's memory in bytes, as its driver tells it: what all programs together use, and all there is.
/// None for the CPU and the emulated device, and for one that nothing has run on yet.
///
/// ```
/// use atrous::Device;
/// use atrous::backend::cuda;
///
/// assert_eq!(cuda::memory(Device::Cpu), None);
/// if let Some([used, all]) = cuda::memory(Device::Cuda(0)) {
///     assert!(used <= all);
/// }
/// ```
pub fn memory(device: Device) -> Option<[usize; 2]> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let cuda = open.iter().find(|cuda| cuda.device == device)?;
    let _capture_guard = cuda.capture_guard()?;
    let [free, total] = cuda.driver.memory()?;
    Some([total.saturating_sub(free), total])
}

/// With `ATROUS_CUDA_PROFILE=1`, a table of what the devices did so far: each kernel, how often it was
/// launched, and its time by the device's own clock, the longest first. Nothing else runs beside a
/// kernel then, and nothing is captured, so the sum is more than the time of a run without it.
///
/// ```
/// if std::env::var_os("ATROUS_CUDA_PROFILE").is_none() {
///     assert_eq!(atrous::backend::cuda::profile(), None);
/// }
/// ```
pub fn profile() -> Option<String> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows: Vec<_> = open.iter().flat_map(|cuda| cuda.driver.profile()).collect();
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    let total: f64 = rows.iter().map(|(_, _, seconds)| seconds).sum();
    let mut table =
        format!("{:<44}{:>10}{:>12}{:>12}{:>8}\n", "kernel", "launches", "ms", "µs each", "%");
    for (kernel, launches, seconds) in &rows {
        let (all, each) = (seconds * 1e3, seconds * 1e6 / *launches as f64);
        let share = 100.0 * seconds / total;
        table += &format!("{:<44}{launches:>10}{all:>12.3}{each:>12.2}{share:>8.1}\n", kernel.name);
    }
    (!rows.is_empty()).then_some(table)
}

fn driver_of(device: Device) -> Result<Box<dyn Driver>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => Ok(Box::new(real::RealDriver::open(index)?)),
        #[cfg(feature = "emulator")]
        Device::Emulated => Ok(Box::new(emulated::EmulatedDriver)),
        Device::Cpu => Err(Error::Device("`cpu` is no CUDA device".into())),
        #[allow(unreachable_patterns)]
        other => Err(not_in_this_build(match other {
            Device::Emulated => "emulator",
            _ => "cuda",
        })),
    }
}

/// The driver and devices that [`devices`] found on this machine.
///
/// [`devices`] has an example.
#[derive(Clone, Debug)]
pub struct Found {
    /// CUDA version the driver supports, (major, minor), e.g. (13, 0).
    pub driver: (i32, i32),
    /// All CUDA devices, in the driver's order: `devices[n]` is `Device::Cuda(n)`.
    pub devices: Vec<DeviceInfo>,
}

/// A CUDA device as its driver describes it.
///
/// [`devices`] has an example.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The product's name, e.g. `NVIDIA H100`.
    pub name: String,
    /// Compute capability, (major, minor), e.g. (9, 0).
    pub generation: (i32, i32),
    /// Memory of the whole device, in bytes.
    pub memory: usize,
}

/// The CUDA devices of this machine; an error that says why there are none.
///
/// ```
/// use atrous::backend::cuda;
///
/// match cuda::devices() {
///     Ok(found) => {
///         for (n, device) in found.devices.iter().enumerate() {
///             println!("cuda:{n}: {}, {} MiB", device.name, device.memory >> 20);
///         }
///         assert!(found.driver.0 >= 11); // older drivers have no symbols that it asks for
///     }
///     Err(why) => assert!(!why.to_string().is_empty()), // no driver, no device, or a build without CUDA
/// }
/// ```
pub fn devices() -> Result<Found> {
    #[cfg(feature = "cuda")]
    return real::devices();
    #[cfg(not(feature = "cuda"))]
    Err(not_in_this_build("cuda"))
}

/// NVRTC's version, (major, minor); an error where there is none.
///
/// ```
/// use atrous::backend::cuda;
///
/// match cuda::compiler_version() {
///     Ok((major, _)) => assert!(major >= 11),
///     Err(why) => println!("{why}"), // what to install, and where
/// }
/// ```
pub fn compiler_version() -> Result<(i32, i32)> {
    #[cfg(feature = "cuda")]
    return compiler::version();
    #[cfg(not(feature = "cuda"))]
    Err(not_in_this_build("cuda"))
}

/// The architectures whose machine code is in the binary, e.g. `sm_90`; none where all is compiled
/// at run time.
///
/// ```
/// let all = atrous::backend::cuda::built_in_architectures();
/// assert!(all.iter().all(|name| name.starts_with("sm_") || name.starts_with("compute_")));
/// ```
pub fn built_in_architectures() -> Vec<&'static str> {
    #[cfg(feature = "cuda")]
    return compiler::built_in();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

#[allow(dead_code)] // With both features there is nothing that is not in the build.
fn not_in_this_build(feature: &str) -> Error {
    Error::Device(format!("it is not in this build: it needs `cargo build --features {feature}`"))
}

fn size_of_element(dtype: DType) -> Result<usize> {
    match dtype {
        DType::F32 => Ok(4),
        DType::U8 => Ok(1),
        DType::F64 => Err(Error::Device("f64 runs on the CPU alone".into())),
    }
}

/// Threads of a block, where nothing asks for another number.
pub(crate) const THREADS: u32 = 256;

/// Can threads take four channels at a time? Kernels that do have names that end with `_4`.
pub(crate) fn is_wide(channels: usize) -> bool {
    channels.is_multiple_of(4)
}

/// How many blocks, of how many threads, with how much dynamic shared memory.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))]
pub(crate) struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl LaunchConfig {
    /// A thread an element; of very many elements each thread takes several, a grid apart. 2^16
    /// blocks are 30 times what the largest device holds at once.
    pub fn elements(n: usize) -> Self {
        let blocks = n.div_ceil(THREADS as usize).min(1 << 16) as u32;
        LaunchConfig { grid: [blocks, 1, 1], block: [THREADS, 1, 1], shared: 0 }
    }

    /// A thread a row of f32, in blocks that bring their rows to shared memory where they fit there (48 KiB);
    /// true if they do. For kernels on `kernels/short_rows.cuh`.
    pub fn rows(rows: usize, columns: usize) -> (Self, bool) {
        let bytes = columns.saturating_mul(THREADS as usize * 4);
        let staged = bytes <= 48 << 10;
        (
            LaunchConfig {
                shared: if staged { bytes as u32 } else { 0 },
                ..LaunchConfig::elements(rows)
            },
            staged,
        )
    }

    /// This grid of these blocks; an error where it is larger than a device takes.
    pub fn grid(grid: [usize; 3], block: [u32; 3]) -> Result<Self> {
        let most = [i32::MAX as usize, 65535, 65535];
        if grid.iter().zip(most).any(|(&n, most)| n > most) {
            let message = format!("a grid of {grid:?} blocks is more than a device takes ({most:?})");
            return Err(Error::argument("launch", message));
        }
        Ok(LaunchConfig { grid: grid.map(|n| n as u32), block, shared: 0 })
    }
}

/// One argument of a kernel, as its bytes (8-byte aligned).
#[derive(Clone)]
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code))]
pub(crate) struct Argument(Vec<u64>);

/// The addresses of the arguments, as launches take them.
#[cfg(any(feature = "cuda", feature = "emulator"))]
fn pointers(arguments: &[Argument]) -> Vec<*mut std::ffi::c_void> {
    arguments.iter().map(|argument| argument.0.as_ptr().cast_mut().cast()).collect()
}

impl From<&Memory> for Argument {
    fn from(memory: &Memory) -> Self {
        Argument(vec![memory.address])
    }
}

/// Numbers and `#[repr(C)]` structs of numbers, which a kernel takes by value. Addresses of a device's
/// memory are numbers, too (u64).
///
/// # Safety
/// Implementors have no padding.
pub(crate) unsafe trait Value: Copy {}
// SAFETY: numbers.
unsafe impl Value for i32 {}
unsafe impl Value for i64 {}
unsafe impl Value for u32 {}
unsafe impl Value for u64 {}
unsafe impl Value for f32 {}
unsafe impl Value for f64 {}

impl<T: Value> From<T> for Argument {
    fn from(value: T) -> Self {
        let mut words = vec![0u64; size_of::<T>().div_ceil(8)];
        // SAFETY: the words are at least as long as the value, which has no padding.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const value).cast::<u8>(),
                words.as_mut_ptr().cast(),
                size_of::<T>(),
            );
        }
        Argument(words)
    }
}

/// Arguments in the order of the kernel's parameters.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::backend::cuda::Argument::from($argument)),*] };
}
pub(crate) use arguments;

/// Memory of a device; given back to its pool when nobody holds it.
pub(crate) struct Memory {
    pub(crate) cuda: &'static Cuda,
    address: u64,
    len: usize,
    class: usize,
    dtype: DType,
    /// Where it goes back to.
    pool: Arc<Pool>,
}

impl Memory {
    /// Elements (not bytes) that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Element type: f32 or u8, the two that devices take.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.len * if self.dtype == DType::F32 { 4 } else { 1 }
    }

    /// Waits for what was asked for, and copies the bytes to the CPU's memory.
    pub(crate) fn download(&self, to: &mut [u8]) -> Result<()> {
        assert_eq!(to.len(), self.bytes());
        let _capture_guard = self.cuda.not_while_capturing("a download")?;
        self.cuda.driver.download(self.address, to)
    }
}

impl Drop for Memory {
    /// What is still to run comes before whatever the next holder asks for: memory can be handed on
    /// at once.
    fn drop(&mut self) {
        match self.cuda.driver.exact_sizes() && self.pool.graphs.is_none() {
            true => self.cuda.driver.free(self.address),
            false => self.pool.list().entry(self.class).or_default().push(self.address),
        }
    }
}
