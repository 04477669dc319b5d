//! A terminal that a test looks at and types into.

use super::text;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < Duration::from_secs(300), "no {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal, such as `libc::SIGINT`.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a process that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

/// A terminal of 100 × 30 characters with a program on it.
pub struct Terminal {
    keyboard: File,
    /// The program's side, held open to be asked for its settings.
    own: File,
    settings: [u32; 4],
    screen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    pub child: Child,
}

const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

impl Terminal {
    pub fn run(mut command: Command) -> Self {
        let size = libc::winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (mut master, mut slave, none) = (0, 0, std::ptr::null_mut());
        // SAFETY: two numbers are written; name and settings are not wanted.
        let opened = unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), &size) };
        assert_eq!(opened, 0);
        // SAFETY: both were just opened, and nobody else has them.
        let (master, own) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let settings = settings(&own);
        let side = || Stdio::from(own.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop(command);
        let (mut source, screen) = (master.try_clone().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let seen = screen.clone();
        let reader = thread::spawn(move || {
            let mut block = [0; 4096];
            // (Once nobody holds the other side any more, reading is an error.)
            while let Ok(n @ 1..) = source.read(&mut block) {
                seen.lock().unwrap().extend(&block[..n]);
            }
        });
        Terminal { keyboard: master, own, settings, screen, reader, child }
    }

    pub fn wait_for(&self, what: &str) {
        wait_until(what, || self.seen().contains(what));
    }

    /// All that was written to it so far.
    pub fn seen(&self) -> String {
        text(&self.screen.lock().unwrap())
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits for the program's end: its exit code, and what it wrote after it had given the terminal back as
    /// it was.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        assert_eq!(settings(&self.own), self.settings, "the terminal's settings");
        drop(self.own);
        self.reader.join().unwrap();
        let screen = text(&self.screen.lock().unwrap());
        let (drawn, after) = screen.rsplit_once(LEFT).unwrap_or_else(|| panic!("not left: {screen:?}"));
        assert!(drawn.contains(ENTERED) && !after.contains(ENTERED), "{screen:?}");
        assert!(after.starts_with("\x1b[?25h"), "the cursor is not shown: {after:?}");
        (code, after.to_owned())
    }
}

/// Of a terminal: echo, lines, signals and the like.
fn settings(terminal: &File) -> [u32; 4] {
    let mut termios = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the settings are written, and read only if they were.
    let termios = unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), termios.as_mut_ptr()), 0);
        termios.assume_init()
    };
    [termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag]
}
