//! What there is to say of many numbers: mean, spread, zeros, a histogram.

use std::ops::Range;

/// Statistics of one channel of a feature map.
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

/// What one pass over numbers gathers.
#[derive(Clone, Copy)]
struct Gathered {
    count: usize,
    sum: f64,
    absolute: f64,
    min: f64,
    max: f64,
    zeros: usize,
}

impl Gathered {
    const NOTHING: Gathered = Gathered {
        count: 0,
        sum: 0.0,
        absolute: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        zeros: 0,
    };

    fn add(&mut self, v: f64) {
        self.count += 1;
        self.sum += v;
        self.absolute += v.abs();
        self.min = self.min.min(v);
        self.max = self.max.max(v);
        self.zeros += usize::from(v == 0.0);
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// With what a second pass summed: the squares of the distances from the mean.
    fn statistics(&self, squares: f64) -> ChannelStatistics {
        let n = self.count.max(1) as f64;
        ChannelStatistics {
            mean: self.mean(),
            mean_absolute: self.absolute / n,
            deviation: (squares / n).sqrt(),
            min: self.min,
            max: self.max,
            zeros: self.zeros as f64 / n,
        }
    }
}

impl ChannelStatistics {
    /// Whether all of it is 0: whatever reads it learns nothing from this image.
    pub fn is_dead(&self) -> bool {
        self.zeros == 1.0
    }
}

/// Of each channel of `[…, channels]`.
pub fn by_channel(values: &[f32], channels: usize) -> Vec<ChannelStatistics> {
    // Row by row, as the numbers lie in memory: one channel after the other takes many times as long.
    let mut gathered = vec![Gathered::NOTHING; channels];
    for row in values.chunks_exact(channels) {
        gathered.iter_mut().zip(row).for_each(|(own, &v)| own.add(v.into()));
    }
    let means: Vec<f64> = gathered.iter().map(Gathered::mean).collect();
    let mut squares = vec![0.0; channels];
    for row in values.chunks_exact(channels) {
        for ((sum, &v), mean) in squares.iter_mut().zip(row).zip(&means) {
            *sum += (f64::from(v) - mean).powi(2);
        }
    }
    gathered.iter().zip(squares).map(|(own, squares)| own.statistics(squares)).collect()
}

/// How often numbers fall into each of equal ranges.
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
        let mut gathered = Gathered::NOTHING;
        finite.clone().for_each(|v| gathered.add(v));
        let squares = finite.clone().map(|v| (v - gathered.mean()).powi(2)).sum();
        let ChannelStatistics { mean, deviation, min, max, .. } = gathered.statistics(squares);
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
