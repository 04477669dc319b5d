//! An operator on shapes of one's own: `atrous bench ops conv2d --shape 16x56x56x64 --filters 128`.

use super::Op;
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::ops::conv2d::Conv2dGeometry;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::ops::{
    Conv2dOptions, Padding, PoolOptions, average_pool2d, batch_norm_train, conv2d, dense,
    depthwise_conv2d, max_pool2d, relu, softmax,
};
use crate::tensor::Shape;
use crate::{Activation, ops};

/// The operators that take shapes of one's own, as `ops` calls them.
///
/// ```
/// use atrous::bench::{CustomShape, OPERATORS};
///
/// let images = CustomShape { input: vec![1, 8, 8, 4], ..CustomShape::default() };
/// let take_images = OPERATORS.iter().filter(|operator| images.op(operator).is_ok()).count();
/// assert_eq!(take_images, OPERATORS.len() - 1); // all but `dense`, which takes rows
/// ```
pub const OPERATORS: [&str; 9] = [
    "conv2d",
    "depthwise_conv2d",
    "dense",
    "max_pool2d",
    "average_pool2d",
    "batch_norm",
    "relu",
    "add",
    "softmax",
];

/// What an operator is to be timed on. What it does not take is None.
///
/// ```
/// use atrous::bench::{CustomShape, parse_shape};
///
/// let shape = CustomShape {
///     input: parse_shape("16x56x56x64")?,
///     kernel: Some(3),
///     stride: Some(2),
///     ..CustomShape::default()
/// };
/// assert_eq!(shape.op("conv2d")?.name(), "conv2d/16x56x56x64_f64_k3_s2");
/// assert!(shape.op("dense").is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomShape {
    /// Of the input: `[N, H, W, C]` for images, `[N, I]` for `dense`.
    pub input: Vec<usize>,
    /// Filters of a convolution, units of a dense layer [as many as there are channels].
    pub filters: Option<usize>,
    /// Side of a convolution's kernel `[3]`, or of a pool's window `[2]`.
    pub kernel: Option<usize>,
    /// Cells from window to window [1; of a pool the window's side].
    pub stride: Option<usize>,
    /// Cells from tap to tap of a convolution `[1]`.
    pub dilation: Option<usize>,
    /// No cells of padding (`valid`), rather than as many as keep the size (`same`).
    pub valid: bool,
}

/// Reads `16x56x56x64` (or with ×): one to four lengths above 0.
///
/// ```
/// use atrous::bench::parse_shape;
///
/// assert_eq!(parse_shape("16x56x56x64")?, parse_shape("16×56×56×64")?);
/// assert!(parse_shape("16x0x56x64").is_err() && parse_shape("16, 56").is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn parse_shape(text: &str) -> Result<Vec<usize>> {
    let wrong = |why: &str| {
        Error::argument("--shape", format!("expected lengths like 16x56x56x64, got `{text}`{why}"))
    };
    let lengths: Option<Vec<usize>> = text.split(['x', '×']).map(|length| length.parse().ok()).collect();
    match lengths {
        None => Err(wrong("")),
        Some(lengths) if lengths.contains(&0) => Err(wrong(": a length is 0")),
        Some(lengths) => match Shape::checked(&lengths) {
            Ok(_) => Ok(lengths),
            Err(error) => Err(wrong(&format!(": {error}"))),
        },
    }
}

impl CustomShape {
    /// The operator on it, for [`Op::measure`]. An error where the operator is none of [`OPERATORS`], where
    /// it takes another number of axes or has no such option, and where windows do not fit.
    pub fn op(&self, operator: &str) -> Result<Op> {
        let case = match operator {
            "conv2d" => self.conv2d(),
            "depthwise_conv2d" => self.depthwise_conv2d(),
            "dense" => self.dense(),
            "max_pool2d" => self.pool("max_pool2d", max_pool2d),
            "average_pool2d" => self.pool("average_pool2d", average_pool2d),
            "batch_norm" => self.batch_norm(),
            "relu" => self.pass("relu", 1, |t| relu(&t[0])),
            "add" => self.pass("add", 2, |t| ops::add(&t[0], &t[1])),
            "softmax" => self.pass("softmax", 1, |t| softmax(&t[0])),
            other => Err(Error::unknown("--shape", other, &OPERATORS)),
        };
        case.map(|case| Op::Case(Box::new(case)))
    }

    fn conv2d(&self) -> Result<Case> {
        let [_, _, _, c] = self.axes("conv2d", "[N, H, W, C]")?;
        let (kernel, filters, options) =
            (self.kernel.unwrap_or(3), self.filters.unwrap_or(c), self.windows());
        let [x, w] = [&self.input[..], &[kernel, kernel, c, filters]].map(Shape::checked);
        let (x, w) = (x?, w?);
        let flops = Conv2dGeometry::new(x, w, options)?.flops();
        let inputs = vec![Input::new("x", x), Input::new("w", w), Input::new("b", [filters])];
        let name = format!("{}_f{filters}{}", self.sides(), self.suffix(kernel, 1));
        let run = move |t: &[crate::Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), options);
        Ok(Case::new("conv2d", name, Size::Real, inputs, run).flops(flops))
    }

    fn depthwise_conv2d(&self) -> Result<Case> {
        self.refuse("depthwise_conv2d", &[("--filters", self.filters)])?;
        let [_, _, _, c] = self.axes("depthwise_conv2d", "[N, H, W, C]")?;
        let (kernel, options) = (self.kernel.unwrap_or(3), self.windows());
        let [x, w] = [&self.input[..], &[kernel, kernel, c, 1]].map(Shape::checked);
        let (x, w) = (x?, w?);
        let flops = DepthwiseGeometry::new(x, w, options)?.flops();
        let inputs = vec![Input::new("x", x), Input::new("w", w), Input::new("b", [c])];
        let name = self.sides() + &self.suffix(kernel, 1);
        let run = move |t: &[crate::Tensor]| depthwise_conv2d(&t[0], &t[1], Some(&t[2]), options);
        Ok(Case::new("depthwise_conv2d", name, Size::Real, inputs, run).flops(flops))
    }

    fn dense(&self) -> Result<Case> {
        let windows =
            [("--kernel", self.kernel), ("--stride", self.stride), ("--dilation", self.dilation)];
        self.refuse("dense", &windows)?;
        let [n, i] = self.axes("dense", "[N, I]")?;
        let units = self.filters.unwrap_or(i);
        let w = Shape::checked(&[i, units])?;
        Shape::checked(&[n, units])?;
        let inputs = vec![Input::new("x", [n, i]), Input::new("w", w), Input::new("b", [units])];
        let name = format!("{}_f{units}", self.sides());
        let flops = 2.0 * n as f64 * w.elements() as f64;
        let run = |t: &[crate::Tensor]| dense(&t[0], &t[1], Some(&t[2]));
        Ok(Case::new("dense", name, Size::Real, inputs, run).flops(flops))
    }

    fn pool(
        &self,
        operator: &'static str,
        pool: fn(&crate::Tensor, PoolOptions) -> Result<crate::Tensor>,
    ) -> Result<Case> {
        self.refuse(operator, &[("--filters", self.filters), ("--dilation", self.dilation)])?;
        let [_, h, w, _] = self.axes(operator, "[N, H, W, C]")?;
        let side = self.kernel.unwrap_or(2);
        let stride = self.stride.unwrap_or(side);
        let options = PoolOptions::new(side).stride(stride).padding(self.padding());
        [h, w].into_iter().try_for_each(|n| options.padding.resolve(n, side, stride).map(drop))?;
        let inputs = vec![Input::new("x", &self.input)];
        let name = self.sides() + &self.suffix(side, side);
        Ok(Case::new(operator, name, Size::Real, inputs, move |t| pool(&t[0], options)))
    }

    fn batch_norm(&self) -> Result<Case> {
        self.refuse_all("batch_norm")?;
        let c = self.input.last().copied().unwrap_or(1);
        let inputs =
            vec![Input::new("x", &self.input), Input::new("gamma", [c]), Input::new("beta", [c])];
        Ok(Case::new("batch_norm", format!("train_{}", self.sides()), Size::Real, inputs, |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, Activation::Linear)?.y)
        }))
    }

    /// An operator that goes once over its inputs, all of one shape.
    fn pass(
        &self,
        operator: &'static str,
        inputs: usize,
        run: fn(&[crate::Tensor]) -> Result<crate::Tensor>,
    ) -> Result<Case> {
        self.refuse_all(operator)?;
        let inputs = ["a", "b"][..inputs].iter().map(|&name| Input::new(name, &self.input)).collect();
        Ok(Case::new(operator, self.sides(), Size::Real, inputs, run))
    }

    fn axes<const N: usize>(&self, operator: &'static str, expected: &str) -> Result<[usize; N]> {
        let axes = self.input.as_slice().try_into();
        axes.map_err(|_| Error::shape(operator, format!("--shape {expected}"), self.sides()))
    }

    fn refuse(&self, operator: &'static str, options: &[(&str, Option<usize>)]) -> Result<()> {
        match options.iter().find(|(_, value)| value.is_some()) {
            Some((option, _)) => Err(Error::argument(operator, format!("it has no {option}"))),
            None => Ok(()),
        }
    }

    fn refuse_all(&self, operator: &'static str) -> Result<()> {
        let CustomShape { filters, kernel, stride, dilation, .. } = *self;
        let options = [
            ("--filters", filters),
            ("--kernel", kernel),
            ("--stride", stride),
            ("--dilation", dilation),
        ];
        self.refuse(operator, &options)
    }

    fn windows(&self) -> Conv2dOptions {
        let (stride, dilation) = (self.stride.unwrap_or(1), self.dilation.unwrap_or(1));
        Conv2dOptions::default().stride(stride).dilation(dilation).padding(self.padding())
    }

    fn padding(&self) -> Padding {
        if self.valid { Padding::Valid } else { Padding::Same }
    }

    /// 16x56x56x64
    fn sides(&self) -> String {
        self.input.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
    }

    /// _k3_s1_d1, and _valid where it is
    fn suffix(&self, kernel: usize, stride: usize) -> String {
        let stride = self.stride.unwrap_or(stride);
        let dilation = self.dilation.map_or(String::new(), |dilation| format!("_d{dilation}"));
        format!("_k{kernel}_s{stride}{dilation}{}", if self.valid { "_valid" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> CustomShape {
        CustomShape { input: parse_shape(text).unwrap(), ..CustomShape::default() }
    }

    #[test]
    fn lengths_are_read_and_what_is_no_shape_is_refused_with_an_example() {
        assert_eq!(parse_shape("16x56x56x64").unwrap(), [16, 56, 56, 64]);
        assert_eq!(parse_shape("3×5").unwrap(), [3, 5]);
        for wrong in
            ["", "16x", "x3", "a", "1x2x3x4x5", "0x3", "-1", "3 x 4", "1e3", "99999999999x99999999999"]
        {
            let error = parse_shape(wrong).unwrap_err().to_string();
            assert!(error.starts_with("--shape: expected lengths like 16x56x56x64, got `"), "{error}");
        }
    }

    #[test]
    fn every_operator_runs_forward_and_backward_on_a_shape_of_one_s_own() {
        for operator in OPERATORS {
            let own = shape(if operator == "dense" { "3x8" } else { "2x6x6x8" });
            let Op::Case(case) = own.op(operator).unwrap() else { panic!("{operator}") };
            let (output, gradients) = case.forward_backward(crate::DType::F32).unwrap();
            assert!(
                output.shape().elements() > 0 && gradients.iter().all(Option::is_some),
                "{operator}"
            );
        }
    }

    #[test]
    fn a_case_counts_the_operations_of_its_shapes_and_is_called_by_them() {
        let own = CustomShape { filters: Some(4), stride: Some(2), ..shape("2x6x6x8") };
        let Op::Case(case) = own.op("conv2d").unwrap() else { panic!() };
        assert_eq!(case.flops, 2.0 * (2 * 3 * 3 * 4) as f64 * (3 * 3 * 8) as f64);
        assert_eq!(case.full_name(), "conv2d/2x6x6x8_f4_k3_s2");
        let own = CustomShape { dilation: Some(2), valid: true, ..shape("2x6x6x8") };
        assert_eq!(
            own.op("depthwise_conv2d").unwrap().name(),
            "depthwise_conv2d/2x6x6x8_k3_s1_d2_valid"
        );
    }

    #[test]
    fn what_an_operator_does_not_take_is_an_error_that_names_it() {
        let error = |own: &CustomShape, operator| own.op(operator).err().unwrap().to_string();
        let plain = shape("2x6x6x8");
        assert!(error(&plain, "conv3d").contains("`conv3d` is none of `conv2d`, "));
        assert_eq!(error(&plain, "dense"), "dense: expected --shape [N, I], got 2x6x6x8");
        assert_eq!(error(&shape("3x8"), "conv2d"), "conv2d: expected --shape [N, H, W, C], got 3x8");
        let filters = CustomShape { filters: Some(4), ..plain.clone() };
        assert_eq!(error(&filters, "relu"), "relu: it has no --filters");
        let large = CustomShape { kernel: Some(9), valid: true, ..plain };
        assert!(large.op("conv2d").is_err() && large.op("max_pool2d").is_err());
    }
}
