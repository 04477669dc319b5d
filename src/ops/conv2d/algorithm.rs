//! Which algorithm a pass of a convolution takes on the CPU, and why: the one place that decides. The
//! passes match on the answer ([`super::cpu`]), and `atrous summary --plan` prints it.
//!
//! Of those that fit, the first is taken:
//!
//! | algorithm     | fits                                                | saves                             |
//! |---------------|-----------------------------------------------------|-----------------------------------|
//! | Winograd      | 3×3 and 5×5, stride 1, 16 channels and more         | half the multiplications and more |
//! | direct RGB    | 3 channels, small strides, filters in whole vectors | gathering, which costs most there |
//! | dilated       | taps of which a quarter and more lie in the padding | multiplications by zero           |
//! | 1×1 GEMM      | 1×1, stride 1, no padding                           | gathering: x is the matrix        |
//! | implicit GEMM | all                                                 | the matrix of all windows         |
//!
//! What is chosen depends on the geometry and on how many lanes a vector has, never on the number of
//! threads: a result has the same bits on any of them.

use super::dilated::{Sparse, transposed};
use super::{Conv2dGeometry, input_grad_rgb, rgb_conv};
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::winograd;
use std::fmt;

/// One of the three products that a convolution and its gradients are.
///
/// ```
/// use atrous::ops::conv2d::Pass;
///
/// assert_eq!(Pass::ALL.map(|pass| pass.to_string()), ["forward", "dgrad", "wgrad"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// y = x * w
    Forward,
    /// ∂x, the data gradient: "dgrad".
    InputGrad,
    /// ∂w, the weight gradient: "wgrad".
    KernelGrad,
}

impl Pass {
    /// Each once, the forward pass first.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::InputGrad, Pass::KernelGrad];
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pass::Forward => "forward",
            Pass::InputGrad => "dgrad",
            Pass::KernelGrad => "wgrad",
        })
    }
}

/// How a pass is computed.
///
/// ```
/// use atrous::ops::conv2d::Algorithm;
///
/// assert_eq!(Algorithm::PointwiseGemm.to_string(), "1×1 GEMM"); // as tables of plans name it
/// assert_eq!(Algorithm::ALL[0], Algorithm::Winograd { tile: 2 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Winograd's minimal filtering in tiles of `tile`² outputs, 2 or 4 (`crate::backend::cpu::winograd`).
    Winograd {
        /// Outputs along each side: 4 saves more multiplications than 2, and rounds more.
        tile: usize,
    },
    /// A network's first layer: windows of three channels are read where they lie (`super::rgb_conv`,
    /// `super::input_grad_rgb`).
    DirectRgb,
    /// Tap by tap, each only where it sees pixels (`super::dilated`).
    Dilated,
    /// A 1×1 convolution: x is the left factor of a matrix product as it lies.
    PointwiseGemm,
    /// A matrix product whose left factor is gathered a block at a time (`crate::backend::cpu::gemm`).
    ImplicitGemm,
}

impl Algorithm {
    /// Each once, Winograd with either tile: the order they are tried in.
    pub const ALL: [Algorithm; 6] = [
        Algorithm::Winograd { tile: 2 },
        Algorithm::Winograd { tile: 4 },
        Algorithm::DirectRgb,
        Algorithm::Dilated,
        Algorithm::PointwiseGemm,
        Algorithm::ImplicitGemm,
    ];
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Algorithm::Winograd { tile: 2 } => "Winograd F(2×2, 3×3)",
            Algorithm::Winograd { .. } => "Winograd F(4×4, 3×3)",
            Algorithm::DirectRgb => "direct RGB",
            Algorithm::Dilated => "dilated",
            Algorithm::PointwiseGemm => "1×1 GEMM",
            Algorithm::ImplicitGemm => "implicit GEMM",
        })
    }
}

/// What is chosen, and a sentence that says why.
///
/// [`choose`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<A = Algorithm> {
    /// Which one computes the pass.
    pub algorithm: A,
    /// A sentence for readers, with the sizes that decided.
    pub reason: String,
}

/// The algorithm of a pass and the reason for it. `fast_math`: whether the forward pass may round more
/// ([`crate::context::fast_math()`]).
///
/// ```
/// use atrous::backend::cpu::simd::Isa;
/// use atrous::ops::Conv2dOptions;
/// use atrous::ops::conv2d::{Algorithm, Conv2dGeometry, Pass, choose};
///
/// let of = |kernel: [usize; 4], options| {
///     let g = Conv2dGeometry::new([1, 28, 28, 256].into(), kernel.into(), options)?;
///     Ok::<_, atrous::Error>(choose(Pass::Forward, Isa::Portable, &g, false))
/// };
/// let options = Conv2dOptions::default();
/// assert_eq!(of([3, 3, 256, 256], options.same())?.algorithm, Algorithm::Winograd { tile: 2 });
/// assert_eq!(of([3, 3, 256, 256], options.same().stride(2))?.algorithm, Algorithm::ImplicitGemm);
/// let pointwise = of([1, 1, 256, 64], options)?;
/// assert_eq!(pointwise.reason, "1×1, stride 1: a matrix product, nothing to gather");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn choose(pass: Pass, isa: Isa, g: &Conv2dGeometry, fast_math: bool) -> Choice {
    let algorithm = algorithm(pass, isa, g, fast_math);
    Choice { algorithm, reason: reason(pass, g, algorithm) }
}

/// [`choose`] for those who compute: without the sentence.
pub(super) fn algorithm(pass: Pass, isa: Isa, g: &Conv2dGeometry, fast_math: bool) -> Algorithm {
    if winograd_pays(g) {
        return Algorithm::Winograd { tile: winograd_geometry(pass, g, fast_math).tile };
    }
    let direct = match pass {
        Pass::Forward | Pass::KernelGrad => rgb_conv::fits(isa, g),
        Pass::InputGrad => input_grad_rgb::fits(isa, g),
    };
    if direct {
        return Algorithm::DirectRgb;
    }
    let dilated = match pass {
        Pass::Forward | Pass::KernelGrad => Sparse::pays(g),
        Pass::InputGrad => Sparse::pays(&transposed(g)),
    };
    if dilated {
        return Algorithm::Dilated;
    }
    match is_pointwise(g) {
        true => Algorithm::PointwiseGemm,
        false => Algorithm::ImplicitGemm,
    }
}

/// Fewer channels make products too small to pay for the transforms.
const WINOGRAD_CHANNELS: usize = 16;
/// Smaller outputs are mostly edge.
const WINOGRAD_SIDE: usize = 4;

/// Whether Winograd's method fits and is faster.
fn winograd_pays(g: &Conv2dGeometry) -> bool {
    let fits = matches!(g.kernel, [3, 3] | [5, 5]) && g.stride == [1, 1] && g.dilation == [1, 1];
    let pays = g.in_channels.min(g.out_channels) >= WINOGRAD_CHANNELS
        && g.output.iter().all(|&side| side >= WINOGRAD_SIDE);
    fits && pays && g.pad.iter().all(|&pad| pad < g.kernel[0])
}

/// The convolution that a pass is, for Winograd's method; in larger tiles where the user allows them and
/// they pay. (The kernel's gradient has none.)
pub(super) fn winograd_geometry(pass: Pass, g: &Conv2dGeometry, fast_math: bool) -> winograd::Geometry {
    let of_forward = winograd::Geometry {
        batch: g.batch,
        input: g.input,
        channels: g.in_channels,
        output: g.output,
        filters: g.out_channels,
        kernel: g.kernel[0],
        pad: g.pad,
        tile: 2,
    };
    let of_pass = match pass {
        Pass::Forward | Pass::KernelGrad => of_forward,
        Pass::InputGrad => of_forward.transposed(),
    };
    match fast_math && pass != Pass::KernelGrad {
        true => of_pass.with_large_tiles(),
        false => of_pass,
    }
}

/// A 1×1 convolution that reads every pixel once: a plain matrix product.
pub(crate) fn is_pointwise(g: &Conv2dGeometry) -> bool {
    g.kernel == [1, 1] && g.stride == [1, 1] && g.pad == [0, 0]
}

fn reason(pass: Pass, g: &Conv2dGeometry, algorithm: Algorithm) -> String {
    let [c, f] = [g.in_channels, g.out_channels];
    let kernel = sides(g.kernel);
    match algorithm {
        Algorithm::Winograd { tile } => {
            let [products, taps] = match (g.kernel[0], tile) {
                (3, 2) => [16, 4 * 9],
                (3, _) => [36, 16 * 9],
                _ => [49, 4 * 25],
            };
            let why = if tile == 4 { ", as fast math allows" } else { "" };
            format!("{kernel}, stride 1: {products} multiplications a tile for {taps}{why}")
        }
        Algorithm::DirectRgb => match pass {
            Pass::Forward => {
                format!(
                    "3 channels: a window's rows of {} floats are read where they lie",
                    3 * g.kernel[1]
                )
            }
            Pass::InputGrad => {
                "3 channels: vectors run along rows of pixels, 3 columns would not fill one".into()
            }
            Pass::KernelGrad => "3 channels: windows overlap in padded rows, nothing to gather".into(),
        },
        Algorithm::Dilated => {
            let transposed = transposed(g);
            let [seen, all] = Sparse::places(if pass == Pass::InputGrad { &transposed } else { g });
            let percent = 100 * seen / all.max(1);
            format!(
                "dilation {}: taps see pixels in {percent} % of places, else padding",
                pair(g.dilation)
            )
        }
        Algorithm::PointwiseGemm => "1×1, stride 1: a matrix product, nothing to gather".into(),
        Algorithm::ImplicitGemm => {
            let what = misfit(g);
            match (pass, g.stride) {
                (Pass::InputGrad, [1, 1]) => {
                    format!("{what}: {kernel}·{f} = {} gathered a pixel", taps(g) * f)
                }
                (Pass::InputGrad, [y, x]) => {
                    format!("{what}: {} phases, each of the taps that reach its pixels", y * x)
                }
                _ => format!("{what}: {kernel}·{c} = {} gathered a window", taps(g) * c),
            }
        }
    }
}

/// What keeps a convolution from the algorithms before the last.
fn misfit(g: &Conv2dGeometry) -> String {
    let kernel = sides(g.kernel);
    if g.stride != [1, 1] {
        return format!("{kernel}, stride {}", pair(g.stride));
    }
    if g.dilation != [1, 1] {
        return format!("{kernel}, dilation {}", pair(g.dilation));
    }
    if !matches!(g.kernel, [3, 3] | [5, 5]) {
        return format!("{kernel}, which Winograd has no tiles for");
    }
    let channels = g.in_channels.min(g.out_channels);
    match channels < WINOGRAD_CHANNELS {
        true => format!("{kernel}, {channels} channels, under Winograd's {WINOGRAD_CHANNELS}"),
        false => format!("{kernel}, outputs of {}, too small for Winograd", sides(g.output)),
    }
}

fn taps(g: &Conv2dGeometry) -> usize {
    g.kernel[0] * g.kernel[1]
}

fn sides([height, width]: [usize; 2]) -> String {
    format!("{height}×{width}")
}

/// One number where both are the same.
fn pair([y, x]: [usize; 2]) -> String {
    if y == x { y.to_string() } else { sides([y, x]) }
}

#[cfg(test)]
mod tests {
    use super::super::Conv2dOptions;
    use super::super::cases::geometries;
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::ops::Padding;
    use Algorithm::{Dilated, DirectRgb, ImplicitGemm, PointwiseGemm, Winograd};

    fn isas() -> impl Iterator<Item = Isa> {
        supported().into_iter().filter(|&isa| isa != Isa::Reference)
    }

    #[test]
    fn every_algorithm_is_taken_by_some_case_of_each_pass_that_has_it() {
        for isa in isas() {
            for pass in Pass::ALL {
                for algorithm in Algorithm::ALL {
                    // ∂w stays with small tiles: its sums over tiles are long.
                    if (pass, algorithm) == (Pass::KernelGrad, Winograd { tile: 4 }) {
                        continue;
                    }
                    let taken = |fast| {
                        geometries().iter().any(|g| choose(pass, isa, g, fast).algorithm == algorithm)
                    };
                    assert!(taken(false) || taken(true), "{isa:?} {pass}: {algorithm}");
                }
            }
        }
    }

    #[test]
    fn a_geometry_takes_the_first_algorithm_that_fits_it() {
        const F2: Algorithm = Winograd { tile: 2 };
        /// x, [kh, kw, F], stride, dilation; what y, ∂x and ∂w are computed by.
        type Row = ([usize; 4], [usize; 3], usize, usize, [Algorithm; 3]);
        let table: [Row; 16] = [
            ([4, 56, 56, 64], [3, 3, 64], 1, 1, [F2; 3]),
            ([2, 9, 9, 16], [5, 5, 16], 1, 1, [F2; 3]),
            ([4, 56, 56, 15], [3, 3, 64], 1, 1, [ImplicitGemm; 3]),
            ([4, 56, 56, 64], [3, 3, 15], 1, 1, [ImplicitGemm; 3]),
            ([4, 3, 3, 64], [3, 3, 64], 1, 1, [ImplicitGemm; 3]),
            ([4, 56, 56, 64], [3, 3, 64], 2, 1, [ImplicitGemm; 3]),
            ([4, 56, 56, 64], [4, 4, 64], 1, 1, [ImplicitGemm; 3]),
            ([2, 150, 150, 3], [7, 7, 64], 1, 1, [DirectRgb; 3]),
            ([2, 224, 224, 3], [3, 3, 32], 2, 1, [DirectRgb; 3]),
            // No gradient of 1×1 windows along rows; no steps of 3 pixels; no half vectors.
            ([2, 8, 8, 3], [1, 1, 32], 1, 1, [DirectRgb, PointwiseGemm, DirectRgb]),
            ([2, 8, 8, 3], [3, 3, 32], 3, 1, [ImplicitGemm; 3]),
            ([2, 8, 8, 3], [3, 3, 33], 1, 1, [ImplicitGemm; 3]),
            ([4, 14, 14, 512], [3, 3, 256], 1, 6, [Dilated; 3]),
            // Few filters are few channels of the way back.
            ([4, 14, 14, 512], [3, 3, 8], 1, 6, [Dilated, ImplicitGemm, Dilated]),
            ([4, 64, 64, 32], [3, 3, 32], 1, 2, [ImplicitGemm; 3]),
            ([4, 56, 56, 64], [1, 1, 128], 1, 1, [PointwiseGemm; 3]),
        ];
        for isa in isas() {
            for (x, kernel, stride, dilation, expected) in table {
                let [kh, kw, f] = kernel;
                let options = Conv2dOptions {
                    stride: [stride; 2],
                    padding: Padding::Same,
                    dilation: [dilation; 2],
                };
                let g = Conv2dGeometry::new(x.into(), [kh, kw, x[3], f].into(), options).unwrap();
                let taken = Pass::ALL.map(|pass| choose(pass, isa, &g, false).algorithm);
                assert_eq!(taken, expected, "{isa:?} {x:?} {kernel:?} {stride} {dilation}");
            }
        }
    }

    #[test]
    fn fast_math_takes_larger_tiles_where_there_are_enough_and_never_for_the_kernels_gradient() {
        let tiles = |side: usize, channels: usize| {
            let options = Conv2dOptions { padding: Padding::Same, ..Default::default() };
            let (x, kernel) = ([4, side, side, channels], [3, 3, channels, channels]);
            let g = Conv2dGeometry::new(x.into(), kernel.into(), options).unwrap();
            Pass::ALL.map(|pass| match choose(pass, Isa::Portable, &g, true).algorithm {
                Winograd { tile } => tile,
                other => panic!("{other}"),
            })
        };
        assert_eq!(tiles(56, 64), [4, 4, 2]);
        assert_eq!(tiles(14, 64), [2, 2, 2]);
        assert_eq!(tiles(16, 512), [2, 2, 2]);
    }

    #[test]
    fn a_reason_is_one_short_sentence_with_the_numbers_it_rests_on() {
        let options = |stride, dilation| Conv2dOptions {
            stride: [stride; 2],
            padding: Padding::Same,
            dilation: [dilation; 2],
        };
        let reasons = |x: [usize; 4], [k, f]: [usize; 2], stride, dilation| {
            let g = Conv2dGeometry::new(x.into(), [k, k, x[3], f].into(), options(stride, dilation));
            Pass::ALL.map(|pass| choose(pass, Isa::Portable, g.as_ref().unwrap(), false).reason)
        };
        let [forward, ..] = reasons([1, 8, 8, 16], [3, 16], 1, 1);
        assert_eq!(forward, "3×3, stride 1: 16 multiplications a tile for 36");
        let [forward, dgrad, _] = reasons([1, 8, 8, 16], [3, 32], 2, 1);
        assert_eq!(forward, "3×3, stride 2: 3×3·16 = 144 gathered a window");
        assert_eq!(dgrad, "3×3, stride 2: 4 phases, each of the taps that reach its pixels");
        let [_, dgrad, wgrad] = reasons([1, 8, 8, 8], [3, 32], 1, 1);
        assert_eq!(dgrad, "3×3, 8 channels, under Winograd's 16: 3×3·32 = 288 gathered a pixel");
        assert_eq!(wgrad, "3×3, 8 channels, under Winograd's 16: 3×3·8 = 72 gathered a window");
        let [forward, ..] = reasons([1, 14, 14, 16], [3, 16], 1, 18);
        assert_eq!(forward, "dilation 18: taps see pixels in 11 % of places, else padding");
        for g in geometries() {
            for pass in Pass::ALL {
                let Choice { reason, .. } = choose(pass, Isa::Portable, &g, true);
                assert!(!reason.is_empty() && reason.chars().count() <= 90, "{reason}");
            }
        }
    }
}
