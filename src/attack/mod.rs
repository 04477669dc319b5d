//! Small perturbations that make networks err, what they cost, and what helps against them.
//!
//! Images are [N, side, side, 3] with values of 0 to 1, whatever a network's weights expect: a [`Victim`]
//! has its preprocessing inside, so that an ε of 8/255 means eight of the 255 steps of an image file. What
//! a network is to be led to is an [`Objective`]: a loss of its logits that the attack raises, and a
//! verdict.
//!
//! In the order to read it: [`ball`] (what counts as small), [`victim`], [`objective`], [`iterative`]
//! (FGSM, PGD, MIM), [`masks`] (networks that segment), [`deepfool`], [`square`] (without gradients),
//! [`universal`] (one perturbation for all images), [`measure`] (how visible a perturbation is),
//! [`generator`] (a network that perturbs), [`trial`] (an attack on many images), [`baseline`] (whether
//! there is anything to attack), [`defence`] (what helps).
//!
//! The examples attack a network that can be followed by hand (`brightness.txt` has it): `brightness(side)`
//! takes images [side, side, 3] for class 0 where their mean m is below ½, and for class 1 above; the logits
//! are −3(m − ½) and 3(m − ½). `away_from_dark(n)` is the [`LabelObjective`] that leads n images away from
//! class 0, and `Greys` a data set of images of 4×4 pixels and one grey level each.

pub mod ball;
pub mod baseline;
pub mod deepfool;
pub mod defence;
pub mod generator;
pub mod images;
pub mod iterative;
pub mod masks;
pub mod measure;
pub mod objective;
pub mod square;
#[cfg(test)]
mod tests;
pub mod trial;
pub mod universal;
pub mod victim;

pub use ball::{EpsBall, Norm};
pub use baseline::Doubt;
pub use deepfool::DeepFool;
pub use generator::Generator;
pub use images::Images;
pub use iterative::{Attacked, Iterative};
pub use masks::MaskObjective;
pub use measure::Visibility;
pub use objective::{AttackStatus, Goal, LabelObjective, Objective};
pub use square::Square;
pub use trial::{Attack, AttackResult, AttackTarget, SoFar, Subjects, Summary};
pub use universal::Universal;
pub use victim::{Network, Victim, gradient, logits, statuses};
