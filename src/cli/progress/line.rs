//! A line that is drawn over and over, never wider than its terminal.

use std::time::Duration;

/// Columns of the terminal that standard error is; 80 where it is none.
pub fn width() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or(80, |(width, _)| usize::from(width.0))
}

/// A line on standard output: on a terminal without the words that it has no room for, those of the largest rank
/// first.
pub fn printed(what: &str, words: &[(u8, String)]) -> String {
    let width =
        terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    fitted(what, words, width.unwrap_or(usize::MAX))
}

fn fitted(what: &str, words: &[(u8, String)], width: usize) -> String {
    let ranks = (0..=most(words)).rev();
    let line = |rank| with_words(what, words, rank);
    ranks.map(line).find(|line| columns(line) < width).unwrap_or_else(|| line(0))
}

fn most(words: &[(u8, String)]) -> u8 {
    words.iter().map(|(rank, _)| *rank).max().unwrap_or(0)
}

fn with_words(what: &str, words: &[(u8, String)], rank: u8) -> String {
    let words = words.iter().filter(|(other, _)| *other <= rank);
    words.fold(what.to_owned(), |line, (_, words)| format!("{line}  {words}"))
}

/// As many letters as go into a terminal's line.
pub fn cut(text: &str, width: usize) -> String {
    // A letter in the last column would move some terminals on to the next line.
    text.chars().take(width.saturating_sub(1)).collect()
}

/// How far something is, and what there is to say about it.
pub struct Line<'a> {
    pub what: &'a str,
    pub done: u64,
    pub of: u64,
    /// What can be left out, each with a rank: those of the largest go first where room is short.
    pub words: Vec<(u8, String)>,
}

/// The widest bar, and the narrowest that says anything.
const BAR: [usize; 2] = [28, 8];

impl Line<'_> {
    /// The line for a terminal of so many columns: first the bar becomes shorter, then words are left out,
    /// then the bar is.
    pub fn fit(&self, width: usize) -> String {
        let most = most(&self.words);
        let room = width.saturating_sub(1);
        let with_bar = (0..=most).rev().find_map(|rank| {
            let bar = room.checked_sub(columns(&self.put(rank, "")) + 3)?;
            (bar >= BAR[1]).then(|| self.put(rank, &self.bar(bar.min(BAR[0]))))
        });
        let without = || {
            let lines = (0..=most).rev().map(|rank| self.put(rank, ""));
            lines.into_iter().find(|line| columns(line) <= room)
        };
        with_bar.or_else(without).unwrap_or_else(|| cut(&self.put(0, ""), width))
    }

    fn put(&self, rank: u8, bar: &str) -> String {
        with_words(&format!("{}{bar} {}/{}", self.what, self.done, self.of), &self.words, rank)
    }

    fn bar(&self, width: usize) -> String {
        let done = (width as u64 * self.done.min(self.of)).checked_div(self.of).unwrap_or(0) as usize;
        let head = if done < width { ">" } else { "" };
        format!(" [{:<width$}]", "=".repeat(done) + head)
    }
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

/// How long the rest will take, if it goes on as it went; None as long as that would be a guess.
pub fn time_left(elapsed: Duration, done: u64, of: u64) -> Option<Duration> {
    let settled = done >= 3 && elapsed >= Duration::from_secs(1);
    settled.then(|| elapsed.mul_f64(of.saturating_sub(done) as f64 / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training() -> Line<'static> {
        let words =
            [(1, "loss 0.4051"), (2, "accuracy 0.871"), (3, "123 pictures/s"), (0, "1:32:05 left")];
        let words = words.map(|(rank, words)| (rank, words.to_owned())).to_vec();
        Line { what: "epoch 12/150", done: 374, of: 749, words }
    }

    #[test]
    fn a_line_leaves_out_what_its_terminal_has_no_room_for() {
        for (width, wanted) in [
            (
                200,
                "epoch 12/150 [=============>              ] 374/749  loss 0.4051  accuracy 0.871  \
                 123 pictures/s  1:32:05 left",
            ),
            (80, "epoch 12/150 [======>      ] 374/749  loss 0.4051  accuracy 0.871  1:32:05 left"),
            (60, "epoch 12/150 [====>    ] 374/749  loss 0.4051  1:32:05 left"),
            (40, "epoch 12/150 374/749  1:32:05 left"),
            (20, "epoch 12/150 374/74"),
            (1, ""),
            (0, ""),
        ] {
            assert_eq!(training().fit(width), wanted, "{width}");
        }
    }

    #[test]
    fn a_printed_line_has_at_least_its_most_important_words() {
        let words = training().words;
        assert_eq!(fitted("epoch", &words, 42), "epoch  loss 0.4051  1:32:05 left");
        assert_eq!(fitted("epoch", &words, 3), "epoch  1:32:05 left");
        assert_eq!(fitted("epoch", &[], 3), "epoch");
        assert_eq!(fitted("a", &[(5, "b".into())], usize::MAX), "a  b");
    }

    #[test]
    fn no_line_reaches_the_last_column() {
        for width in 0..200 {
            for done in [0, 1, 748, 749, 800] {
                let line = Line { done, ..training() }.fit(width);
                assert!(columns(&line) < width.max(1), "{width}: {line}");
            }
            let none = Line { what: "masks", done: 0, of: 0, words: Vec::new() }.fit(width);
            assert!(columns(&none) < width.max(1), "{width}: {none}");
        }
    }

    #[test]
    fn nothing_is_said_of_the_time_left_before_it_is_more_than_a_guess() {
        let left = |ms, done| time_left(Duration::from_millis(ms), done, 100);
        assert_eq!(left(5000, 0), None);
        assert_eq!(left(5000, 2), None);
        assert_eq!(left(900, 50), None);
        assert_eq!(left(2000, 50), Some(Duration::from_secs(2)));
        assert_eq!(left(2000, 100), Some(Duration::ZERO));
    }
}
