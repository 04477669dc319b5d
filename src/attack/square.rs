//! The Square attack (Andriushchenko et al., 2020): without gradients, by asking the network.
//!
//! It begins with vertical stripes of ±ε. Each query changes a square at a random place to +ε or −ε, a sign
//! a channel, and keeps the change where the loss rises. The squares are large at first, a share p = .8 of
//! the image, and p is halved at fixed parts of the queries. For L∞ alone.

use super::images::Images;
use super::iterative::Attacked;
use super::objective::{AttackStatus, Objective};
use super::victim::{self, Victim, standings_of};
use super::{EpsBall, Norm};
use crate::error::{Error, Result};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;

/// The attack's settings.
///
/// ```
/// use atrous::attack::{EpsBall, Images, Norm, Square};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let square = Square { seed: 1, ..Square::new(EpsBall::linf(0.1), 50) };
/// let attacked = square.perturb(&victim, &images, &away_from_dark(1))?;
/// assert!(attacked.statuses[0].reached);
/// assert!(Norm::Linf.of(images.with(attacked.x).values(0), images.values(0)) < 0.1 + 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Square {
    /// What it may change, of L∞.
    pub ball: EpsBall,
    /// Times the network is asked about an image, above 0.
    pub queries: usize,
    /// The share of an image's pixels that the first square has: above 0, at most 1.
    pub share: f32,
    /// Draws stripes, places and signs.
    pub seed: u64,
}

impl Square {
    /// The authors' first share of 0.8.
    pub fn new(ball: EpsBall, queries: usize) -> Self {
        Square { ball, queries, share: 0.8, seed: 0 }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.ball.check()?;
        if self.ball.norm != Norm::Linf {
            return Err(Error::argument("norm", "the square attack is for linf alone"));
        }
        if self.queries == 0 || !(self.share > 0.0 && self.share <= 1.0) {
            let message = format!(
                "expected queries and a share of 0 to 1, got {} and {}",
                self.queries, self.share
            );
            return Err(Error::argument("square", message));
        }
        Ok(())
    }

    /// The share of the image at a query: halved at these parts of all, as the authors have it for 10,000.
    fn share_at(&self, query: usize) -> f32 {
        let at = query * 10_000 / self.queries;
        let halvings =
            [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|&&part| at > part).count();
        self.share / (1u32 << halvings) as f32
    }

    /// The best images that the queries found; those that err as wished are asked about no more. An error
    /// for settings out of range and a ball that is not of L∞.
    pub fn perturb(
        &self,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        self.check()?;
        let mut all: Vec<One> = (0..images.len()).map(|i| One::new(self, images, i)).collect();
        let judged = |numbers: &[usize], xs: Vec<f32>| -> Result<Vec<AttackStatus>> {
            let side = images.side();
            let xs = Tensor::from_slice(&xs, [numbers.len(), side, side, 3])?;
            Ok(standings_of(&victim::logits(victim, &xs)?, numbers, objective))
        };
        // The originals count where they err already.
        let numbers: Vec<usize> = (0..all.len()).collect();
        let xs = numbers.iter().flat_map(|&i| images.values(i).to_vec()).collect();
        for (one, status) in all.iter_mut().zip(judged(&numbers, xs)?) {
            one.status = status;
        }
        for query in 0..self.queries {
            let numbers: Vec<usize> = (0..all.len()).filter(|&i| !all[i].status.sure).collect();
            if numbers.is_empty() {
                break;
            }
            let share = self.share_at(query);
            let tries: Vec<Vec<f32>> =
                numbers.iter().map(|&i| all[i].another(self.ball, images, i, query, share)).collect();
            let statuses = judged(&numbers, tries.concat())?;
            for ((&i, x), status) in numbers.iter().zip(tries).zip(statuses) {
                // The stripes are where it begins, better than the original or not.
                if query == 0 || status.is_better_than(&all[i].status) {
                    (all[i].x, all[i].status) = (x, status);
                }
            }
        }
        let x: Vec<f32> = all.iter().flat_map(|one| one.x.iter().copied()).collect();
        let statuses = all.iter().map(|one| one.status).collect();
        Ok(Attacked { x: Tensor::from_slice(&x, images.x.shape())?, statuses })
    }
}

struct One {
    x: Vec<f32>,
    status: AttackStatus,
    stream: Stream,
}

impl One {
    fn new(square: &Square, images: &Images, i: usize) -> Self {
        let x = images.values(i).to_vec();
        let own = super::iterative::hash(&x);
        let status = AttackStatus { reached: false, sure: false, score: f64::NEG_INFINITY };
        One { x, status, stream: Stream::new(square.seed, &[domain::ATTACK, 1 << 32, own]) }
    }

    /// What is asked about next: stripes first, then one square more.
    fn another(
        &mut self,
        ball: EpsBall,
        images: &Images,
        i: usize,
        query: usize,
        share: f32,
    ) -> Vec<f32> {
        let (at, side, origin) = (images.places[i], images.side(), images.values(i));
        let mut x = self.x.clone();
        let sign = |stream: &mut Stream| if stream.unit() < 0.5 { -ball.epsilon } else { ball.epsilon };
        let mut paint =
            |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, change: [f32; 3]| {
                for (y, column) in rows.flat_map(|y| columns.clone().map(move |column| (y, column))) {
                    for (channel, change) in change.iter().enumerate() {
                        let value = (y * side + column) * 3 + channel;
                        x[value] = (origin[value] + change).clamp(0.0, 1.0);
                    }
                }
            };
        let (rows, columns) = (at.top..at.top + at.height, at.left..at.left + at.width);
        if query == 0 {
            for column in columns {
                let change = [(); 3].map(|()| sign(&mut self.stream));
                paint(rows.clone(), column..column + 1, change);
            }
            return x;
        }
        let length = ((share * (at.height * at.width) as f32).sqrt().round() as usize)
            .clamp(1, at.height.min(at.width));
        let top = rows.start + self.stream.below(at.height - length + 1);
        let left = columns.start + self.stream.below(at.width - length + 1);
        let change = [(); 3].map(|()| sign(&mut self.stream));
        paint(top..top + length, left..left + length, change);
        x
    }
}
