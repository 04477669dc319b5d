//! What there is to say of many numbers: mean, spread, zeros, a histogram.

use std::ops::Range;

/// Statistics of one channel of a feature map.
///
/// [`by_channel`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ChannelStatistics {
    /// The mean.
    pub mean: f64,
    /// The mean of absolute values.
    pub mean_absolute: f64,
    /// The standard deviation, over n.
    pub deviation: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Which share of them is 0.
    pub zeros: f64,
}

impl ChannelStatistics {
    /// Of some numbers, of which there is at least one.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count().max(1) as f64;
        let mean = values.clone().sum::<f64>() / n;
        let variance = values.clone().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        ChannelStatistics {
            mean,
            mean_absolute: values.clone().map(f64::abs).sum::<f64>() / n,
            deviation: variance.sqrt(),
            min: values.clone().fold(f64::INFINITY, f64::min),
            max: values.clone().fold(f64::NEG_INFINITY, f64::max),
            zeros: values.filter(|&v| v == 0.0).count() as f64 / n,
        }
    }

    /// Whether all of it is 0: whatever reads it learns nothing from this image.
    pub fn is_dead(&self) -> bool {
        self.zeros == 1.0
    }
}

/// Of each channel of `[…, channels]`.
///
/// ```
/// use atrous::explain::statistics::by_channel;
///
/// let all = by_channel(&[1.0, 0.0, -3.0, 0.0], 2); // two pixels of two channels
/// assert_eq!((all[0].mean, all[0].deviation, all[0].min), (-1.0, 2.0, -3.0));
/// assert!(all[1].is_dead() && !all[0].is_dead());
/// ```
pub fn by_channel(values: &[f32], channels: usize) -> Vec<ChannelStatistics> {
    let of =
        |c: usize| ChannelStatistics::of(values[c..].iter().step_by(channels).map(|&v| f64::from(v)));
    (0..channels).map(of).collect()
}

/// How often numbers fall into each of equal ranges.
///
/// ```
/// use atrous::explain::statistics::Histogram;
///
/// let histogram = Histogram::of(&[-1.0, -0.4, 0.0, 0.6, 1.0], 4);
/// assert_eq!((&histogram.counts[..], histogram.zeros), (&[1, 1, 0, 2][..], 1));
/// assert_eq!(histogram.range(3), 0.5..1.0);
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Histogram {
    /// The smallest number.
    pub low: f64,
    /// The largest number.
    pub high: f64,
    /// One a range, from `low` to `high`; zeros are not among them.
    pub counts: Vec<usize>,
    /// How many numbers are exactly 0: after a ReLU they would hide all others.
    pub zeros: usize,
    /// The mean of all, zeros included.
    pub mean: f64,
    /// The standard deviation of all, over n.
    pub deviation: f64,
}

impl Histogram {
    /// Of numbers in so many ranges. Numbers that are not finite are left out.
    pub fn of(values: &[f32], ranges: usize) -> Self {
        let finite = values.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite());
        let ChannelStatistics { mean, deviation, min, max, .. } = ChannelStatistics::of(finite.clone());
        let (low, high) = if min <= max { (min, max) } else { (0.0, 0.0) };
        let mut counts = vec![0; ranges];
        let width = (high - low).max(f64::MIN_POSITIVE) / ranges as f64;
        let mut zeros = 0;
        for v in finite {
            match v == 0.0 {
                true => zeros += 1,
                false => counts[(((v - low) / width) as usize).min(ranges - 1)] += 1,
            }
        }
        Histogram { low, high, counts, zeros, mean, deviation }
    }

    /// The numbers of a range.
    pub fn range(&self, i: usize) -> Range<f64> {
        let width = (self.high - self.low) / self.counts.len() as f64;
        self.low + i as f64 * width..self.low + (i + 1) as f64 * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_counted_apart_and_dead_ones_are_told() {
        let all = by_channel(&[1.0, 0.0, -3.0, 0.0], 2);
        let expected = ChannelStatistics {
            mean: -1.0,
            mean_absolute: 2.0,
            deviation: 2.0,
            min: -3.0,
            max: 1.0,
            zeros: 0.0,
        };
        assert_eq!(all[0], expected);
        assert!(all[1].is_dead() && !all[0].is_dead());
    }

    #[test]
    fn every_number_is_in_one_range_or_a_zero() {
        let values = [-1.0f32, -0.4, 0.0, 0.0, 0.6, 1.0, f32::NAN];
        let histogram = Histogram::of(&values, 4);
        assert_eq!((&histogram.counts[..], histogram.zeros), (&[1, 1, 0, 2][..], 2));
        assert_eq!(histogram.range(3), 0.5..1.0);
        assert_eq!(Histogram::of(&[3.0; 5], 4).counts.iter().sum::<usize>(), 5);
        assert_eq!(Histogram::of(&[], 4).counts, [0; 4]);
    }
}
