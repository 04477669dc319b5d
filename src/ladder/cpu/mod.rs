//! The rungs of the CPU, one file each, to be read in the order of their numbers.
//!
//! Each is a small kernel of its own until the last ones, which are what the operators run
//! ([`crate::backend::cpu`], [`crate::ops`]). The first are the naive references, on one thread and
//! without vectors of their own; the others use all threads (`--threads 1` leaves the arithmetic alone)
//! and the machine's instruction set.
//!
//! Rooflines are told for cores with two units of 16-lane multiply-adds, some 200 GFLOP/s and 16 GB/s
//! each: work with more than a dozen operations a byte is bound by arithmetic, work with fewer by bytes.
//! The bench measures both limits in the same run and prints percentages of them. What the files say was
//! reached is of one run on two cores of a Xeon with AVX-512 (427 GFLOP/s, 33 GB/s): yours will differ,
//! the order of the rungs hardly.

mod conv2d_1_naive;
mod conv2d_2_im2col;
mod conv2d_3_implicit_gemm;
mod conv2d_4_winograd;
mod conv2d_5_operator;
mod depthwise_conv2d_1_naive;
mod depthwise_conv2d_2_vectors;
mod depthwise_conv2d_3_registers;
mod gemm_1_naive;
mod gemm_2_tiled;
mod gemm_3_packed;
mod gemm_4_registers;

use super::{Run, Rung, Work, unknown};
use crate::context::Precision;
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// The operators that have rungs here.
pub const OPERATORS: [&str; 3] = ["conv2d", "depthwise_conv2d", "gemm"];

/// An operator's rungs, the naive one first.
pub fn rungs(operator: &str) -> Result<Vec<Rung>> {
    type Kernel = fn(&Work, &[Tensor]) -> Result<Tensor>;
    let rung = |number, name, adds, run: Kernel| Rung {
        number,
        name,
        adds,
        precision: Precision::F32,
        run: Run::Cpu(run),
    };
    Ok(match operator {
        "conv2d" => vec![
            rung(1, "naive", "the definition, loop by loop, on one thread", conv2d_1_naive::run),
            rung(
                2,
                "im2col",
                "all patches copied into a matrix, then one product",
                conv2d_2_im2col::run,
            ),
            rung(
                3,
                "implicit_gemm",
                "patches gathered block by block where the product needs them",
                conv2d_3_implicit_gemm::run,
            ),
            rung(4, "winograd", "2.25 times fewer multiplications", conv2d_4_winograd::run),
            rung(5, "operator", "whichever of these the operator takes", conv2d_5_operator::run),
        ],
        "depthwise_conv2d" => vec![
            rung(
                1,
                "naive",
                "the definition, loop by loop, on one thread",
                depthwise_conv2d_1_naive::run,
            ),
            rung(2, "vectors", "channels in vectors, rows on threads", depthwise_conv2d_2_vectors::run),
            rung(3, "registers", "four outputs at once in registers", depthwise_conv2d_3_registers::run),
        ],
        "gemm" => vec![
            rung(1, "naive", "three loops on one thread, a column at a time", gemm_1_naive::run),
            rung(2, "tiled", "tiles that stay in caches, rows in vectors", gemm_2_tiled::run),
            rung(3, "packed", "panels packed in the order they are read", gemm_3_packed::run),
            rung(4, "registers", "a tile of sums in registers", gemm_4_registers::run),
        ],
        _ => return Err(unknown(operator, Device::Cpu)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{operators, options, real, rungs, tiny};
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::backend::cpu::threads;
    use crate::cases::relative_deviation;
    use crate::context::with_isa;
    use crate::error::Error;

    /// The tiny works, and larger ones of more than a block in each direction.
    fn works(operator: &str) -> Vec<Work> {
        let mut all = tiny(operator).unwrap();
        all.push(match operator {
            "conv2d" => Work::conv2d("two_blocks", [1, 13, 12, 41], 3, 35, options(1, 1)),
            "depthwise_conv2d" => Work::depthwise("many_rows", [3, 17, 9, 35], 3, options(1, 1)),
            _ => Work::gemm("150x300x301", 150, 300, 301),
        });
        all
    }

    #[test]
    fn every_rung_agrees_with_the_f64_reference_in_every_instruction_set_and_at_any_thread_count() {
        let (mut agree, mut refused) = (0, 0);
        for &operator in operators(Device::Cpu) {
            for work in works(operator) {
                let inputs = work.tensors(Device::Cpu).unwrap();
                let expected = work.expected().unwrap();
                for rung in rungs(operator, Device::Cpu).unwrap() {
                    for isa in supported() {
                        let name =
                            format!("{operator} {}: {} {} {isa:?}", work.name, rung.number, rung.name);
                        let run = || with_isa(isa, || rung.run(&work, &inputs));
                        let got = match threads::with(1, run).unwrap() {
                            Ok(got) => got,
                            Err(Error::Argument { .. }) if rung.name == "winograd" => {
                                refused += 1;
                                continue;
                            }
                            Err(error) => panic!("{name}: {error}"),
                        };
                        let deviation = relative_deviation(&got, &expected);
                        assert!(deviation <= 1e-5, "{name}: off by {deviation:e}");
                        let again = threads::with(3, run).unwrap().unwrap();
                        assert_eq!(got.as_slice::<f32>(), again.as_slice::<f32>(), "{name}");
                        agree += 1;
                    }
                }
            }
        }
        // Strided, dilated and 1×1 works are not for Winograd's method.
        let sets = supported().len();
        assert_eq!((agree, refused), ((5 * 5 - 3 + 4 * 3 + 4 * 4) * sets, 3 * sets));
    }

    #[test]
    fn operators_without_rungs_here_say_where_they_have_some() {
        for operator in ["batch_norm", "reduce"] {
            let error = rungs(operator, Device::Cpu).err().unwrap().to_string();
            assert!(error.contains("no rungs on the CPU") && error.contains("--device cuda"), "{error}");
        }
        let error = rungs("conv3d", Device::Cpu).err().unwrap().to_string();
        assert!(error.contains("`conv3d` has none") && error.contains("`gemm`"), "{error}");
        for &operator in operators(Device::Cpu) {
            assert!(!real(operator, Device::Cpu).unwrap().is_empty());
        }
    }
}
