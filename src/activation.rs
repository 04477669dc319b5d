//! Activation functions, which some operators compute in the same pass as their result.

/// The activations that layers name: y = f(x), element by element; softmax along the last axis. Formulas and
/// gradients: [`crate::ops::activation`]. (`leaky_relu`, which has a parameter, is an operator alone.)
///
/// `kernels/common.cuh` numbers the first five in this order: do not reorder.
///
/// ```
/// use atrous::Activation;
///
/// assert_eq!(Activation::default(), Activation::Linear);
/// assert_eq!(Activation::Softmax.name(), "softmax");
/// assert!(Activation::Relu6.is_fusable() && !Activation::Sigmoid.is_fusable());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x (PyTorch's `Identity`)
    #[default]
    Linear,
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// eˣ / Σ eˣ
    Softmax,
}

impl Activation {
    /// Its name in Keras.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Linear => "linear",
            Activation::Relu => "relu",
            Activation::Relu6 => "relu6",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::Softmax => "softmax",
        }
    }

    /// Whether a convolution or a batch norm computes it in the same pass as its own result: a comparison
    /// or two, which such a pass has time for while it waits for memory.
    pub fn is_fusable(self) -> bool {
        matches!(self, Activation::Linear | Activation::Relu | Activation::Relu6)
    }

    /// (What kernels compute in the same pass as their result, what is left for a pass of its own): one of
    /// the two is [`Activation::Linear`].
    pub(crate) fn split(self) -> (Self, Self) {
        if self.is_fusable() { (self, Activation::Linear) } else { (Activation::Linear, self) }
    }
}
