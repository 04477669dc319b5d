//! The tape, blocks of a matrix product, the roofline, Winograd's tiles.

use crate::svg::*;
use atrous::prelude::*;

/// A neuron with a squared error: values forward, gradients backward, both computed.
pub fn tape() -> Result<String> {
    let (x, target) = (3.0f64, 4.0f64);
    let [w, b] = [2.0f64, -1.0].map(|value| Tensor::from(value).leaf());
    let product = (&w * x)?;
    let y = (&product + &b)?;
    let error = (&y - target)?;
    let loss = error.square()?;
    // Gradients of intermediate values are not kept: each is asked for as a leaf of what comes after it.
    let from = |value: &Tensor, after: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<f64> {
        let leaf = value.leaf();
        let gradients = after(&leaf)?.backward()?;
        gradients.get(&leaf).map_or(Ok(0.0), Tensor::item)
    };
    let by_error = from(&error, &|e| e.square())?;
    let by_y = from(&y, &|y| (y - target)?.square())?;
    let gradients = loss.backward()?;
    let by = |leaf: &Tensor| gradients.get(leaf).map_or(Ok(0.0), Tensor::item);
    let values = [w.item()?, product.item()?, y.item()?, error.item()?, loss.item()?];
    let slopes = [by(&w)?, by_y, by_y, by_error, 1.0];
    let mut svg =
        Svg::new(700.0, 250.0, "The tape of a neuron: values from left to right, gradients back");
    let names = ["w, a leaf", "p = w·x", "y = p + b", "e = y − 4", "L = e²"];
    let steps = ["· x", "+ b", "− 4", "square"];
    svg.text([20.0, 26.0], "forward: each node's value, and what it was made of");
    for (i, name) in names.into_iter().enumerate() {
        let at = [20.0 + 140.0 * i as f64, 60.0];
        svg.rect(at, [96.0, 56.0], if i == 0 { GREEN } else { BLUE }, GREY);
        svg.centred([at[0] + 48.0, at[1] + 18.0], 13.0, name);
        svg.centred([at[0] + 48.0, at[1] + 40.0], 15.0, &format!("{}", values[i]));
        svg.rect([at[0], 150.0], [96.0, 36.0], ORANGE, GREY);
        svg.centred([at[0] + 48.0, 168.0], 15.0, &format!("{}", slopes[i]));
        if i < 4 {
            svg.arrow([at[0] + 98.0, 88.0], [at[0] + 138.0, 88.0], INK);
            svg.centred([at[0] + 118.0, 50.0], 12.0, steps[i]);
            svg.arrow([at[0] + 138.0, 168.0], [at[0] + 98.0, 168.0], INK);
        }
    }
    let turns = ["· x", "· 1", "· 1", "· 2·e"];
    for (i, turn) in turns.into_iter().enumerate() {
        svg.centred([138.0 + 140.0 * i as f64, 200.0], 12.0, turn);
    }
    svg.text(
        [20.0, 236.0],
        &format!("backward: the gradient of L by each, here with x = 3; by b it is {} as well", by(&b)?),
    );
    Ok(svg.finish())
}

/// What is in which memory while an implicit product runs.
pub fn implicit_gemm() -> String {
    let mut svg = Svg::new(720.0, 340.0, "Blocks of an implicit matrix product");
    let factors = [
        (20.0, [10, 9], [3, 2], [PAPER, FAINT, ORANGE], "patches: 12,544 × 2,304"),
        (264.0, [9, 8], [2, 5], [FAINT, PAPER, GREEN], "weights: 2,304 × 256"),
        (490.0, [10, 8], [3, 5], [FAINT, PAPER, BLUE], "outputs: 12,544 × 256"),
    ];
    let words = [
        ["never stored: a block is gathered,", "112 rows of 256 numbers, in L2"],
        ["packed once: a panel of", "256 × 32 stays in L1"],
        ["8 tiles of 14 × 32, one after the", "other, each in 28 registers"],
    ];
    let more = ["(10 of 112 rows of blocks are drawn)", "", "(10 of 112 rows of blocks are drawn)"];
    let parts = factors.into_iter().zip(words).zip(more);
    for (((x, size, [row, column], [fill, frame, here], name), words), more) in parts {
        svg.text([x, 26.0], name);
        svg.grid([x, 40.0], 22.0, size, |_, _| (fill, frame, String::new()));
        let at = [x + 22.0 * column as f64, 40.0 + 22.0 * row as f64];
        svg.rect(at, [22.0, 22.0], here, INK);
        svg.text([x, 284.0], words[0]);
        svg.text([x, 304.0], words[1]);
        svg.note([x, 324.0], more);
    }
    svg.centred([240.0, 150.0], 22.0, "·");
    svg.centred([464.0, 150.0], 22.0, "=");
    svg.finish()
}

/// Where the products of F(2×2, 3×3) come from.
pub fn winograd() -> String {
    let mut svg = Svg::new(760.0, 300.0, "Winograd's F(2×2, 3×3): sixteen products for four outputs");
    let tinted = |fill: &'static str| move |_: usize, _: usize| (fill, GREY, String::new());
    svg.text([20.0, 26.0], "window d, 4×4 pixels");
    svg.grid([20.0, 40.0], 24.0, [4, 4], tinted(ORANGE));
    svg.arrow([122.0, 88.0], [196.0, 88.0], INK);
    svg.centred([160.0, 74.0], 13.0, "Bᵀ d B");
    svg.grid([204.0, 40.0], 24.0, [4, 4], tinted(ORANGE));
    svg.text([20.0, 176.0], "kernel g, 3×3");
    svg.grid([32.0, 190.0], 24.0, [3, 3], tinted(BLUE));
    svg.arrow([110.0, 226.0], [196.0, 226.0], INK);
    svg.centred([154.0, 212.0], 13.0, "G g Gᵀ");
    svg.grid([204.0, 178.0], 24.0, [4, 4], tinted(BLUE));
    svg.centred([252.0, 157.0], 20.0, "⊙");
    svg.line([306.0, 88.0], [330.0, 88.0], INK);
    svg.line([306.0, 226.0], [330.0, 226.0], INK);
    svg.line([330.0, 88.0], [330.0, 226.0], INK);
    svg.arrow([330.0, 157.0], [372.0, 157.0], INK);
    svg.text([380.0, 96.0], "m: 16 products");
    svg.grid([380.0, 109.0], 24.0, [4, 4], tinted(RED));
    svg.arrow([482.0, 157.0], [556.0, 157.0], INK);
    svg.centred([520.0, 143.0], 13.0, "Aᵀ m A");
    svg.text([556.0, 118.0], "Y: 2×2 outputs");
    svg.grid([566.0, 133.0], 24.0, [2, 2], tinted(GREEN));
    svg.text([350.0, 236.0], "By the definition four outputs take 4·9 = 36 products.");
    svg.text([350.0, 256.0], "The next window begins two pixels further: neighbours share");
    svg.text([350.0, 276.0], "half their pixels, and all windows of a channel its kernel.");
    svg.finish()
}
