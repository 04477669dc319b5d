//! With how many bits a CUDA device multiplies matrices (convolutions and dense layers). Values are stored,
//! and sums are made, in f32 whatever the precision; so are statistics, losses and weights.

use crate::error::{Error, Result};
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits of mantissa, on the CUDA cores.
    #[default]
    F32,
    /// Factors rounded to 11 bits of mantissa, on the tensor cores.
    Tf32,
    /// Factors rounded to 8 bits of mantissa, on the tensor cores.
    Bf16,
}

impl Precision {
    pub const NAMES: [&'static str; 3] = ["f32", "tf32", "bf16"];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Precision::NAMES[*self as usize])
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Precision::F32, Precision::Tf32, Precision::Bf16];
        all.into_iter().find(|precision| precision.to_string() == name).ok_or_else(|| {
            let names = Precision::NAMES.join("`, `");
            Error::argument("precision", format!("`{name}` is none of `{names}`"))
        })
    }
}

thread_local! {
    static PRESENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// That of the operators this thread runs now.
pub fn precision() -> Precision {
    PRESENT.get()
}

/// Runs `f` with operators in this precision; gradients have the one their forward pass had. The CPU
/// multiplies in f32 always.
pub fn with_precision<T>(precision: Precision, f: impl FnOnce() -> T) -> T {
    struct Back(Precision);
    impl Drop for Back {
        fn drop(&mut self) {
            PRESENT.set(self.0);
        }
    }
    let _back = Back(PRESENT.replace(precision));
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_scope_s_and_names_round_trip() {
        for name in Precision::NAMES {
            assert_eq!(name.parse::<Precision>().unwrap().to_string(), name);
        }
        assert!("f16".parse::<Precision>().unwrap_err().to_string().contains("bf16"));
        with_precision(Precision::Bf16, || {
            assert_eq!(with_precision(Precision::Tf32, precision), Precision::Tf32);
            assert_eq!(precision(), Precision::Bf16);
        });
        assert_eq!(precision(), Precision::F32);
    }
}
