//! How a terminal shows images: it is asked.
//!
//! `CSI c` asks any terminal what it is (primary device attributes); one that shows sixels names the
//! attribute 4. `CSI 16 t` asks for a character's size in pixels, which few but those answer. Answers come
//! where keys do. A terminal that keeps silent is waited for a second.

use ratatui::crossterm::terminal::window_size;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How images are drawn.
///
/// [`Dashboard`](super::Dashboard) has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Graphics {
    /// Two pixels a character.
    #[default]
    HalfBlocks,
    /// Pixel by pixel.
    Sixels {
        /// A character's width and height, in pixels.
        cell: (u16, u16),
    },
}

/// Which of them is drawn, whatever the terminal says: `sixel` or `blocks`.
const VARIABLE: &str = "ATROUS_GRAPHICS";
const QUESTION: &str = "\x1b[16t\x1b[c";
const PATIENCE: Duration = Duration::from_secs(1);
/// Where the terminal does not say: what is usual.
const CELL: (u16, u16) = (10, 20);

impl Graphics {
    /// Asks the terminal on standard output, which has to be in raw mode. An error where it cannot be
    /// written to, or the variable says something else.
    ///
    /// ```no_run
    /// use atrous::live::Graphics;
    ///
    /// if std::env::var_os("ATROUS_GRAPHICS").is_none() {
    ///     println!("{:?}", Graphics::of_terminal().unwrap()); // half blocks, unless it says otherwise
    /// }
    /// ```
    pub fn of_terminal() -> io::Result<Self> {
        let wanted = std::env::var(VARIABLE).unwrap_or_default();
        match &wanted[..] {
            "blocks" => Ok(Graphics::HalfBlocks),
            "sixel" => Ok(Graphics::Sixels { cell: cell(&answer()?) }),
            "" => {
                let answer = answer()?;
                Ok(match shows_sixels(&answer) {
                    true => Graphics::Sixels { cell: cell(&answer) },
                    false => Graphics::HalfBlocks,
                })
            }
            other => {
                let message = format!("{VARIABLE}: expected sixel or blocks, got `{other}`");
                Err(io::Error::other(message))
            }
        }
    }
}

/// What the terminal says; nothing where keys do not come from it.
fn answer() -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    if !io::stdin().is_terminal() {
        return Ok(answer);
    }
    let mut out = io::stdout();
    out.write_all(QUESTION.as_bytes())?;
    out.flush()?;
    read_until(|answer| attributes(answer).is_some(), &mut answer)?;
    Ok(answer)
}

/// Reads from the terminal on standard input until there is enough, or patience is over.
#[cfg(unix)]
fn read_until(enough: impl Fn(&[u8]) -> bool, answer: &mut Vec<u8>) -> io::Result<()> {
    use std::io::Read;
    use std::os::fd::{AsFd, AsRawFd};
    let began = std::time::Instant::now();
    // (Of its own: the standard library's reads ahead, and keys are for others.)
    let mut terminal = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut block = [0; 64];
    while !enough(answer) {
        let Some(left) = PATIENCE.checked_sub(began.elapsed()) else { break };
        let mut asked = libc::pollfd { fd: terminal.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which is open, in memory that outlives the call.
        let ready = unsafe { libc::poll(&mut asked, 1, left.as_millis() as libc::c_int) };
        match ready {
            1.. if asked.revents & libc::POLLIN != 0 => match terminal.read(&mut block)? {
                0 => break,
                n => answer.extend(&block[..n]),
            },
            // Nothing came, or a signal.
            0 | -1 => {}
            _ => break,
        }
    }
    Ok(())
}

/// Nobody is asked here.
#[cfg(not(unix))]
fn read_until(_enough: impl Fn(&[u8]) -> bool, _answer: &mut Vec<u8>) -> io::Result<()> {
    Ok(())
}

/// The numbers between a prefix and a final letter; None where they are not all there.
fn numbers(answer: &[u8], prefix: &str, last: char) -> Option<Vec<u16>> {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.split_once(prefix)?;
    let (numbers, _) = rest.split_once(last)?;
    numbers.split(';').map(|number| number.parse().ok()).collect()
}

/// `CSI ? 62 ; 4 ; … c`
fn attributes(answer: &[u8]) -> Option<Vec<u16>> {
    numbers(answer, "\x1b[?", 'c')
}

/// The first number is the terminal's class.
fn shows_sixels(answer: &[u8]) -> bool {
    attributes(answer).is_some_and(|attributes| attributes.iter().skip(1).any(|&n| n == 4))
}

/// `CSI 6 ; height ; width t`, else the window's size by its characters, else what is usual.
fn cell(answer: &[u8]) -> (u16, u16) {
    let told = match numbers(answer, "\x1b[6;", 't').as_deref() {
        Some(&[height, width]) => Some((width, height)),
        _ => window_size().ok().map(|w| (w.width / w.columns.max(1), w.height / w.rows.max(1))),
    };
    told.filter(|&(width, height)| width > 0 && height > 0).unwrap_or(CELL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixels_are_shown_where_the_attributes_name_them() {
        // xterm -ti vt340, foot, one without, a VT132 (class 4), half an answer, none.
        let answers = ["\x1b[?63;1;2;4;6c", "\x1b[6;18;9t\x1b[?62;4;22c", "\x1b[?1;2c", "\x1b[?4;6c"];
        let shown = answers.map(|answer| shows_sixels(answer.as_bytes()));
        assert_eq!(shown, [true, true, false, false]);
        assert!(!shows_sixels(b"\x1b[?62;4;2") && !shows_sixels(b"") && !shows_sixels(b"q"));
    }

    #[test]
    fn a_character_has_the_size_that_is_told() {
        assert_eq!(cell(b"\x1b[6;18;9t\x1b[?62;4c"), (9, 18));
        let (width, height) = cell(b"\x1b[6;0;0t\x1b[?62;4c");
        assert!(width > 0 && height > 0);
    }
}
