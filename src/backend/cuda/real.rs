//! NVIDIA's driver, looked for when the program runs: the same binary starts where there is none.

use super::{
    Argument, DeviceInfo, Driver, Found, Kernel, LaunchConfig, PinnedBuffer, compiler, pointers,
};
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice_attribute, CUevent, CUevent_flags, CUevent_wait_flags, CUfunction,
    CUgraphExec, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode,
};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

pub(super) struct RealDriver {
    index: usize,
    architecture: String,
    context: CUcontext,
    stream: CUstream,
    /// `ATROUS_CUDA_SYNC=1`: waits after each launch, so that a fault names its kernel. (Nothing can be
    /// captured then.)
    synchronous: bool,
    /// `ATROUS_CUDA_PROFILE=1`: how often each kernel was launched, and its seconds on the device.
    /// (Nothing is captured then.)
    profile: Option<Mutex<HashMap<Kernel, (u64, f64)>>>,
    functions: Mutex<HashMap<Kernel, CUfunction>>,
    /// Modules that are loaded, for as long as the process lives.
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
}

// SAFETY: the handles are the driver's, which may be called from any thread once the context is
// current there: every entry sees to that.
unsafe impl Send for RealDriver {}
unsafe impl Sync for RealDriver {}

/// An error where there is no driver to talk to.
fn start() -> Result<()> {
    // SAFETY: it tries to open a library of NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        let message = "`cuda`: there is no NVIDIA driver on this machine (libcuda was not found)";
        return Err(Error::Device(message.into()));
    }
    result::init().map_err(|error| explained(0, "cuInit", error))
}

/// What the driver sees.
pub(super) fn devices() -> Result<Found> {
    start()?;
    let wrong = |what| move |error| explained(0, what, error);
    let mut version = 0;
    // SAFETY: the driver is there; one number is written.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(wrong("cuDriverGetVersion"))?;
    let count = result::device::get_count().map_err(wrong("cuDeviceGetCount"))?;
    let info = |index| {
        let device = result::device::get(index)?;
        use CUdevice_attribute::*;
        // SAFETY: `device` is the driver's.
        unsafe {
            Ok(DeviceInfo {
                name: result::device::get_name(device)?,
                generation: (
                    result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                memory: result::device::total_mem(device)?,
            })
        }
    };
    let devices = (0..count).map(info).collect::<Result<Vec<_>, DriverError>>();
    Ok(Found {
        driver: (version / 1000, version % 1000 / 10),
        devices: devices.map_err(wrong("cuDeviceGet"))?,
    })
}

impl RealDriver {
    pub fn open(index: usize) -> Result<Self> {
        let missing = |why: String| Err(Error::Device(format!("`cuda:{index}`: {why}")));
        start()?;
        let count =
            result::device::get_count().map_err(|error| explained(index, "cuDeviceGetCount", error))?;
        if index >= count as usize {
            return missing(format!("the driver sees {count} devices, numbered from 0"));
        }
        let wrong = |what| move |error| explained(index, what, error);
        let device = result::device::get(index as i32).map_err(wrong("cuDeviceGet"))?;
        let attribute = |which| {
            // SAFETY: `device` is the driver's.
            unsafe { result::device::get_attribute(device, which) }
                .map_err(wrong("cuDeviceGetAttribute"))
        };
        use CUdevice_attribute::*;
        let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if major < 8 {
            return missing(format!("it is of generation {major}.{minor}, and 8.0 is the least"));
        }
        // SAFETY: `device` is the driver's; the primary context stays retained for the process's life.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(wrong("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the context was retained above.
        unsafe { result::ctx::set_current(context) }.map_err(wrong("cuCtxSetCurrent"))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(wrong("cuStreamCreate"))?;
        let asked = |name| std::env::var_os(name).is_some_and(|value| value != "0");
        Ok(RealDriver {
            index,
            architecture: compiler::architecture(major, minor),
            context,
            stream,
            synchronous: asked("ATROUS_CUDA_SYNC"),
            profile: asked("ATROUS_CUDA_PROFILE").then(Mutex::default),
            functions: Mutex::default(),
            modules: Mutex::default(),
        })
    }

    /// Makes the device the calling thread's.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the process.
        self.check("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }

    fn check<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| explained(self.index, what, error))
    }

    fn function(&self, kernel: Kernel) -> Result<CUfunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(&kernel) {
            return Ok(function);
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(kernel.module) {
            Some(&module) => module,
            None => {
                let code = compiler::compiled(kernel.module, &self.architecture)?;
                // SAFETY: the code is a whole cubin; the driver copies it.
                let loaded = unsafe { result::module::load_data(code.as_ptr().cast()) };
                let module = self.check("cuModuleLoadData", loaded)?;
                modules.insert(kernel.module, module);
                module
            }
        };
        let name = CString::new(kernel.name).expect("kernels' names have no zero in them");
        // SAFETY: the module is loaded, and never unloaded.
        let function = unsafe { result::module::get_function(module, name) };
        let function = self.check(kernel.name, function)?;
        functions.insert(kernel, function);
        Ok(function)
    }
}

fn explained(index: usize, what: &str, error: DriverError) -> Error {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    let text = text.unwrap_or_else(|_| format!("{error:?}"));
    Error::Device(format!("`cuda:{index}`: {what}: {text}"))
}

impl Driver for RealDriver {
    fn exact_sizes(&self) -> bool {
        false
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.enter()?;
        // SAFETY: memory of the driver's, given back by `free`.
        self.check("cuMemAlloc", unsafe { result::malloc_sync(bytes.max(1)) })
    }

    fn free(&self, address: u64) {
        // A device that has failed has nothing to give back to.
        if self.enter().is_ok() {
            // SAFETY: from `allocate`, and held by nobody.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: `to` is memory of at least this many bytes. The stream is waited for, because `from`
        // may be gone when this returns.
        self.check("cuMemcpyHtoD", unsafe { result::memcpy_htod_async(to, from, self.stream) })?;
        self.synchronize()
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: `from` is memory of at least this many bytes; the stream is waited for before
        // anyone reads `to`.
        self.check("cuMemcpyDtoH", unsafe { result::memcpy_dtoh_async(to, from, self.stream) })?;
        self.synchronize()
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: both are memory of at least this many bytes.
        let copied = unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) };
        self.check("cuMemcpyDtoD", copied)
    }

    unsafe fn launch(&self, kernel: Kernel, size: LaunchConfig, arguments: &[Argument]) -> Result<()> {
        self.enter()?;
        let function = self.function(kernel)?;
        let [grid, block] = [size.grid, size.block].map(|[x, y, z]| (x, y, z));
        let launch = || {
            let mut pointers = pointers(arguments);
            // SAFETY: the caller's contract; the driver copies the arguments before it returns.
            let launched = unsafe {
                result::launch_kernel(function, grid, block, size.shared, self.stream, &mut pointers)
            };
            self.check(kernel.name, launched)
        };
        if let Some(profile) = &self.profile {
            let seconds = self.timed(&mut || launch())?;
            let mut profile = profile.lock().unwrap_or_else(PoisonError::into_inner);
            let (launches, total) = profile.entry(kernel).or_default();
            *launches += 1;
            *total += seconds;
            return Ok(());
        }
        launch()?;
        match self.synchronous {
            true => {
                self.synchronize().map_err(|error| Error::Device(format!("{}: {error}", kernel.name)))
            }
            false => Ok(()),
        }
    }

    fn profile(&self) -> Vec<(Kernel, u64, f64)> {
        let Some(profile) = &self.profile else { return Vec::new() };
        let profile = profile.lock().unwrap_or_else(PoisonError::into_inner);
        profile.iter().map(|(&kernel, &(launches, seconds))| (kernel, launches, seconds)).collect()
    }

    fn memory(&self) -> Option<[usize; 2]> {
        self.enter().ok()?;
        result::mem_get_info().ok().map(|(free, total)| [free, total])
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is this driver's.
        self.check("cuStreamSynchronize", unsafe { result::stream::synchronize(self.stream) })
    }

    fn can_capture(&self) -> bool {
        !self.synchronous && self.profile.is_none()
    }

    fn begin_capture(&self) -> Result<()> {
        self.enter()?;
        // Relaxed: memory is allocated meanwhile. No other thread asks for anything (`Cuda::capture_guard`).
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is this driver's.
        self.check("cuStreamBeginCapture", unsafe { result::stream::begin_capture(self.stream, mode) })
    }

    fn end_capture(&self) -> Result<u64> {
        self.enter()?;
        // SAFETY: the stream captures.
        let graph =
            self.check("cuStreamEndCapture", unsafe { result::stream::end_capture(self.stream) })?;
        // SAFETY: the graph is whole, and destroyed once; what is instantiated does not need it.
        let ready = unsafe { result::graph::instantiate(graph, CUgraphInstantiate_flags(0)) };
        let _ = unsafe { result::graph::destroy(graph) };
        Ok(self.check("cuGraphInstantiate", ready)? as u64)
    }

    fn replay(&self, graph: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: instantiated by `end_capture`, not released yet.
        let launched = unsafe { result::graph::launch(graph as CUgraphExec, self.stream) };
        self.check("cuGraphLaunch", launched)
    }

    fn release(&self, graph: u64) {
        // It may still run.
        if self.synchronize().is_ok() {
            // SAFETY: instantiated by `end_capture`, released once.
            let _ = unsafe { result::graph::exec_destroy(graph as CUgraphExec) };
        }
    }

    fn stage(&self, bytes: usize) -> Result<Box<dyn PinnedBuffer>> {
        self.enter()?;
        let bytes = bytes.max(1);
        // SAFETY: memory of the driver's, given back by `RealPinnedBuffer::drop`.
        let pinned = self.check("cuMemHostAlloc", unsafe { result::malloc_host(bytes, 0) })?;
        let event = || {
            let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
            self.check("cuEventCreate", result::event::create(flags))
        };
        let copies = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Box::new(RealPinnedBuffer {
            index: self.index,
            context: self.context,
            work: self.stream,
            copies: self.check("cuStreamCreate", copies)?,
            pinned: pinned.cast(),
            buffer: self.allocate(bytes)?,
            bytes,
            filled: event()?,
            emptied: event()?,
        }))
    }

    fn timed(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.enter()?;
        let event =
            || self.check("cuEventCreate", result::event::create(CUevent_flags::CU_EVENT_DEFAULT));
        let (start, end) = (event()?, event()?);
        let record = |event| {
            // SAFETY: the event was created above, the stream is this driver's.
            self.check("cuEventRecord", unsafe { result::event::record(event, self.stream) })
        };
        let measured = (|| {
            record(start)?;
            run()?;
            record(end)?;
            self.synchronize()?;
            // SAFETY: both events have happened.
            self.check("cuEventElapsedTime", unsafe { result::event::elapsed(start, end) })
        })();
        for event in [start, end] {
            // SAFETY: created above, and used no more.
            let _ = unsafe { result::event::destroy(event) };
        }
        Ok(measured? as f64 / 1e3)
    }
}

/// Copies go on a stream of their own. Two events keep them apart from the work: a buffer is not overwritten
/// before it was read (`emptied`), and not read before it is whole (`filled`).
struct RealPinnedBuffer {
    index: usize,
    context: CUcontext,
    work: CUstream,
    copies: CUstream,
    pinned: *mut u8,
    buffer: u64,
    bytes: usize,
    filled: CUevent,
    emptied: CUevent,
}

// SAFETY: the handles are the driver's, the pinned memory is this stage's alone.
unsafe impl Send for RealPinnedBuffer {}

impl RealPinnedBuffer {
    fn check<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| explained(self.index, what, error))
    }

    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the process.
        self.check("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }
}

impl PinnedBuffer for RealPinnedBuffer {
    fn fill(&mut self, from: &[u8]) -> Result<()> {
        assert_eq!(from.len(), self.bytes);
        self.enter()?;
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the pinned memory is `bytes` long and nobody reads it once the last copy from it is over,
        // which is waited for; the buffer on the device is as long. An event that was never recorded is over.
        unsafe {
            self.check("cuEventSynchronize", result::event::synchronize(self.filled))?;
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.pinned, from.len());
            let pinned = std::slice::from_raw_parts(self.pinned, self.bytes);
            let waited = result::stream::wait_event(self.copies, self.emptied, flags);
            self.check("cuStreamWaitEvent", waited)?;
            let copied = result::memcpy_htod_async(self.buffer, pinned, self.copies);
            self.check("cuMemcpyHtoD", copied)?;
            self.check("cuEventRecord", result::event::record(self.filled, self.copies))
        }
    }

    fn empty(&mut self, to: u64) -> Result<()> {
        self.enter()?;
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: `to` is memory of `bytes` bytes, as the buffer is; the streams and events are alive.
        unsafe {
            let waited = result::stream::wait_event(self.work, self.filled, flags);
            self.check("cuStreamWaitEvent", waited)?;
            let copied = result::memcpy_dtod_async(to, self.buffer, self.bytes, self.work);
            self.check("cuMemcpyDtoD", copied)?;
            self.check("cuEventRecord", result::event::record(self.emptied, self.work))
        }
    }
}

impl Drop for RealPinnedBuffer {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: all of it is this stage's, and given back once, after the last copies.
        unsafe {
            let _ = result::stream::synchronize(self.copies);
            let _ = result::stream::synchronize(self.work);
            let _ = result::event::destroy(self.filled);
            let _ = result::event::destroy(self.emptied);
            let _ = result::stream::destroy(self.copies);
            let _ = result::free_sync(self.buffer);
            let _ = result::free_host(self.pinned.cast());
        }
    }
}
