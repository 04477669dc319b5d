//! From values to shares of a length, with round ticks.

/// One axis of a plot.
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// 0 at the axis' low end, 1 at its high one.
    pub(super) fn share(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.log10() } else { v };
        (f(value) - f(self.low)) / (f(self.high) - f(self.low))
    }

    /// About `count` ticks at 1, 2 or 5 times a power of ten; `whole`: the axis ends at ticks.
    pub(super) fn linear(values: impl Iterator<Item = f64> + Clone, count: usize, whole: bool) -> Self {
        let (mut low, mut high) = range(values);
        if low == high {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
            (low, high) = if whole { (low - room, high + room) } else { (low - 1.0, high + 1.0) };
        }
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= rough * 0.999);
        // Epochs are whole.
        let step = if whole { step.unwrap_or(rough) } else { step.unwrap_or(rough).max(1.0) };
        if whole {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last.min(first + 50)).map(|i| i as f64 * step);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let label = |v: f64| {
            if high.abs().max(low.abs()) >= 1e5 || step < 1e-4 {
                format!("{v:.1e}")
            } else {
                format!("{v:.decimals$}")
            }
        };
        Axis { low, high, log: false, ticks: ticks.map(|v| (v, label(v))).collect() }
    }

    /// Ticks at powers of ten, and between them where there are few.
    pub(super) fn log(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = range(values);
        // A little room, and a range of its own for a rate that never changed.
        let (low, high) =
            if high / low < 2.0 { (low / 2.0, high * 2.0) } else { (low / 1.2, high * 1.2) };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = high.log10() - low.log10();
        let every = (decades / 6.0).ceil().max(1.0) as usize;
        let between: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let values = (first..=last).step_by(every).flat_map(|p| between.iter().map(move |m| (*m, p)));
        let ticks = values
            .map(|(m, p)| (m * 10f64.powi(p), format!("{m}e{p}")))
            .filter(|(v, _)| (low..=high).contains(v))
            .collect();
        Axis { low, high, log: true, ticks }
    }
}

fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_values_between_them() {
        let axis = Axis::linear([0.137, 0.83].into_iter(), 5, true);
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let epochs = Axis::linear([1.0, 40.0].into_iter(), 8, false);
        assert_eq!(
            epochs.ticks.iter().map(|t| t.0).collect::<Vec<_>>(),
            [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
        );
        assert_eq!((epochs.share(1.0), epochs.share(40.0)), (0.0, 1.0));
    }

    #[test]
    fn axes_of_one_value_of_tiny_and_of_huge_values_have_a_length() {
        for values in [[0.0, 0.0], [3.0, 3.0], [-1e-7, 1e-7], [1e7, 9e9], [-5.0, -5.0]] {
            let axis = Axis::linear(values.into_iter(), 5, true);
            assert!(axis.high > axis.low && axis.ticks.len() >= 2, "{values:?}");
            assert!(values.iter().all(|&v| (0.0..=1.0).contains(&axis.share(v))), "{values:?}");
        }
        let axis = Axis::log([1e-4, 1e-4].into_iter());
        assert!((axis.share(1e-4) - 0.5).abs() < 1e-9 && !axis.ticks.is_empty());
    }

    #[test]
    fn decades_are_equally_long_on_a_logarithmic_axis() {
        let axis = Axis::log([1e-6, 1e-2].into_iter());
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]);
        let step = |a, b| axis.share(b) - axis.share(a);
        assert!((step(1e-6, 1e-5) - step(1e-3, 1e-2)).abs() < 1e-12);
    }
}
