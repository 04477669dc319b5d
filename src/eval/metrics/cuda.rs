//! Accuracy of a batch where it is; on a CUDA device launches of `kernels/metrics.cu`.

use super::count_right;
use crate::backend::cuda::{Kernel, LaunchConfig, arguments};
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::tensor::{DType, Tensor};

/// The share of rows whose largest score is right, a tensor of one element where the scores are: a training
/// step on a device fetches it with its loss.
///
/// `scores` is [rows, columns]; `labels` is as large, flags of which the first of the largest counts, or
/// `[rows]`, the numbers of classes, where `ignore` does not count. An error for other shapes.
///
/// ```
/// use atrous::Tensor;
/// use atrous::eval::metrics::accuracy;
///
/// let scores = Tensor::from([[0.9f32, 0.1], [0.2, 0.8], [0.6, 0.4]]);
/// let classes = Tensor::from([0.0f32, 0.0, 255.0]); // the last is not judged
/// assert_eq!(accuracy(&classes, &scores, 255.0)?.item()?, 0.5);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn accuracy(labels: &Tensor, scores: &Tensor, ignore: f32) -> Result<Tensor> {
    let columns = scores.shape().last_length();
    let cuda = match route("accuracy", &[labels, scores])? {
        Route::Cuda(cuda) => cuda,
        _ => {
            let values = |tensor: &Tensor| tensor.to_dtype(DType::F32);
            let (labels, scores) = (values(labels), values(scores));
            let (all, right) = count_right(labels.values(), scores.values(), columns, ignore)?;
            return Tensor::from_slice(&[(right as f64 / all.max(1) as f64) as f32], [1]);
        }
    };
    let rows = scores.shape().elements() / columns.max(1);
    let classes = labels.shape().elements() / rows.max(1);
    if labels.shape().elements() != rows * classes || ![1, columns].contains(&classes) {
        return Err(Error::shape("accuracy", format!("labels for {}", scores.shape()), labels.shape()));
    }
    // 256 blocks of several rows a thread: one thread adds what they counted.
    let blocks = rows.div_ceil(256).clamp(1, 256);
    let counts = cuda.scratch(16 * blocks)?;
    let (label, score) = (labels.memory(), scores.memory());
    let all = arguments![label, score, &counts, rows as i64, columns as i32, classes as i32, ignore];
    let size = LaunchConfig::grid([blocks, 1, 1], [256, 1, 1])?;
    // SAFETY: scores are rows · columns floats, labels rows · classes; two counts a block.
    unsafe { cuda.launch(Kernel::of("metrics", "metrics_accuracy_parts"), size, &all)? };
    let accuracy = cuda.allocate(1, DType::F32)?;
    let all = arguments![&counts, &accuracy, blocks as i32];
    let one = LaunchConfig::grid([1, 1, 1], [1, 1, 1])?;
    // SAFETY: two counts a block; one float, new.
    unsafe { cuda.launch(Kernel::of("metrics", "metrics_accuracy"), one, &all)? };
    Ok(Tensor::from_memory(accuracy, [1]))
}
