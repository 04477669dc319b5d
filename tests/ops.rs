//! Every case of every operator: all instruction sets against the f64 reference, and the
//! closed-form gradients against finite differences.

use atrous::backend::cpu::simd::supported;
use atrous::cases::{Case, Size, relative_deviation};
use atrous::context::with_isa;
use atrous::{DType, Tensor};

fn tiny() -> impl Iterator<Item = Case> {
    atrous::ops::cases().into_iter().filter(|case| case.size == Size::Tiny)
}

#[test]
fn names_are_unique() {
    let mut names: Vec<String> = atrous::ops::cases().iter().map(Case::full_name).collect();
    let before = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), before);
}

#[test]
fn every_instruction_set_agrees_with_the_f64_reference() {
    let mut compared = 0;
    for case in tiny() {
        let name = case.full_name();
        let (expected, expected_gradients) = case.forward_backward(DType::F64).unwrap();
        for isa in supported() {
            let (got, gradients) = with_isa(isa, || case.forward_backward(DType::F32)).unwrap();
            let check = |what: &str, got: &Tensor, expected: &Tensor| {
                let deviation = relative_deviation(got, expected);
                assert!(deviation <= case.tolerance, "{name} {what} on {isa:?}: off by {deviation:e}");
            };
            check("output", &got, &expected);
            for ((input, got), expected) in case.inputs.iter().zip(&gradients).zip(&expected_gradients) {
                match (got, expected) {
                    (Some(got), Some(expected)) => check(input.name, got, expected),
                    (None, None) => {}
                    _ => panic!("{name}: gradient of {} on one side only", input.name),
                }
            }
            compared += 1;
        }
    }
    println!("{compared} comparisons of {} cases on {:?}", tiny().count(), supported());
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (mut checked, mut surrogates) = (0, 0);
    for case in tiny() {
        let deviation = case.finite_difference_deviation(40).unwrap();
        if case.surrogate {
            assert!(deviation > 1e-3, "{}: marked as a surrogate, but agrees", case.full_name());
            surrogates += 1;
        } else {
            assert!(deviation < 1e-6, "{}: off by {deviation:e}", case.full_name());
            checked += 1;
        }
    }
    println!("{checked} gradients agree, {surrogates} surrogates disagree as they should");
}
