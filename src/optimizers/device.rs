//! Updates on a CUDA device: launches of `kernels/optimizers.cu`.

use super::Rule;
use crate::cuda::{Cuda, Kernel, Size, arguments};
use crate::error::Result;
use crate::tensor::Tensor;

/// One step of a parameter and its state, in place.
pub(super) fn apply(
    cuda: &'static Cuda,
    rule: Rule,
    learning_rate: f32,
    step: u64,
    parameter: &Tensor,
    slots: &[Tensor],
    gradient: &Tensor,
) -> Result<()> {
    let n = parameter.shape().elements();
    let (w, g, count, rate) = (parameter.memory(), gradient.memory(), n as i64, learning_rate);
    let slot = |i: usize| slots.get(i).map_or(0, |slot: &Tensor| slot.memory().address());
    let (name, all) = match rule {
        Rule::Sgd { momentum: 0.0 } => ("optimizers_sgd", arguments![w, g, count, rate].to_vec()),
        Rule::Sgd { momentum } => {
            ("optimizers_sgd_momentum", arguments![w, slot(0), g, count, rate, momentum as f32].to_vec())
        }
        Rule::RmsProp { rho, momentum, epsilon, epsilon_inside } => {
            let (inside, outside) =
                if epsilon_inside { (epsilon as f32, 0.0f32) } else { (0.0, epsilon as f32) };
            let (rho, left, momentum) = (rho as f32, (1.0 - rho) as f32, momentum as f32);
            let (v, m) = (slot(0), slot(1));
            (
                "optimizers_rmsprop",
                arguments![w, v, m, g, count, rate, rho, left, momentum, inside, outside].to_vec(),
            )
        }
        Rule::Adam { beta_1, beta_2, epsilon } => {
            let t = step as f64;
            let rate = learning_rate as f64 * (1.0 - beta_2.powf(t)).sqrt() / (1.0 - beta_1.powf(t));
            let (first, second) = ((1.0 - beta_1) as f32, (1.0 - beta_2) as f32);
            let (m, v) = (slot(0), slot(1));
            (
                "optimizers_adam",
                arguments![w, m, v, g, count, rate as f32, first, second, epsilon as f32].to_vec(),
            )
        }
    };
    // SAFETY: the caller saw that parameter, state and gradient are of one size; parameter and state are
    // nobody else's (`Tensor::make_unique`).
    unsafe { cuda.launch(Kernel::of("optimizers", name), Size::elements(n), &all) }
}
