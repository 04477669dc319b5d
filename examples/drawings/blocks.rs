//! What the networks are made of, from their own tables.

use crate::svg::*;
use atrous::models;
use atrous::nn::{Row, Summary};
use atrous::prelude::*;

/// A network's block: its layers that have weights, and whether its input is added at the end.
struct Block {
    network: &'static str,
    title: &'static str,
    layers: &'static [&'static str],
    input: &'static str,
    adds: bool,
}

const BLOCKS: [Block; 4] = [
    Block {
        network: "vgg16",
        title: "VGG16",
        layers: &["block4_conv2", "block4_conv3"],
        input: "block4_conv1",
        adds: false,
    },
    Block {
        network: "resnet50v2",
        title: "ResNet50V2",
        layers: &["conv4_block2_1_conv", "conv4_block2_2_conv", "conv4_block2_3_conv"],
        input: "conv4_block1_out",
        adds: true,
    },
    Block {
        network: "mobilenet",
        title: "MobileNet",
        layers: &["conv_dw_10", "conv_pw_10"],
        input: "conv_pw_9_relu",
        adds: false,
    },
    Block {
        network: "mobilenetv2",
        title: "MobileNetV2",
        layers: &["block_8_expand", "block_8_depthwise", "block_8_project"],
        input: "block_7_add",
        adds: true,
    },
];

/// A channel's width in a drawing.
const WIDTH: f64 = 0.12;

fn summary(network: &str) -> Result<Summary> {
    let side = models::default_side(network);
    Ok(Summary::new(&models::by_name(network, side, 20)?))
}

fn row<'a>(summary: &'a Summary, name: &str) -> Result<&'a Row> {
    let known = summary.rows.iter().find(|row| row.name == name);
    known.ok_or_else(|| {
        Error::argument("layer", format!("expected one of {}, got {name}", summary.model))
    })
}

/// What a layer is called, and its weights without the bias: as many as it has products a pixel.
fn kind(row: &Row, channels_in: usize) -> (&'static str, usize) {
    let channels = row.output_shape.last().copied().unwrap_or(1);
    match row.type_name {
        "DepthwiseConv2D" => ("depthwise 3×3", 9 * channels),
        _ if row.cost.parameters as usize >= 9 * channels_in * channels => {
            ("3×3", 9 * channels_in * channels)
        }
        _ => ("1×1", channels_in * channels),
    }
}

/// Four blocks: as wide as they have channels, with the products that a pixel takes.
pub fn blocks() -> Result<String> {
    let mut svg = Svg::new(800.0, 360.0, "Blocks of four networks, as wide as they have channels");
    for (i, block) in BLOCKS.iter().enumerate() {
        let table = summary(block.network)?;
        let middle = 100.0 + 200.0 * i as f64;
        let bar = |svg: &mut Svg, y: f64, channels: usize, fill: &str| {
            let width = channels as f64 * WIDTH;
            svg.rect([middle - width / 2.0, y], [width, 20.0], fill, GREY);
            match width < 30.0 {
                true => svg.note([middle + width / 2.0 + 5.0, y + 14.0], &format!("{channels}")),
                false => svg.centred([middle, y + 10.0], 12.0, &format!("{channels}")),
            }
        };
        svg.centred([middle, 24.0], 14.0, block.title);
        let mut channels = row(&table, block.input)?.output_shape[2];
        let edge = middle - WIDTH * channels as f64 / 2.0;
        bar(&mut svg, 44.0, channels, FAINT);
        let (mut y, mut products) = (44.0, 0);
        for name in block.layers {
            let layer = row(&table, name)?;
            let (name, weights) = kind(layer, channels);
            channels = layer.output_shape[2];
            products += weights;
            svg.arrow([middle, y + 22.0], [middle, y + 62.0], INK);
            svg.note([middle + 8.0, y + 38.0], name);
            svg.note([middle + 8.0, y + 52.0], &format!("{} weights", grouped(weights)));
            y += 64.0;
            bar(&mut svg, y, channels, BLUE);
        }
        if block.adds {
            let x = middle - 76.0;
            svg.line([edge, 54.0], [x, 54.0], STRONG_ORANGE);
            svg.line([x, 54.0], [x, y + 42.0], STRONG_ORANGE);
            svg.arrow([x, y + 42.0], [middle - 10.0, y + 42.0], STRONG_ORANGE);
            svg.line([middle, y + 20.0], [middle, y + 32.0], INK);
            svg.centred([middle, y + 42.0], 18.0, "+");
        }
        svg.centred([middle, 326.0], 12.0, "products a pixel:");
        svg.centred([middle, 344.0], 14.0, &grouped(products));
    }
    Ok(svg.finish())
}

/// 1234567 → 1,234,567
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let first = (digits.len() + 2) % 3 + 1;
    let (head, tail) = digits.split_at(first);
    let tail = tail.as_bytes().chunks(3).map(|three| format!(",{}", String::from_utf8_lossy(three)));
    std::iter::once(head.to_owned()).chain(tail).collect()
}

/// Of each network two bars: its parameters and its operations, layer by layer.
pub fn shares() -> Result<String> {
    let mut svg = Svg::new(760.0, 316.0, "Where the parameters are, and where the operations");
    let kinds = [
        ("Conv2D", BLUE, "convolutions"),
        ("DepthwiseConv2D", GREEN, "depthwise"),
        ("Dense", ORANGE, "dense"),
    ];
    for (i, network) in ["alexnet", "vgg16", "resnet50v2", "mobilenetv2"].into_iter().enumerate() {
        let table = summary(network)?;
        let y = 44.0 + 62.0 * i as f64;
        svg.text([20.0, y + 25.0], &table.model);
        let total = table.total;
        let units = [
            format!("{:.1} M", total.parameters as f64 / 1e6),
            format!("{:.2} GFLOP", total.flops as f64 / 1e9),
        ];
        for (which, unit) in units.into_iter().enumerate() {
            let of = |row: &Row| [row.cost.parameters, row.cost.flops][which] as f64;
            let whole = [total.parameters, total.flops][which] as f64;
            let at = y + 21.0 * which as f64;
            svg.note([120.0, at + 14.0], ["parameters", "operations"][which]);
            let mut x = 190.0;
            svg.rect([x, at], [470.0, 18.0], FAINT, "none");
            for (type_name, fill, _) in kinds {
                for row in table.rows.iter().filter(|row| row.type_name == type_name) {
                    let width = 470.0 * of(row) / whole;
                    let frame = if width > 3.0 { PAPER } else { "none" };
                    if width > 0.1 {
                        svg.rect([x, at], [width, 18.0], fill, frame);
                    }
                    x += width;
                }
            }
            svg.note([668.0, at + 14.0], &unit);
        }
    }
    for (i, (_, fill, name)) in kinds.into_iter().chain([("", FAINT, "the rest")]).enumerate() {
        let x = 190.0 + 118.0 * i as f64;
        svg.rect([x, 14.0], [14.0, 14.0], fill, GREY);
        svg.text([x + 20.0, 26.0], name);
    }
    svg.text([20.0, 306.0], "A box is a layer, in the order of the network within its kind.");
    Ok(svg.finish())
}
