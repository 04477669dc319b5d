//! How far the fast kernels are from an f64 result, beside another engine on the same inputs.
//!
//! The error of each `real` case that peers have too: the root mean square of what f32 is off, for the
//! result and for every gradient, as a fraction of the root mean square of the f64 reference. An error
//! grows with the length of the sums, so kernel, channels, stride and dilation are the case's own; at
//! most 4 images with sides of at most 56 pixels, which the shape in the line says, keep the references
//! to seconds.
//!
//! **Inputs** are a formula, so that the other side has the same bits
//! (`benches/peers/torch_accuracy.py`): element i, in NHWC order, of input number s (x is 1, w 2, b 3,
//! the later loss's gradient 0) comes of the 32-bit hash
//!
//! ```text
//! h = i + s · 0x9e3779b9;  h ^= h >> 16;  h *= 0x7feb352d;  h ^= h >> 15;  h *= 0x846ca68b;  h ^= h >> 16
//! ```
//!
//! (Wellons' `lowbias32`, all modulo 2³²) as (h >> 8) / 2²³ − 1, which f32 holds exactly; a label is h
//! modulo the number of classes. A loss begins its gradients with 1.

use crate::cases::{Case, Fill, Input, Size};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{DType, Shape, Tensor};
use serde_json::{Map, Value, json};

/// Images in a case, at most.
pub(crate) const BATCH: usize = 4;
/// Height and width of images, at most.
pub(crate) const SIDE: usize = 56;
/// The error that a result has if it is the true one, rounded to f32: nobody goes below it.
pub(crate) const ROUNDING: f64 = 1.0 / (1 << 25) as f64;

/// A case to compare, with its name in a peer's lines.
///
/// [`comparisons`] has an example.
pub struct Comparison {
    case: Case,
    /// The operator's name in the scripts of `benches/peers`.
    pub op: &'static str,
    /// The shape's name there, with the smaller batch and sides: `[4] 64->64 56x56`.
    pub shape: String,
}

/// All `real` cases that peers have and that round: not relu, which is exact.
///
/// ```
/// use atrous::bench::accuracy::comparisons;
///
/// let all = comparisons();
/// let conv = all.iter().find(|each| each.name().starts_with("conv3x3_same")).unwrap();
/// let keys: Vec<Option<String>> = conv.gradients();
/// assert_eq!(keys[..2], [Some("error_dx".to_string()), Some("error_dw".to_string())]);
/// ```
pub fn comparisons() -> Vec<Comparison> {
    // These round nothing.
    let compared = |case: &Case| case.size == Size::Real && !["relu", "relu6"].contains(&case.op);
    crate::ops::cases().into_iter().filter(compared).filter_map(Comparison::new).collect()
}

impl Comparison {
    /// The case with fewer and smaller images. None where no peer has it.
    fn new(mut case: Case) -> Option<Self> {
        let [op, shape] = case.peer?;
        let mut shape = shape.to_string();
        if let [n, h, w, _] = case.inputs[0].shape[..] {
            let (few, small) = (n.min(BATCH), [h.min(SIDE), w.min(SIDE)]);
            for input in &mut case.inputs {
                // Images, and their labels.
                if let [a, b, c, rest @ ..] = &input.shape[..]
                    && [*a, *b, *c] == [n, h, w]
                {
                    input.shape = Shape::of(&[&[few, small[0], small[1]], rest].concat());
                }
            }
            shape = shape.replace(&format!("[{n}]"), &format!("[{few}]"));
            shape = shape.replace(&format!("{h}x{w}"), &format!("{}x{}", small[0], small[1]));
        }
        Some(Comparison { case, op, shape })
    }

    /// Operator and shape: `conv3x3_same [4] 64->64 56x56`.
    pub fn name(&self) -> String {
        format!("{} {}", self.op, self.shape)
    }

    /// The gradients' keys in a line, in the order of the inputs: `error_dx`, `error_dw`, …
    pub fn gradients(&self) -> Vec<Option<String>> {
        let key = |input: &Input| match input.name {
            _ if !input.differentiable => None,
            // A loss' logits are the peers' x.
            "logits" => Some("error_dx".into()),
            name => Some(format!("error_d{name}")),
        };
        self.case.inputs.iter().map(key).collect()
    }

    /// Runs the case in f32 on the device and in f64 on the CPU: a line of JSON with the relative
    /// errors (`error_forward`, `error_dx`, …), to four digits.
    pub fn measure(&self, device: Device) -> Result<Map<String, Value>> {
        let (output, gradients) = self.compute(DType::F32, device)?;
        let (expected, expected_gradients) = self.compute(DType::F64, Device::Cpu)?;
        let mut line = Map::new();
        line.insert("case".into(), json!(self.case.full_name()));
        line.insert("op".into(), json!(self.op));
        line.insert("shape".into(), json!(self.shape));
        line.insert("device".into(), json!(device.to_string()));
        line.insert("error_forward".into(), rounded(relative_rms(&output, &expected)));
        for ((key, got), expected) in self.gradients().into_iter().zip(gradients).zip(expected_gradients)
        {
            if let (Some(key), Some(got), Some(expected)) = (key, got, expected) {
                line.insert(key, rounded(relative_rms(&got, &expected)));
            }
        }
        Ok(line)
    }

    /// Output and gradients.
    fn compute(&self, dtype: DType, device: Device) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let place = |(i, input): (usize, &Input)| {
            let tensor = Tensor::from_slice(&values(i as u32 + 1, input), input.shape)?;
            let tensor = tensor.to_dtype(dtype).to_device(device)?;
            Ok(if input.differentiable { tensor.leaf() } else { tensor })
        };
        let inputs = self.case.inputs.iter().enumerate().map(place).collect::<Result<Vec<_>>>()?;
        let output = (self.case.run)(&inputs)?;
        let upstream = match output.shape().elements() {
            1 => Tensor::full(output.shape(), 1.0),
            _ => {
                let later = Input::new("upstream", output.shape());
                Tensor::from_slice(&values(0, &later), later.shape)?
            }
        };
        let upstream = upstream.to_dtype(dtype).to_device(device)?;
        let mut gradients = output.backward_from(upstream)?;
        let here = |input| gradients.take(input).map(|g| g.to_device(Device::Cpu)).transpose();
        let gradients = inputs.iter().map(here).collect::<Result<Vec<_>>>()?;
        Ok((output.detach().to_device(Device::Cpu)?, gradients))
    }
}

/// Input number `number`, by the formula above.
fn values(number: u32, input: &Input) -> Vec<f32> {
    let hashes = (0..input.shape.elements()).map(|i| hash(i as u32, number));
    match input.fill {
        Fill::Labels(classes) => hashes.map(|h| (h % classes as u32) as f32).collect(),
        _ => hashes.map(uniform).collect(),
    }
}

fn hash(i: u32, number: u32) -> u32 {
    let mut h = i.wrapping_add(number.wrapping_mul(0x9e37_79b9));
    h = (h ^ h >> 16).wrapping_mul(0x7feb_352d);
    h = (h ^ h >> 15).wrapping_mul(0x846c_a68b);
    h ^ h >> 16
}

/// In [-1, 1), exactly.
fn uniform(hash: u32) -> f32 {
    (hash >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn relative_rms(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.shape(), expected.shape());
    let (got, expected) = (got.to_vec_f64(), expected.to_vec_f64());
    let square = |sum: f64, value: f64| sum + value * value;
    let off = got.iter().zip(&expected).map(|(g, e)| g - e).fold(0.0, square);
    (off / expected.iter().copied().fold(0.0, square)).sqrt()
}

/// To four digits.
fn rounded(error: f64) -> Value {
    json!(format!("{error:.3e}").parse::<f64>().unwrap_or(f64::NAN))
}

/// How many times larger an error is than another engine's. What is below the rounding of an f32
/// result, 2⁻²⁵, counts as that.
///
/// ```
/// use atrous::bench::accuracy::times_larger;
///
/// assert_eq!(times_larger(6e-7, 2e-7), 6e-7 / 2e-7);
/// let rounding = 2f64.powi(-25); // of one f32: who is nearer than that is no better
/// assert_eq!(times_larger(0.0, 1e-9), 1.0);
/// assert_eq!(times_larger(4.0 * rounding, 0.0), 4.0);
/// ```
pub fn times_larger(ours: f64, theirs: f64) -> f64 {
    ours.max(ROUNDING) / theirs.max(ROUNDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What torch_accuracy.py asserts of its own formula, too.
    #[test]
    fn the_formula_gives_the_values_that_the_peers_script_has() {
        let first: Vec<u32> = (0..3).map(|i| hash(i, 1)).collect();
        assert_eq!(first, [33_350_994, 2_672_842_292, 127_880_910]);
        assert_eq!(hash(0, 0), 0);
        let all: Vec<f32> = (0..10_000).map(|i| uniform(hash(i, 2))).collect();
        assert!(all.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!(all.iter().sum::<f32>().abs() < 200.0);
    }

    #[test]
    fn cases_keep_their_channels_and_get_fewer_and_smaller_images() {
        let all = comparisons();
        let names: Vec<String> = all.iter().map(Comparison::name).collect();
        for expected in [
            "conv3x3_same [4] 64->64 56x56",
            "atrous3x3_d12 [4] 512->256 14x14",
            "depthwise3x3_s2 [4] 96->96 56x56",
            "dense [16] 100352->512",
            "softmax_cross_entropy [4] 21 classes 56x56",
            "maxpool3x3_s3 [4] 64 56x56",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }

    #[test]
    fn a_line_has_an_error_for_the_result_and_each_gradient() {
        let all = comparisons();
        let find = |op: &str| all.iter().find(|comparison| comparison.op == op).unwrap();
        let line = find("atrous3x3_d18").measure(Device::Cpu).unwrap();
        for key in ["error_forward", "error_dx", "error_dw", "error_db"] {
            let error = line[key].as_f64().unwrap();
            assert!(error > 1e-9 && error < 1e-5, "{key}: {error:e}");
        }
        let line = find("maxpool3x3_s3").measure(Device::Cpu).unwrap();
        assert_eq!((line["error_forward"].as_f64(), line["error_dx"].as_f64()), (Some(0.0), Some(0.0)));
        assert_eq!(find("softmax_cross_entropy").gradients(), [Some("error_dx".into()), None]);
    }

    #[test]
    fn errors_below_the_rounding_of_a_result_count_as_that() {
        assert_eq!(times_larger(4e-7, 2e-7), 2.0);
        assert_eq!(times_larger(0.0, 1e-9), 1.0);
        assert_eq!(times_larger(2.0 * ROUNDING, 0.0), 2.0);
    }
}
