//! The rules on the CPU: all parameters of a step in one parallel loop, each in one pass over memory.

use super::{Group, OptimizerKind, Update, corrected};
use crate::backend::cpu::simd::{self, Isa};
use crate::backend::cpu::{low_rank, threads};
use crate::context::isa;
use crate::pool::Buffer;
use crate::tensor::{DType, Gradient, LowRankGrad, Real, Tensor};

/// One parameter to change.
struct Item<'a> {
    parameter: &'a mut Tensor,
    slots: &'a mut [Tensor],
    gradient: Gradient,
    group: Group,
}

/// What a step has beside its parameters: the learning rate of each [`Group`], and what gradients are
/// multiplied by before anything else.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub rule: OptimizerKind,
    pub rates: [f32; 2],
    pub number: u64,
    pub shrink: f64,
}

/// Changes the parameters; `slots` is the state by position, of the right shapes.
pub(super) fn update(step: Step, slots: &mut [Vec<Tensor>], updates: Vec<Update>) {
    let mut slots: Vec<_> = slots.iter_mut().map(Some).collect();
    let (mut single, mut double) = (Vec::new(), Vec::new());
    for Update { index, parameter, gradient, group } in updates {
        let slots = slots[index].take().expect("the caller refuses a position that comes twice");
        let list = if parameter.dtype() == DType::F64 { &mut double } else { &mut single };
        list.push(Item { parameter, slots, gradient, group });
    }
    apply::<f32>(step, single);
    apply::<f64>(step, double);
}

/// Σ g² of all gradients, in f64 and in one fixed order.
pub(super) fn sum_of_squares(updates: &[Update]) -> f64 {
    #[inline(always)]
    fn sum<T: Real>(g: &[T]) -> f64 {
        let mut lanes = [0.0f64; 16];
        let (blocks, rest) = g.as_chunks::<16>();
        for block in blocks {
            for (lane, g) in lanes.iter_mut().zip(block) {
                *lane += g.to_f64() * g.to_f64();
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|g| g.to_f64() * g.to_f64()).sum::<f64>()
    }
    fn pieces<T: Real>(g: &[T]) -> f64 {
        let isa = isa();
        let pieces: Vec<&[T]> = g.chunks(PIECE).collect();
        let piece = |i: usize| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || sum(pieces[i]),
            )
        };
        threads::map(pieces.len(), piece).into_iter().sum()
    }
    let square = |Update { gradient, .. }: &Update| {
        let gradient = gradient.to_dense();
        match gradient.dtype() {
            DType::F64 => pieces(gradient.values::<f64>()),
            _ => pieces(gradient.values::<f32>()),
        }
    };
    updates.iter().map(square).sum()
}

fn apply<T: Real>(step: Step, items: Vec<Item>) {
    let real = T::from_f64;
    match step.rule {
        OptimizerKind::Sgd { momentum: 0.0 } => pass(
            step,
            items,
            #[inline(always)]
            |rate: T, w, [], g| (w - rate * g, []),
        ),
        OptimizerKind::Sgd { momentum } => {
            let momentum = real(momentum);
            pass(
                step,
                items,
                #[inline(always)]
                |rate: T, w, [m], g| {
                    let m = momentum * m - rate * g;
                    (w + m, [m])
                },
            );
        }
        OptimizerKind::RmsProp { rho, momentum, epsilon, epsilon_inside } => {
            let (inside, outside) = match epsilon_inside {
                true => (real(epsilon), T::ZERO),
                false => (T::ZERO, real(epsilon)),
            };
            let scaled = Scaled { rho: real(rho), left: real(1.0 - rho), inside, outside };
            match momentum {
                0.0 => pass(
                    step,
                    items,
                    #[inline(always)]
                    |rate, w, [v], g| {
                        let (v, change) = scaled.update(rate, v, g);
                        (w - change, [v])
                    },
                ),
                _ => pass(
                    step,
                    items,
                    #[inline(always)]
                    |rate, w, [v, m], g| {
                        let (v, change) = scaled.update(rate, v, g);
                        let m = real(momentum) * m + change;
                        (w - m, [v, m])
                    },
                ),
            }
        }
        OptimizerKind::Adam { beta_1, beta_2, epsilon } => {
            let (epsilon, first, second) = (real(epsilon), real(1.0 - beta_1), real(1.0 - beta_2));
            pass(
                step,
                items,
                #[inline(always)]
                |rate: T, w, [m, v], g| {
                    let m = m + first * (g - m);
                    let v = v + second * (g * g - v);
                    (w - rate * m / (v.sqrt() + epsilon), [m, v])
                },
            );
        }
    }
}

/// What both forms of RMSprop share.
#[derive(Clone, Copy)]
struct Scaled<T> {
    rho: T,
    left: T,
    inside: T,
    outside: T,
}

impl<T: Real> Scaled<T> {
    /// The new v, and the gradient scaled by it.
    #[inline(always)]
    fn update(self, rate: T, v: T, g: T) -> (T, T) {
        let v = self.rho * v + self.left * g * g;
        (v, rate * g / ((v + self.inside).sqrt() + self.outside))
    }
}

impl Step {
    /// What a group's gradients are multiplied by: Adam's correction is in it.
    fn rate(&self, group: Group) -> f64 {
        let rate = self.rates[group as usize];
        match self.rule {
            OptimizerKind::Adam { beta_1, beta_2, .. } => corrected(rate, self.number, beta_1, beta_2),
            _ => rate as f64,
        }
    }
}

/// Elements a piece of the parallel loop: all its arrays together stay below 1 MiB.
const PIECE: usize = 1 << 14;

/// Some elements of one parameter.
struct Piece<'a, T, const SLOTS: usize> {
    rate: T,
    w: &'a mut [T],
    slots: [&'a mut [T]; SLOTS],
    gradient: Elements<'a, T>,
    /// Where in the parameter they begin.
    start: usize,
}

/// A gradient's elements, or the factors of which a piece multiplies its own: the whole is never in memory.
#[derive(Clone, Copy)]
enum Elements<'a, T> {
    Dense(&'a [T]),
    LowRank(&'a LowRankGrad),
}

impl<'a, T: Real> Elements<'a, T> {
    fn of(gradient: &'a Gradient) -> Self {
        match gradient {
            Gradient::Dense(gradient) => Elements::Dense(gradient.values()),
            // (Clipping has multiplied them out. Factors are of f32, as their parameters.)
            Gradient::LowRank(factors) => match factors.dense.get() {
                Some(dense) => Elements::Dense(dense.values()),
                None => Elements::LowRank(factors),
            },
        }
    }

    /// How many elements of a parameter a piece has: of factors whole rows.
    fn piece_size(self) -> usize {
        match self {
            Elements::Dense(_) => PIECE,
            Elements::LowRank(factors) => {
                let width = factors.shape()[1].max(1);
                (PIECE / width).max(1) * width
            }
        }
    }

    /// Calls `f` with so many elements from `start` on.
    fn with<R>(self, isa: Isa, start: usize, count: usize, f: impl FnOnce(&[T]) -> R) -> R {
        match self {
            Elements::Dense(all) => f(&all[start..][..count]),
            Elements::LowRank(factors) => {
                let mut rows = Buffer::<f32>::new(count);
                low_rank::rows(factors, isa, start / factors.shape()[1].max(1), &mut rows);
                f(T::slice_of(&f32::into_storage(rows))
                    .expect("factors are of f32, as their parameters"))
            }
        }
    }
}

/// Runs `f` (rate, parameter, state, gradient → parameter, state) on every element.
fn pass<T: Real, const SLOTS: usize>(
    step: Step,
    mut items: Vec<Item>,
    f: impl Fn(T, T, [T; SLOTS], T) -> (T, [T; SLOTS]) + Sync + Send,
) {
    let (isa, shrink) = (isa(), T::from_f64(step.shrink));
    let mut pieces = Vec::new();
    for Item { parameter, slots, gradient, group } in &mut items {
        let (rate, gradient) = (T::from_f64(step.rate(*group)), Elements::of(gradient));
        let size = gradient.piece_size();
        let mut slots = slots.iter_mut().map(|slot| slot.values_mut::<T>().chunks_mut(size));
        let mut slots: [_; SLOTS] =
            std::array::from_fn(|_| slots.next().expect("as many slots as the rule has names"));
        let parts = parameter.values_mut::<T>().chunks_mut(size).enumerate();
        pieces.extend(parts.map(|(i, w)| {
            let slots = slots.each_mut().map(|slot| slot.next().unwrap_or_default());
            Piece { rate, w, slots, gradient, start: i * size }
        }));
    }
    threads::for_each_chunk(&mut pieces, 1, |_, pieces| {
        let piece = &mut pieces[0];
        let (start, count) = (piece.start, piece.w.len());
        piece.gradient.with(isa, start, count, |g| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || piece.run(g, shrink, &f),
            )
        });
    });
}

impl<T: Real, const SLOTS: usize> Piece<'_, T, SLOTS> {
    /// A block is copied out, changed and copied back: between arrays of its own the compiler knows that
    /// nothing overlaps, and vectorises; between five slices it gives up.
    #[inline(always)]
    fn run(&mut self, g: &[T], shrink: T, f: impl Fn(T, T, [T; SLOTS], T) -> (T, [T; SLOTS])) {
        const BLOCK: usize = 32;
        let rate = self.rate;
        let (w, w_rest) = self.w.as_chunks_mut::<BLOCK>();
        let (g, g_rest) = g.as_chunks::<BLOCK>();
        let mut slots = self.slots.each_mut().map(|slot| slot.as_chunks_mut::<BLOCK>());
        for (i, (w, g)) in w.iter_mut().zip(g).enumerate() {
            let (mut changed, mut states) = (*w, slots.each_ref().map(|slot| slot.0[i]));
            for j in 0..BLOCK {
                let state = std::array::from_fn(|k| states[k][j]);
                let (w, state) = f(rate, changed[j], state, shrink * g[j]);
                changed[j] = w;
                (0..SLOTS).for_each(|k| states[k][j] = state[k]);
            }
            *w = changed;
            (0..SLOTS).for_each(|k| slots[k].0[i] = states[k]);
        }
        for (i, (w, &g)) in w_rest.iter_mut().zip(g_rest).enumerate() {
            let (changed, state) = f(rate, *w, std::array::from_fn(|k| slots[k].1[i]), shrink * g);
            *w = changed;
            (0..SLOTS).for_each(|k| slots[k].1[i] = state[k]);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;
    use crate::optimizers::{Group, Optimizer, OptimizerKind, Update};
    use crate::tensor::{Gradient, LowRankGrad, Tensor};

    #[test]
    fn factors_are_multiplied_by_the_instructions_that_were_asked_for_on_every_thread() {
        // More rows than a piece has: other threads multiply some of them.
        let (x, g) = (Tensor::randn([4, 3000], 1), Tensor::randn([4, 64], 2));
        let updated = |gradient: Gradient| {
            let mut optimizer = Optimizer::new(OptimizerKind::sgd(0.0), 0.1).unwrap();
            let mut parameter = Tensor::zeros([3000, 64]);
            optimizer.begin_step();
            let update =
                Update { index: 0, parameter: &mut parameter, gradient, group: Group::default() };
            optimizer.update(vec![update], None).unwrap();
            parameter.to_vec_f64()
        };
        for isa in supported() {
            with_isa(isa, || {
                let factors = || Gradient::LowRank(Box::new(LowRankGrad::new(&x, &g)));
                let whole = Gradient::Dense(factors().into_dense());
                assert_eq!(updated(factors()), updated(whole), "{isa:?}");
            });
        }
    }
}
