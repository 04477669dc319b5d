//! A terminal that is drawn on, and given back as it was: at the end, after an error, a panic and a signal.

use super::dashboard::Dashboard;
use super::events::{LogRecord, now};
use super::follow::{Follower, RunView};
use super::graphics::Graphics;
use crate::error::{Error, Result};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{self, IsTerminal, Stdout};
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Whether the terminal is drawn on now.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Held while a frame is drawn, so that none goes behind what gives the terminal back.
static DRAWING: Mutex<()> = Mutex::new(());

/// How long a key may wait for its answer.
const PATIENCE: Duration = Duration::from_millis(150);
/// Between two frames where nothing happens: clocks go on.
const FRAME: Duration = Duration::from_secs(1);

/// Whether standard output is a terminal that could be drawn on.
///
/// ```
/// use atrous::live::terminal::{is_terminal, size};
///
/// if !is_terminal() {
///     assert_eq!(size(), (80, 24));
/// }
/// ```
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns and rows of the terminal on standard output; 80 × 24 without one.
///
/// [`is_terminal`] has an example.
pub fn size() -> (u16, u16) {
    let size = if is_terminal() { ratatui::crossterm::terminal::size().ok() } else { None };
    size.filter(|&(width, height)| width > 0 && height > 0).unwrap_or((80, 24))
}

/// Whether the terminal is drawn on now: nobody else may print.
///
/// [`restore`] has an example.
pub fn is_active() -> bool {
    ACTIVE.load(Ordering::SeqCst)
}

/// Gives the terminal back as it was, if it is drawn on; any number of times, from any thread. For whoever
/// ends the program at once.
///
/// ```
/// use atrous::live::terminal::{is_active, restore};
///
/// restore(); // does nothing where nobody draws
/// assert!(!is_active());
/// ```
pub fn restore() {
    if ACTIVE.swap(false, Ordering::SeqCst) {
        give_back();
    }
}

fn give_back() {
    // A frame takes milliseconds. Not for ever: whoever panics while drawing comes by here as well.
    let drawn = || !matches!(DRAWING.try_lock(), Err(TryLockError::WouldBlock));
    (0..20).take_while(|_| !drawn()).for_each(|_| thread::sleep(Duration::from_millis(5)));
    // There is nobody to tell where the terminal itself has gone.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// A terminal that is given back when this is dropped.
struct Canvas {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    graphics: Graphics,
}

impl Canvas {
    fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        // What a panic prints is to be read: on the screen that stays.
        HOOK.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                usual(panic);
            }));
        });
        enable_raw_mode()?;
        ACTIVE.store(true, Ordering::SeqCst);
        Self::entered().inspect_err(|_| restore())
    }

    fn entered() -> io::Result<Self> {
        let graphics = Graphics::of_terminal()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(Canvas { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?, graphics })
    }

    /// Nothing once somebody has given the terminal back.
    fn draw(&mut self, view: &mut RunView, hint: &str) -> io::Result<()> {
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        if is_active() {
            let dashboard = Dashboard { graphics: self.graphics, ..view.dashboard(now(), hint) };
            self.terminal.draw(|frame| frame.render_widget(dashboard, frame.area()))?;
        }
        Ok(())
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        restore();
    }
}

/// What was done to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Quit,
    Other,
}

impl Input {
    /// Waits for it so long.
    fn wait(patience: Duration) -> io::Result<Self> {
        match event::poll(patience)? {
            true => Ok(Self::of(&event::read()?)),
            false => Ok(Input::Nothing),
        }
    }

    fn of(event: &Event) -> Self {
        match event {
            Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => Input::Other,
            Event::Key(KeyEvent { code: KeyCode::Char('q' | 'Q'), .. }) => Input::Quit,
            // A terminal in raw mode sends no signal.
            Event::Key(KeyEvent { code: KeyCode::Char('c'), modifiers, .. })
                if modifiers.contains(KeyModifiers::CONTROL) =>
            {
                Input::Quit
            }
            _ => Input::Other,
        }
    }
}

/// The terminal of the process that trains, drawn on by a thread of its own.
///
/// ```no_run
/// use atrous::live::{LogEvent, LogRecord, Screen};
///
/// let screen = Screen::open("runs/mine".as_ref(), || std::process::exit(130), || "q quits")?;
/// screen.apply(&LogRecord::now(LogEvent::Message { text: "20 images".into() }));
/// drop(screen); // gives the terminal back
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Screen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    view: Mutex<RunView>,
    /// Something happened since the last frame.
    changed: AtomicBool,
    closing: AtomicBool,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, RunView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Screen {
    /// Takes the terminal for the run in a folder. `quit` is called for q and Ctrl-C; `hint` is what the
    /// lowest line says of them. An error where the terminal cannot be drawn on.
    pub fn open(
        folder: &Path,
        quit: impl Fn() + Send + 'static,
        hint: impl Fn() -> &'static str + Send + 'static,
    ) -> Result<Self> {
        let mut canvas = Canvas::open().map_err(cannot)?;
        let (view, changed) = (Mutex::new(RunView::new(folder)), AtomicBool::new(true));
        let shared = Arc::new(Shared { view, changed, closing: AtomicBool::new(false) });
        let own = shared.clone();
        let draw = move || {
            let mut drawn = Instant::now();
            // Where the terminal fails (it was closed, say) the run goes on without it.
            while !own.closing.load(Ordering::SeqCst) && is_active() {
                match Input::wait(PATIENCE) {
                    Ok(Input::Nothing) => {}
                    Ok(Input::Quit) => quit(),
                    Ok(Input::Other) => own.changed.store(true, Ordering::SeqCst),
                    Err(_) => break,
                }
                if own.changed.swap(false, Ordering::SeqCst) || drawn.elapsed() > FRAME {
                    drawn = Instant::now();
                    if canvas.draw(&mut own.view(), hint()).is_err() {
                        break;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("screen".into()).spawn(draw).map_err(cannot)?;
        Ok(Screen { shared, thread: Some(thread) })
    }

    /// Shows what happened.
    pub fn apply(&self, record: &LogRecord) {
        self.shared.view().apply(record);
        self.shared.changed.store(true, Ordering::SeqCst);
    }
}

/// Gives the terminal back.
impl Drop for Screen {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // (Its panic was told when it happened.)
        let _ = self.thread.take().map(JoinHandle::join);
        restore();
    }
}

fn cannot(error: io::Error) -> Error {
    Error::argument("terminal", format!("it could not be drawn on: {error}"))
}

/// Shows a run in the terminal until q or Ctrl-C, or until `stop` says so. An error where the terminal cannot
/// be drawn on, or the run's events cannot be read any more.
///
/// ```no_run
/// use atrous::live::{Follower, terminal};
///
/// let mut follower = Follower::open("runs/mine")?;
/// terminal::watch(&mut follower, || false)?; // until q or Ctrl-C
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn watch(follower: &mut Follower, stop: impl Fn() -> bool) -> Result<()> {
    let mut canvas = Canvas::open().map_err(cannot)?;
    let mut drawn: Option<Instant> = None;
    while !stop() {
        let changed = follower.update()?;
        if changed || drawn.is_none_or(|at| at.elapsed() > FRAME) {
            canvas.draw(&mut follower.view, "q: leave").map_err(cannot)?;
            drawn = Some(Instant::now());
        }
        match Input::wait(PATIENCE).map_err(cannot)? {
            Input::Nothing => {}
            Input::Quit => break,
            Input::Other => drawn = None,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_ctrl_c_leave_and_other_keys_do_not() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let none = KeyModifiers::NONE;
        assert_eq!(Input::of(&key(KeyCode::Char('q'), none)), Input::Quit);
        assert_eq!(Input::of(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Input::Quit);
        assert_eq!(Input::of(&key(KeyCode::Char('c'), none)), Input::Other);
        assert_eq!(Input::of(&Event::Resize(3, 4)), Input::Other);
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), none) };
        assert_eq!(Input::of(&Event::Key(released)), Input::Other);
    }

    #[test]
    fn to_restore_what_is_not_drawn_on_does_nothing() {
        restore();
        assert!(!is_active());
    }
}
