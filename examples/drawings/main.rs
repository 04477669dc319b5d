//! The book's drawings. What they show is computed: by tensors, by the tape, by the geometry that kernels
//! go by, by a network's plan.
//!
//!     cargo run --release --example drawings
//!
//! Those that changed are written anew; with `--check` they are only told.

mod arithmetic;
mod blocks;
mod convolution;
mod fibers;
mod gpu;
mod measuring;
mod networks;
mod norms;
mod operator;
mod plane;
mod roofline;
mod scores;
mod stripes;
mod svg;

use atrous::prelude::*;
use std::{fs, path::Path};

fn main() -> Result<()> {
    let all = [
        ("learned", stripes::learned()?),
        ("broadcast", stripes::broadcast()?),
        ("tensor", convolution::tensor()?),
        ("tape", arithmetic::tape()?),
        ("convolution", convolution::window()?),
        ("im2col", convolution::im2col()?),
        ("implicit-gemm", arithmetic::implicit_gemm()),
        ("stride-phases", convolution::stride_phases()?),
        ("batch-norm", norms::batch_norm()?),
        ("dilation", convolution::dilation()?),
        ("roofline", roofline::roofline()?),
        ("winograd", arithmetic::winograd()),
        ("fusion", networks::fusion()?),
        ("blocks", blocks::blocks()?),
        ("shares", blocks::shares()?),
        ("mistakes", scores::mistakes()?),
        ("pyramid", networks::pyramid()?),
        ("ranking", scores::ranking()?),
        ("attacks", plane::attacks()?),
        ("warp", gpu::warp()),
        ("gpu-ladder", gpu::ladder()?),
        ("fibers", fibers::fibers()),
        ("rounding", measuring::rounding()),
        ("in-turn", measuring::in_turn()?),
        ("operator", operator::operator()),
    ];
    let only_look = std::env::args().any(|argument| argument == "--check");
    let count = all.len();
    let mut new = 0;
    for (name, drawing) in all {
        let path = Path::new("docs/images").join(name).with_extension("svg");
        if fs::read_to_string(&path).is_ok_and(|there| there == drawing) {
            continue;
        }
        new += 1;
        println!("{}: another one than before", path.display());
        if !only_look {
            fs::write(&path, drawing).map_err(|error| Error::file(&path, error))?;
        }
    }
    println!("{count} drawings, {new} of them new");
    Ok(())
}
