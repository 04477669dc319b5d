//! A deep-learning engine written from scratch, small enough to be read: tensors, automatic differentiation,
//! the operators of convolutional networks with their kernels (the routines that compute them) for
//! CPUs and NVIDIA GPUs, and a pipeline from
//! images to a submission file (classes and masks of PASCAL VOC's 20 classes, scored by Dice).
//!
//! Four steps lead from an array to a network that learns. Each block runs as it stands; `examples/` has
//! longer ones, numbered.
//!
//! # 1. Tensors
//!
//! A [`Tensor`] is a [`Shape`] of at most four axes and shared memory. Operators are methods (and
//! functions, in [`ops`]), and `+ − * /`, which broadcast as NumPy's do; each gives a [`Result`], for shapes
//! may not fit together. One
//! operand may itself be a `Result`, so that a chain needs one `?`, at its end. Where both are, the left one
//! needs a `?` of its own: `((&a * &b)? + &c * &d)?`.
//!
//! ```
//! use atrous::prelude::*;
//!
//! let a = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
//! let y = (2.0 * &a + Tensor::ones([2]))?.relu()?;
//! assert_eq!(y.to_string(), "[[3. 5.]\n [7. 9.]]");
//!
//! let image = Tensor::rand([1, 8, 8, 3], 7); // sample, row, column, channel
//! let kernel = Tensor::randn([3, 3, 3, 16], 8); // a convolution's weights: row, column, channel in, channel out
//! // No bias; stride 1, and zeros around the image so that its size stays ("same" padding).
//! let features = image.conv2d(&kernel, None, Conv2dOptions::default().same())?;
//! assert_eq!(features.shape()[..], [1, 8, 8, 16]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # 2. Gradients
//!
//! A [`Tensor::leaf`] (PyTorch's `x.detach().requires_grad_()`) is what gradients are computed with respect
//! to; [`Tensor::backward`] computes them ([`autograd`]). A differentiable operator of one's own is an
//! [`autograd::Function`].
//!
//! ```
//! # use atrous::prelude::*;
//! let x = Tensor::from([2.0f32, 3.0]).leaf();
//! let loss = (&x * &x)?.sum()?;
//! let gradients = loss.backward()?;
//! assert_eq!(gradients.get(&x).unwrap().to_string(), "[4. 6.]");
//! # Ok::<(), Error>(())
//! ```
//!
//! # 3. Networks
//!
//! A network may be any function of tensors. As a [`nn::Graph`] of named layers it knows its
//! parameters, can be summed up, saved, given Keras' or PyTorch's weights, and rewritten into a faster one
//! ([`nn`]); [`models`] has well-known ones.
//!
//! ```
//! # use atrous::prelude::*;
//! let mut graph = Graph::new("small", "input", [8, 8, 3]);
//! let features = Layer::conv2d(4, 3).with_activation(Activation::Relu); // 4 channels, 3×3
//! graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
//! let model = Model::new(graph, 1); // initial weights from seed 1
//! let forward = model.run(&Tensor::rand([5, 8, 8, 3], 7), Mode::infer())?; // a `ForwardOutput`
//! assert_eq!(forward.output.shape()[..], [5, 2]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # 4. Training
//!
//! An [`optimizers::Optimizer`] moves leaves by gradients. This is all of a training loop; `train` has one
//! with batches, schedules, checkpoints and resumption, and the command `atrous` runs it.
//!
//! ```
//! # use atrous::prelude::*;
//! let x = Tensor::from([[0.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
//! let y = Tensor::from([[0.0f32], [1.0], [1.0], [1.0]]); // x₁ or x₂
//! let mut parameters = [Tensor::zeros([2, 1]).leaf(), Tensor::zeros([1]).leaf()];
//! let mut adam = Optimizer::adam(0.1)?;
//! for _ in 0..100 {
//!     let loss = x.dense(&parameters[0], &parameters[1])?.binary_cross_entropy_with_logits(&y)?;
//!     adam.step(&mut parameters, &loss.backward()?)?;
//! }
//! let logits = x.dense(&parameters[0], &parameters[1])?.to_vec_f64();
//! assert!(logits[0] < 0.0 && logits[1..].iter().all(|&logit| logit > 0.0));
//! # Ok::<(), Error>(())
//! ```
//!
//! # To read it
//!
//! In this order: [`pool`] (buffers, which are reused; what a fresh one holds is unspecified), [`context`]
//! (what operators go by: recorded for gradients ("on the tape") or not, instructions, precision),
//! [`tensor`] (a shape and shared memory), [`autograd`] (the tape), [`ops`] (one module an operator:
//! formula, reference, which is the plain loops that the kernel is tested against, fast kernel, gradient,
//! cases, which are the inputs it is tested on), [`backend`] (what the kernels share), [`nn`] and [`models`]
//! (networks as named layers), [`losses`], [`optimizers`], [`data`], `train` (feature `checkpoint`),
//! `weights` (feature `weights`), [`predict`], [`eval`], [`attack`], `explain` (feature `report`). The rest
//! serves these: [`error`], [`device`], [`duration`], [`activation`], [`random`], [`files`], test inputs in [`cases`];
//! `bench`, `profile` and `report` measure and draw, and [`ladder`] has each kernel's simpler forms, from
//! three loops on. ([`context`] and [`autograd`] borrow a few names from [`backend`]: `Isa`, which vector
//! instructions run, `simd::default`, those that run where none are asked for, `threads::enter`, which runs
//! a closure on rayon's threads, `accumulate`, the sum of two gradients, and the methods `ones_like`,
//! `to_dense` and `into_dense`; take them at their word the first time.)
//!
//! # Features
//!
//! `cli` (the default): the command, and all below but `emulator`. `cuda`: NVIDIA GPUs. `emulator`: the CUDA
//! kernels run on the CPU, for tests. `weights`: files of pre-trained weights. `checkpoint` (with
//! `weights`): training runs that are saved and resumed. `pictures`: image files. `report` (with
//! `pictures`): curves, panels, pages. Without any, the bare engine stands on four crates.

pub mod activation;
pub mod attack;
pub mod autograd;
pub mod backend;
#[cfg(feature = "checkpoint")]
pub mod bench;
pub mod cases;
pub mod context;
pub mod data;
pub mod device;
pub mod duration;
pub mod error;
pub mod eval;
#[cfg(feature = "report")]
pub mod explain;
pub mod files;
pub mod ladder;
#[cfg(feature = "live")]
pub mod live;
pub mod losses;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optimizers;
pub mod pool;
pub mod predict;
pub mod prelude;
#[cfg(all(feature = "checkpoint", feature = "report"))]
pub mod profile;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
#[cfg_attr(not(all(feature = "checkpoint", feature = "report")), allow(dead_code))] // `profile` records.
mod spans;
pub mod tensor;
#[cfg(feature = "checkpoint")]
pub mod train;
#[cfg(feature = "weights")]
pub mod weights;

pub use activation::Activation;
pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor};

/// The book's programs compile and run, page by page.
#[cfg(doctest)]
mod book {
    macro_rules! pages {
        ($($name:ident: $page:literal)*) => {
            $(#[doc = include_str!(concat!("../docs/", $page))] struct $name;)*
        };
    }

    pages! {
        Core: "01-the-core.md"
        Tensor: "02-a-tensor.md"
        Autograd: "03-autograd.md"
        Convolution: "04-convolution-three-ways.md"
        Gradients: "05-the-gradient-of-everything.md"
        BatchNorm: "06-batch-norm-twice.md"
        Depthwise: "07-depthwise-and-atrous.md"
        Memory: "08-memory-and-the-cpu-ladder.md"
        Winograd: "09-winograd.md"
        Graphs: "10-graphs-and-fusion.md"
        Data: "11-data.md"
        Training: "12-training.md"
        Networks: "13-the-networks.md"
        Masks: "14-masks.md"
        Scores: "15-scores-and-chance.md"
        Measuring: "19-measuring-honestly.md"
        Operator: "20-adding-an-operator.md"
    }
}
