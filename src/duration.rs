//! Lengths of time as people read them: in what is printed, on the live display, in reports.

/// As a clock shows them, in whole seconds: `0:07`, `3:07`, `1:02:07`. Less than none is none.
///
/// ```
/// assert_eq!(atrous::duration::clock(187.9), "3:07");
/// ```
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// In the unit that a person would take: `12.3 ms`, `5.0 s`, and from a minute on as a [`clock`] shows them,
/// `3:07 min`, `1:02:07 h`.
///
/// ```
/// assert_eq!(atrous::duration::with_unit(0.0123), "12.3 ms");
/// ```
pub fn with_unit(seconds: f64) -> String {
    match seconds {
        s if s < 0.0995 => format!("{:.1} ms", 1000.0 * s),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3599.5 => clock(s.round()) + " min",
        s => clock(s.round()) + " h",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_hours_where_there_are_some_and_never_goes_below_zero() {
        let shown = [0.0, 59.99, 187.2, 3599.9, 3727.0, 90_000.0, -5.0].map(clock);
        assert_eq!(shown, ["0:00", "0:59", "3:07", "59:59", "1:02:07", "25:00:00", "0:00"]);
    }

    #[test]
    fn seconds_are_told_in_the_unit_a_person_would_take() {
        let told = [0.0123, 0.0994, 0.0995, 5.0, 59.94, 61.0, 3725.0].map(with_unit);
        assert_eq!(told, ["12.3 ms", "99.4 ms", "0.1 s", "5.0 s", "59.9 s", "1:01 min", "1:02:05 h"]);
        assert_eq!([59.96, 3599.4, 3599.6].map(with_unit), ["1:00 min", "59:59 min", "1:00:00 h"]);
    }
}
