use super::{Conv2dGeometry, Conv2dOptions, Convolution, conv2d_fused};
use crate::activation::Activation;
use crate::cases::{Case, Input, Size};
use crate::ops::Padding::{self, Cells, Same, Valid};

struct Layer {
    name: &'static str,
    x: [usize; 4],
    /// [kh, kw, F]
    kernel: [usize; 3],
    stride: [usize; 2],
    padding: Padding,
    dilation: [usize; 2],
    bias: bool,
    activation: Activation,
}

fn layer(
    name: &'static str,
    x: [usize; 4],
    kernel: [usize; 3],
    stride: usize,
    padding: Padding,
) -> Layer {
    Layer {
        name,
        x,
        kernel,
        stride: [stride; 2],
        padding,
        dilation: [1, 1],
        bias: true,
        activation: Activation::Linear,
    }
}

impl Layer {
    fn dilated(mut self, dilation: usize) -> Self {
        self.dilation = [dilation; 2];
        self
    }

    fn then(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }

    fn options(&self) -> Conv2dOptions {
        let Layer { stride, padding, dilation, .. } = *self;
        Conv2dOptions { stride, padding, dilation }
    }

    /// [kh, kw, C, F]
    fn kernel(&self) -> [usize; 4] {
        let [kh, kw, f] = self.kernel;
        [kh, kw, self.x[3], f]
    }

    fn geometry(&self) -> Conv2dGeometry {
        Conv2dGeometry::new(self.x.into(), self.kernel().into(), self.options()).expect("a valid case")
    }

    fn case(self, size: Size) -> Case {
        let (options, activation, g) = (self.options(), self.activation, self.geometry());
        let mut inputs = vec![Input::new("x", self.x), Input::new("w", self.kernel())];
        if self.bias {
            inputs.push(Input::new("b", [g.out_channels]));
        }
        Case::new("conv2d", self.name, size, inputs, move |t| {
            let convolution = Convolution::new(&t[1], t.get(2), options);
            Ok(conv2d_fused(&t[0], convolution, activation.into())?.y)
        })
        .flops(g.flops())
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let tiny = tiny().into_iter().map(|layer| layer.case(Size::Tiny));
    let real = real().into_iter().map(|(layer, [op, shape])| {
        let mut case = layer.case(Size::Real).peer(op, shape);
        case.inputs[0].differentiable = !op.ends_with("no_input_grad");
        case
    });
    tiny.chain(real).collect()
}

/// What the cases convolve.
#[cfg(test)]
pub(super) fn geometries() -> Vec<Conv2dGeometry> {
    let real = real().into_iter().map(|(layer, _)| layer);
    tiny().into_iter().chain(real).map(|layer| layer.geometry()).collect()
}

fn tiny() -> Vec<Layer> {
    vec![
        layer("3x3_valid", [2, 9, 8, 3], [3, 3, 5], 1, Valid),
        layer("3x3_same", [2, 7, 9, 3], [3, 3, 4], 1, Same),
        layer("3x3_same_wide", [1, 6, 5, 33], [3, 3, 37], 1, Same),
        layer("3x3_relu", [2, 5, 6, 7], [3, 3, 9], 1, Same).then(Activation::Relu),
        layer("3x3_relu6", [1, 6, 5, 65], [3, 3, 20], 1, Same).then(Activation::Relu6),
        layer("3x3_few_relu", [2, 5, 6, 3], [3, 3, 8], 2, Same).then(Activation::Relu),
        layer("3x3_s2_same_even", [1, 8, 10, 3], [3, 3, 4], 2, Same),
        layer("3x3_s2_same_odd", [2, 7, 9, 5], [3, 3, 4], 2, Same),
        layer("3x3_padded_1_1", [1, 6, 7, 17], [3, 3, 18], 1, Cells([1, 1])),
        layer("3x3_s2_padded_1_1", [2, 8, 7, 5], [3, 3, 6], 2, Cells([1, 1])),
        layer("7x7_s2_padded_3_3", [1, 12, 13, 3], [7, 7, 16], 2, Cells([3, 3])),
        layer("3x3_padded_2_0", [1, 6, 7, 18], [3, 3, 17], 1, Cells([2, 0])),
        layer("3x3_s3_valid", [1, 11, 10, 4], [3, 3, 6], 3, Valid),
        layer("3x3_s4_leaves_pixels_unread", [1, 12, 13, 3], [3, 3, 4], 4, Valid),
        layer("7x7_s2_valid", [1, 17, 19, 3], [7, 7, 4], 2, Valid),
        layer("7x7_valid", [1, 12, 11, 3], [7, 7, 6], 1, Valid),
        layer("5x5_s2_same", [1, 11, 8, 2], [5, 5, 3], 2, Same),
        layer("2x2_same", [1, 6, 5, 2], [2, 2, 3], 1, Same),
        layer("1x1", [2, 5, 7, 6], [1, 1, 8], 1, Same).without_bias(),
        layer("1x1_s2", [1, 7, 8, 5], [1, 1, 4], 2, Valid),
        layer("1x1_deep", [1, 3, 3, 300], [1, 1, 40], 1, Valid),
        layer("3x1_s1x2", [1, 6, 7, 3], [3, 1, 4], 1, Same),
        layer("3x3_d2_same", [1, 9, 8, 3], [3, 3, 4], 1, Same).dilated(2),
        layer("3x3_d2_valid", [1, 9, 11, 2], [3, 3, 3], 1, Valid).dilated(2),
        layer("3x3_d6_same_14", [2, 14, 14, 17], [3, 3, 5], 1, Same).dilated(6).without_bias(),
        layer("3x3_d12_same_14", [1, 14, 14, 16], [3, 3, 5], 1, Same).dilated(12),
        layer("3x3_d18_same_14", [1, 14, 14, 16], [3, 3, 6], 1, Same).dilated(18).without_bias(),
        layer("3x3_d18_few_channels", [1, 14, 13, 4], [3, 3, 3], 1, Same).dilated(18),
        layer("3x3_d2_s2", [1, 10, 11, 3], [3, 3, 4], 2, Same).dilated(2),
        layer("3x3_d3_s2", [1, 12, 11, 3], [3, 3, 4], 2, Same).dilated(3),
        layer("3x3_d5_s2_sparse", [1, 9, 8, 16], [3, 3, 4], 2, Same).dilated(5),
        // Channels and filters in whole steps of 16, more than a tile of each.
        layer("3x3_d6_whole_steps", [1, 14, 14, 32], [3, 3, 48], 1, Same).dilated(6),
        layer("3x3_s2_whole_steps", [2, 9, 8, 16], [3, 3, 80], 2, Same).without_bias(),
        // First layers: whole vectors of filters, padding, odd sides, one image and several.
        layer("7x7_first_layer_relu", [1, 23, 37, 3], [7, 7, 48], 1, Valid).then(Activation::Relu),
        layer("3x3_s2_first_layer_relu6", [2, 18, 21, 3], [3, 3, 32], 2, Same).then(Activation::Relu6),
        layer("7x7_s2_first_layer_same", [3, 13, 11, 3], [7, 7, 16], 2, Same).without_bias(),
        layer("3x3_first_layer_unread_edge", [1, 16, 9, 3], [3, 3, 16], 2, Valid),
        // For Winograd's method: odd sides, tails of channels, several tasks and blocks of k.
        layer("3x3_odd_sides_relu", [2, 7, 9, 17], [3, 3, 19], 1, Same).then(Activation::Relu),
        layer("3x3_valid_wide_relu6", [1, 12, 11, 45], [3, 3, 33], 1, Valid).then(Activation::Relu6),
        layer("3x3_two_blocks", [1, 6, 5, 270], [3, 3, 40], 1, Same).without_bias(),
        layer("3x3_many_tiles", [3, 23, 37, 16], [3, 3, 16], 1, Same),
        // 5×5 in pieces that share windows.
        layer("5x5_valid_tails_relu", [2, 11, 9, 17], [5, 5, 19], 1, Valid).then(Activation::Relu),
        layer("5x5_same_odd", [1, 9, 12, 40], [5, 5, 35], 1, Same),
        layer("3x3_d4_blocks_of_a_tap", [1, 7, 6, 270], [3, 3, 20], 1, Same).dilated(4),
        layer("many_rows_and_blocks", [1, 31, 23, 19], [4, 4, 35], 1, Valid),
    ]
}

/// With [operator, shape] as the peers' scripts name them; in training a first layer's images have no
/// gradient.
fn real() -> Vec<(Layer, [&'static str; 2])> {
    vec![
        (
            layer("7x7_3_64_150_n16", [16, 150, 150, 3], [7, 7, 64], 1, Valid),
            ["conv7x7_valid_first_layer_no_input_grad", "[16] 3->64 150x150"],
        ),
        (
            layer("7x7_3_64_150_n16_attacked", [16, 150, 150, 3], [7, 7, 64], 1, Valid),
            ["conv7x7_valid_first_layer", "[16] 3->64 150x150"],
        ),
        (
            layer("5x5_64_128_48_n16", [16, 48, 48, 64], [5, 5, 128], 1, Valid),
            ["conv5x5_valid", "[16] 64->128 48x48"],
        ),
        (
            layer("3x3_145_145_12_n16", [16, 12, 12, 145], [3, 3, 145], 1, Valid),
            ["conv3x3_valid", "[16] 145->145 12x12"],
        ),
        (
            layer("3x3_64_64_224_n4", [4, 224, 224, 64], [3, 3, 64], 1, Same),
            ["conv3x3_same", "[4] 64->64 224x224"],
        ),
        (
            layer("3x3_256_256_56_n4", [4, 56, 56, 256], [3, 3, 256], 1, Same),
            ["conv3x3_same", "[4] 256->256 56x56"],
        ),
        (
            layer("3x3_512_512_14_n4", [4, 14, 14, 512], [3, 3, 512], 1, Same),
            ["conv3x3_same", "[4] 512->512 14x14"],
        ),
        (
            layer("3x3_s2_3_32_256_n16", [16, 256, 256, 3], [3, 3, 32], 2, Same),
            ["conv3x3_same_s2_first_layer_no_input_grad", "[16] 3->32 256x256"],
        ),
        (
            layer("3x3_s2_3_32_256_n16_attacked", [16, 256, 256, 3], [3, 3, 32], 2, Same),
            ["conv3x3_same_s2_first_layer", "[16] 3->32 256x256"],
        ),
        (
            layer("1x1_512_512_14_n4", [4, 14, 14, 512], [1, 1, 512], 1, Same),
            ["conv1x1", "[4] 512->512 14x14"],
        ),
        (
            layer("1x1_64_128_56_n4", [4, 56, 56, 64], [1, 1, 128], 1, Same),
            ["conv1x1", "[4] 64->128 56x56"],
        ),
        (
            layer("1x1_24_144_64_n16", [16, 64, 64, 24], [1, 1, 144], 1, Same),
            ["conv1x1", "[16] 24->144 64x64"],
        ),
        (
            layer("1x1_144_24_64_n16", [16, 64, 64, 144], [1, 1, 24], 1, Same),
            ["conv1x1", "[16] 144->24 64x64"],
        ),
        (
            layer("1x1_256_21_224_n4", [4, 224, 224, 256], [1, 1, 21], 1, Same),
            ["conv1x1", "[4] 256->21 224x224"],
        ),
        (
            layer("3x3_d6_512_256_14_n4", [4, 14, 14, 512], [3, 3, 256], 1, Same).dilated(6),
            ["atrous3x3_d6", "[4] 512->256 14x14"],
        ),
        (
            layer("3x3_d12_512_256_14_n4", [4, 14, 14, 512], [3, 3, 256], 1, Same).dilated(12),
            ["atrous3x3_d12", "[4] 512->256 14x14"],
        ),
        (
            layer("3x3_d18_512_256_14_n4", [4, 14, 14, 512], [3, 3, 256], 1, Same).dilated(18),
            ["atrous3x3_d18", "[4] 512->256 14x14"],
        ),
    ]
}
