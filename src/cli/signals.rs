//! What other processes and the system say to this one.

use std::io;

/// Calls `told` for every Ctrl-C, and for every other signal that asks to stop.
///
/// What the parent has this process ignore stays ignored: a hang-up under `nohup`, Ctrl-C of a job
/// that a script put into the background.
#[cfg(unix)]
pub fn on_stop(told: impl Fn() + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().for_each(|_| told()))?;
    Ok(())
}

/// Elsewhere the first Ctrl-C ends the program.
#[cfg(not(unix))]
pub fn on_stop(_told: impl Fn() + Send + 'static) -> io::Result<()> {
    Ok(())
}

/// A write beyond the size that files may have here (`ulimit -f`) fails, and says so, instead of
/// ending the program without a word.
pub fn survive_the_limit_of_file_sizes() {
    // Any handler will do: the write that fails has its own error. Without one it is as it was.
    #[cfg(unix)]
    {
        static TOLD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, &TOLD);
    }
}

#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills in the present one, which is read only if it
    // succeeded.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn of_signals_only_the_ignored_are_ignored() {
        // The standard library has every program ignore SIGPIPE.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR1));
        assert!(!is_ignored(-1), "no signal");
    }
}
