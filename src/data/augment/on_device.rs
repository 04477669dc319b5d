//! Augmentation where the training is: on a device, images arrive as they are and are warped there, to the
//! bits the CPU would have made.

use super::warp_mask;
use crate::backend::cuda::{Kernel, LaunchConfig, arguments};
use crate::data::Mask;
use crate::data::image::Preprocess;
use crate::error::{Error, Result};
use crate::ops::affine::Matrix;
use crate::ops::{Route, affine, route};
use crate::tensor::{DType, Tensor};

/// What is still to be done to a batch's images and masks: the samples' affine matrices, and the
/// preprocessing after them.
///
/// ```
/// use atrous::Tensor;
/// use atrous::data::augment::Warp;
/// use atrous::data::image::Preprocess;
///
/// let right = [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]; // each pixel takes its neighbour to the right
/// let warp = Warp::new(&[right], Preprocess::Unit)?;
/// let images = Tensor::from([[[[0.0f32; 3], [51.0; 3], [255.0; 3]]]]);
/// assert_eq!(warp.images(&images)?.to_string(), "[[[[0.2 0.2 0.2]\n   [1.  1.  1. ]\n   [1.  1.  1. ]]]]");
/// let masks = Tensor::from([[[0.0f32, 8.0, 12.0]]]);
/// assert_eq!(warp.masks(&masks)?.to_vec_f64(), [8.0, 12.0, 12.0]);
/// // On a device the matrices are there, too.
/// let there = warp.with_matrices(warp.matrices.to_device(atrous::Device::Cpu)?);
/// assert_eq!(there.masks(&masks)?.to_vec_f64(), [8.0, 12.0, 12.0]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Warp {
    /// Six f64 for each sample, as bytes, `[N, 48]`: they go to a device as they are.
    pub matrices: Tensor,
    /// What comes after the warp, on values of 0 to 255.
    pub preprocess: Preprocess,
}

const BYTES: usize = 48;

impl Warp {
    /// A warp by one matrix for each sample, followed by the preprocessing.
    pub fn new(matrices: &[Matrix], preprocess: Preprocess) -> Result<Self> {
        let numbers = matrices.iter().flatten().flatten();
        let bytes: Vec<u8> = numbers.flat_map(|number| number.to_ne_bytes()).collect();
        Ok(Warp { matrices: Tensor::from_u8(&bytes, [matrices.len(), BYTES])?, preprocess })
    }

    /// This warp with its matrices, `[N, 48]`, on the batch's device.
    pub fn with_matrices(&self, matrices: Tensor) -> Self {
        Warp { matrices, ..self.clone() }
    }

    fn matrices(&self) -> Vec<Matrix> {
        let bytes = self.matrices.as_u8().unwrap_or_default();
        let number = |bytes: &[u8]| f64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        let numbers: Vec<f64> = bytes.chunks_exact(8).map(number).collect();
        numbers.chunks_exact(6).map(|m| [[m[0], m[1], m[2]], [m[3], m[4], m[5]]]).collect()
    }

    fn fits(&self, x: &Tensor) -> Result<()> {
        let n = x.shape().first().copied().unwrap_or(0);
        match self.matrices.shape()[..] == [n, BYTES] && self.matrices.device() == x.device() {
            true => Ok(()),
            false => {
                Err(Error::shape("warp", format!("{n} matrices, one a sample"), self.matrices.shape()))
            }
        }
    }

    /// Images `[N, h, w, 3]`, 0 to 255, warped and preprocessed, where they are. An error where
    /// shapes or devices do not fit.
    pub fn images(&self, x: &Tensor) -> Result<Tensor> {
        self.fits(x)?;
        let &[_, h, w, 3] = &*x.shape() else {
            return Err(Error::shape("warp", "pictures [N, h, w, 3]", x.shape()));
        };
        let Route::Cuda(cuda) = route("warp", &[x])? else {
            let mut values = affine(x, &self.matrices())?;
            self.preprocess.apply(values.values_mut());
            return Ok(values);
        };
        let n = x.shape().elements();
        let y = cuda.allocate(n, DType::F32)?;
        let (images, matrices) = (x.memory(), self.matrices.memory());
        let all = arguments![images, matrices, &y, n as i64, h as i32, w as i32, self.preprocess as i32];
        // SAFETY: x is n floats, three channels of n / 3 / h / w samples with six doubles each; y is new.
        unsafe { cuda.launch(Kernel::of("affine", "affine_augment"), LaunchConfig::elements(n), &all)? };
        Ok(Tensor::from_memory(y, x.shape()))
    }

    /// Masks `[N, h, w]` of classes, warped where they are; no class is blended. An error where
    /// shapes or devices do not fit.
    pub fn masks(&self, x: &Tensor) -> Result<Tensor> {
        self.fits(x)?;
        let &[_, h, w] = &*x.shape() else {
            return Err(Error::shape("warp", "masks [N, h, w]", x.shape()));
        };
        let n = x.shape().elements();
        let Route::Cuda(cuda) = route("warp", &[x])? else {
            let mut all = Vec::with_capacity(n);
            for (mask, matrix) in x.values::<f32>().chunks((h * w).max(1)).zip(self.matrices()) {
                let classes = mask.iter().map(|&class| class as u8).collect();
                let mask = warp_mask(&Mask::new(h, w, classes)?, &matrix);
                all.extend(mask.classes.iter().map(|&class| class as f32));
            }
            return Tensor::from_slice(&all, x.shape());
        };
        let y = cuda.allocate(n, DType::F32)?;
        let all = arguments![x.memory(), self.matrices.memory(), &y, n as i64, h as i32, w as i32];
        // SAFETY: x is n floats, a class for each pixel of samples with six doubles each; y is new.
        unsafe { cuda.launch(Kernel::of("affine", "affine_nearest"), LaunchConfig::elements(n), &all)? };
        Ok(Tensor::from_memory(y, x.shape()))
    }
}
