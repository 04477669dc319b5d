//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy
//! as 1, 2, 3", SC 2011; also cuRAND's).
//!
//! A number is a pure function of (seed, stream, position): nothing is carried from one draw to
//! the next, so any thread, on any device, in any order, computes the same numbers. Streams are
//! named by what they are for, e.g. `Stream::new(seed, &[domain::AUGMENT, epoch, sample])`.

use rand::rand_core::{Infallible, TryRng};

/// The first label of a stream: what its numbers are used for. [`Stream`] has an example.
pub mod domain {
    /// Initial values of parameters.
    pub const INITIALIZER: u64 = 1;
    /// The order of samples in an epoch.
    pub const SHUFFLE: u64 = 2;
    /// Augmentation of one sample in one epoch.
    pub const AUGMENT: u64 = 3;
    /// Masks of dropout.
    pub const DROPOUT: u64 = 4;
    /// Scenes and pixels of the synthetic data set.
    pub const SYNTHETIC: u64 = 5;
    /// Resampling and splitting of samples that are scored.
    pub const BOOTSTRAP: u64 = 6;
    /// Inputs of tests, cases and benchmarks.
    pub const TEST: u64 = 7;
    /// Random starts and proposals of attacks.
    pub const ATTACK: u64 = 8;
    /// Random tensors that a caller asks for (`Tensor::randn`).
    pub const TENSOR: u64 = 9;
    /// Noise, shuffles and first images of explanations.
    pub const EXPLAIN: u64 = 10;
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on a 128-bit counter under a 64-bit key.
#[inline(always)]
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = MULTIPLIER[0] as u64 * counter[0] as u64;
        let b = MULTIPLIER[1] as u64 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// 24 random bits as a float in [0, 1): every value is a multiple of 2^-24.
#[inline(always)]
pub(crate) fn unit_f32(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// FNV-1a, for keys that are names (a parameter's path, a layer's name).
///
/// ```
/// use atrous::random::hash_name;
///
/// assert_eq!(hash_name(""), 0xcbf2_9ce4_8422_2325); // as FNV-1a is defined
/// assert_ne!(hash_name("conv2d/kernel"), hash_name("conv2d/bias"));
/// ```
pub fn hash_name(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

/// An endless sequence of random numbers with its own name.
///
/// ```
/// use atrous::random::{Stream, domain};
///
/// let draw = |seed, epoch| Stream::new(seed, &[domain::SHUFFLE, epoch]).permutation(5);
/// assert_eq!(draw(7, 0), draw(7, 0)); // wherever and whenever it is drawn
/// assert_ne!(draw(7, 0), draw(7, 1));
/// let mut all = draw(7, 1);
/// all.sort();
/// assert_eq!(all, [0, 1, 2, 3, 4]);
///
/// let mut stream = Stream::new(7, &[domain::TEST]);
/// assert!((0.0..1.0).contains(&stream.unit()));
/// assert!((-2.0..=2.0).contains(&stream.uniform(-2.0, 2.0)));
/// assert!(stream.below(3) < 3);
/// let squares: f32 = (0..1000).map(|_| stream.normal().powi(2)).sum();
/// assert!((800.0..1200.0).contains(&squares), "{squares}"); // the variance is 1
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    id: [u32; 2],
    position: u64,
}

impl Stream {
    /// `labels` says what the stream is for; different labels give independent streams.
    pub fn new(seed: u64, labels: &[u64]) -> Self {
        // Each label is folded in by a splitmix64 step, so that (1, 2) and (2, 1) differ.
        let id = Self::id_after(labels.len(), labels);
        Stream { key: split(seed), id: split(id), position: 0 }
    }

    /// The id of a stream of `count` labels after the first ones, for kernels that fold in the others.
    pub(crate) fn id_after(count: usize, labels: &[u64]) -> u64 {
        labels.iter().fold(count as u64, |h, &label| mix(h ^ mix(label)))
    }

    /// The four numbers of one block: random access, for kernels.
    #[inline(always)]
    pub(crate) fn block(&self, index: u64) -> [u32; 4] {
        let [low, high] = split(index);
        philox([low, high, self.id[0], self.id[1]], self.key)
    }

    fn next_word(&mut self) -> u32 {
        let word = self.block(self.position / 4)[(self.position % 4) as usize];
        self.position += 1;
        word
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        unit_f32(self.next_word())
    }

    /// Uniform from `low` to `high`, which rounding may give.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n (n > 0) by the multiply-shift rule: bias below n / 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next_word() as u64 * n as u64) >> 32) as usize
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit() as f64).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.unit() as f64;
        (radius * angle.cos()) as f32
    }

    /// A permutation of 0..n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = self.next_word() as u64;
        Ok(low | (self.next_word() as u64) << 32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.next_word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

fn split(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn philox_gives_the_authors_known_answers() {
        // Random123's kat_vectors, philox4x32-10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn streams_differ_by_seed_label_and_label_order() {
        let first = |seed, labels: &[u64]| Stream::new(seed, labels).next_u64();
        let all = [first(1, &[2, 3]), first(2, &[2, 3]), first(1, &[3, 2]), first(1, &[2])];
        for i in 0..all.len() {
            assert!(all[i + 1..].iter().all(|other| *other != all[i]));
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut stream = Stream::new(7, &[domain::TEST]);
        let n = 100_000;
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let u: Vec<f64> = (0..n).map(|_| stream.unit() as f64).collect();
        assert!((mean(&u) - 0.5).abs() < 5e-3);
        let z: Vec<f64> = (0..n).map(|_| stream.normal() as f64).collect();
        assert!(mean(&z).abs() < 1e-2);
        let square: Vec<f64> = z.iter().map(|z| z * z).collect();
        assert!((mean(&square) - 1.0).abs() < 2e-2);
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::new(3, &[domain::TEST]).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
