//! Losses by their Keras names, and the weights of samples.

use crate::error::{Error, Result};
use crate::ops::{self, CategoricalGradient, common_dtype};
use crate::tensor::{DType, Real, Tensor};
use std::fmt;
use std::str::FromStr;

/// What is minimised. Each takes the logits: the values in front of the last softmax or sigmoid.
///
/// ```
/// use atrous::losses::Loss;
/// use atrous::prelude::*;
///
/// // Logits of 0 say ½ of each of two classes: each costs ln 2.
/// let (logits, labels) = (Tensor::zeros([1, 2]), Tensor::from([[1.0f32, 0.0]]));
/// let ln_2 = std::f64::consts::LN_2;
/// let loss: Loss = "binary_crossentropy".parse()?;
/// assert_eq!(loss.name(), "binary_crossentropy");
/// assert!((loss.from_logits(&logits, &labels, None)?.item()? - ln_2).abs() < 1e-6);
/// // γ = 2: (1 − ½)² of it
/// assert!((loss.focal_from_logits(&logits, &labels, 2.0)?.item()? - 0.25 * ln_2).abs() < 1e-6);
///
/// // By the class's number, with a sample that has no say (void).
/// let loss = Loss::SparseCategoricalCrossentropy { ignore: Some(255) };
/// let (logits, labels) = (Tensor::zeros([2, 2]), Tensor::from([1.0f32, 255.0]));
/// assert!((loss.from_logits(&logits, &labels, None)?.item()? - ln_2 / 2.0).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Any number of the classes at once: a sigmoid each.
    BinaryCrossentropy,
    /// One of the classes, by a row of flags: a softmax. `gradient` says what to train with where
    /// a row has several flags; without it such a row is an error.
    CategoricalCrossentropy {
        /// The gradient of rows with several flags; None: such rows are errors.
        gradient: Option<CategoricalGradient>,
    },
    /// One of the classes, by its number. Samples with the label `ignore` count for nothing.
    SparseCategoricalCrossentropy {
        /// The label that counts for nothing (255, void, in VOC's masks); None: every label is a class.
        ignore: Option<i64>,
    },
}

impl Loss {
    /// Their names, in the order of the variants.
    pub const NAMES: [&'static str; 3] =
        ["binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"];

    /// Keras' name, e.g. `binary_crossentropy`: what [`Display`](fmt::Display) prints and `parse`
    /// reads.
    pub fn name(&self) -> &'static str {
        match self {
            Loss::BinaryCrossentropy => Loss::NAMES[0],
            Loss::CategoricalCrossentropy { .. } => Loss::NAMES[1],
            Loss::SparseCategoricalCrossentropy { .. } => Loss::NAMES[2],
        }
    }

    /// Σᵢ wᵢLᵢ / N over the N samples (rows, pixels): a scalar on the tape. `logits` are `[..., classes]`;
    /// `labels` flags of their shape, or class numbers `[...]`; `sample_weights` `[N]`, of the logits' type.
    /// An error where they are not.
    pub fn from_logits(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        sample_weights: Option<&Tensor>,
    ) -> Result<Tensor> {
        match *self {
            Loss::BinaryCrossentropy => ops::binary_cross_entropy(logits, labels, sample_weights),
            Loss::CategoricalCrossentropy { gradient } => {
                ops::softmax_cross_entropy(logits, labels, sample_weights, gradient)
            }
            Loss::SparseCategoricalCrossentropy { ignore } => {
                ops::sparse_softmax_cross_entropy(logits, labels, sample_weights, ignore)
            }
        }
    }
}

impl Loss {
    /// The focal form (Lin et al., "Focal Loss for Dense Object Detection", 2017), the mean of (1 −
    /// p)^γ times the cross-entropy. Shapes as in [`from_logits`](Loss::from_logits). An error for
    /// categorical cross-entropy, which has no focal form here.
    pub fn focal_from_logits(&self, logits: &Tensor, labels: &Tensor, gamma: f32) -> Result<Tensor> {
        match *self {
            Loss::BinaryCrossentropy => ops::binary_focal_cross_entropy(logits, labels, gamma as f64),
            Loss::SparseCategoricalCrossentropy { ignore } => {
                ops::sparse_focal_cross_entropy(logits, labels, gamma as f64, ignore)
            }
            Loss::CategoricalCrossentropy { .. } => {
                Err(Error::argument("focal", format!("there is no focal form of `{self}`")))
            }
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The loss of that name, with no gradient rule and no ignored label.
impl FromStr for Loss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [
            Loss::BinaryCrossentropy,
            Loss::CategoricalCrossentropy { gradient: None },
            Loss::SparseCategoricalCrossentropy { ignore: None },
        ];
        let found = all.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| Error::unknown("loss", name, &Loss::NAMES))
    }
}

impl fmt::Display for CategoricalGradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CategoricalGradient::Keras => "keras",
            CategoricalGradient::True => "true",
        })
    }
}

impl FromStr for CategoricalGradient {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "keras" => Ok(CategoricalGradient::Keras),
            "true" => Ok(CategoricalGradient::True),
            _ => Err(Error::argument("gradient", format!("`{name}` is neither `keras` nor `true`"))),
        }
    }
}

/// Labels with a share `by` spread out, as Keras' `label_smoothing` has it: for a sigmoid a class
/// y(1 − s) + s/2, for a softmax over K classes y(1 − s) + s/K.
///
/// ```
/// use atrous::losses::{Loss, smooth};
/// use atrous::prelude::*;
///
/// let labels = Tensor::from([[1.0f32, 0.0, 0.0, 0.0]]);
/// let softmax = Loss::CategoricalCrossentropy { gradient: None };
/// assert_eq!(smooth(&labels, 0.5, softmax)?.to_string(), "[[0.625 0.125 0.125 0.125]]");
/// let sigmoids = Loss::BinaryCrossentropy;
/// assert_eq!(smooth(&labels, 0.5, sigmoids)?.to_string(), "[[0.75 0.25 0.25 0.25]]");
/// # Ok::<(), Error>(())
/// ```
pub fn smooth(labels: &Tensor, by: f32, loss: Loss) -> Result<Tensor> {
    if by == 0.0 {
        return Ok(labels.clone());
    }
    let rest = match loss {
        Loss::BinaryCrossentropy => by / 2.0,
        _ => by / labels.shape().last_length() as f32,
    };
    let values: Vec<f32> = labels.to_vec_f64().iter().map(|&y| y as f32 * (1.0 - by) + rest).collect();
    Tensor::from_slice(&values, labels.shape())
}

/// The weight of each sample, `[N]`, from its flags, `[N, classes]`, as Keras' `class_weight` has it:
/// that of its first positive class, whichever others it has.
///
/// ```
/// use atrous::Tensor;
/// use atrous::losses::sample_weights;
///
/// let labels = Tensor::from([[0.0f32, 1.0], [1.0, 1.0]]);
/// assert_eq!(sample_weights(&[1.0, 3.0], &labels)?.to_string(), "[3. 1.]");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn sample_weights(class_weights: &[f32], labels: &Tensor) -> Result<Tensor> {
    fn weights<T: Real>(class_weights: &[f32], labels: &Tensor) -> Result<Tensor> {
        let first_maximum =
            |row: &[T]| (1..row.len()).fold(0, |m, i| if row[i] > row[m] { i } else { m });
        let rows = labels.values::<T>().chunks(class_weights.len().max(1));
        let of = |row| T::from_f64(class_weights[first_maximum(row)] as f64);
        Tensor::from_slice(&rows.map(of).collect::<Vec<T>>(), [labels.shape()[0]])
    }
    let op = "sample_weights";
    if labels.shape().len() != 2 || labels.shape()[1] != class_weights.len() || class_weights.is_empty()
    {
        return Err(Error::shape(op, format!("labels [N, {}]", class_weights.len()), labels.shape()));
    }
    match common_dtype(op, &[labels])? {
        DType::F64 => weights::<f64>(class_weights, labels),
        _ => weights::<f32>(class_weights, labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keras_and_round_trip() {
        for name in Loss::NAMES {
            assert_eq!(name.parse::<Loss>().unwrap().to_string(), name);
        }
        let error = "mse".parse::<Loss>().unwrap_err().to_string();
        assert!(error.contains("`mse`") && error.contains("`binary_crossentropy`"), "{error}");
        for rule in [CategoricalGradient::Keras, CategoricalGradient::True] {
            assert_eq!(rule.to_string().parse::<CategoricalGradient>().unwrap(), rule);
        }
    }

    #[test]
    fn a_sample_weighs_as_its_first_positive_class() {
        let labels =
            Tensor::from_slice(&[0.0f32, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [3, 3]).unwrap();
        let weights = sample_weights(&[0.5, 2.0, 7.0], &labels).unwrap();
        assert_eq!(weights.to_vec_f64(), [2.0, 7.0, 0.5]);
        let weights = sample_weights(&[0.5, 2.0, 7.0], &labels.to_dtype(DType::F64)).unwrap();
        assert_eq!((weights.to_vec_f64(), weights.dtype()), (vec![2.0, 7.0, 0.5], DType::F64));
        assert!(sample_weights(&[0.5, 2.0], &labels).is_err());
        assert!(sample_weights(&[], &Tensor::zeros([3, 0])).is_err());
    }

    #[test]
    fn the_loss_is_divided_by_the_number_of_samples_not_by_their_weight() {
        let logits = Tensor::zeros([4, 2]);
        let labels = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], [4, 2]).unwrap();
        let weights = Tensor::full([4], 3.0);
        for name in [Loss::NAMES[0], Loss::NAMES[1]] {
            let loss: Loss = name.parse().unwrap();
            let loss = loss.from_logits(&logits, &labels, Some(&weights)).unwrap().item().unwrap();
            assert!((loss - 3.0 * 2f64.ln()).abs() < 1e-6);
        }
    }
}
