use super::*;
use crate::ops;

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

#[test]
fn multi_hot_rows_need_a_gradient_rule_and_the_error_names_the_row() {
    let z = Tensor::zeros([2, 3]);
    let y = tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0], &[2, 3]);
    let error = softmax_cross_entropy(&z, &y, None, None).unwrap_err().to_string();
    assert!(error.contains("row 1 sum to 2") && error.contains("`keras`"), "{error}");
    let nan = tensor(&[f32::NAN, 0.0, 0.0, 1.0, 0.0, 0.0], &[2, 3]);
    assert!(softmax_cross_entropy(&z, &nan, None, None).is_err());
    assert!(softmax_cross_entropy(&z, &y, None, Some(CategoricalGradient::True)).is_ok());
}

#[test]
fn a_label_out_of_range_is_named_with_its_place() {
    let z = Tensor::zeros([1, 2, 2, 21]);
    let y = tensor(&[0.0, 20.9, -0.9, 21.0], &[1, 2, 2]);
    let error = sparse_softmax_cross_entropy(&z, &y, None, None).unwrap_err().to_string();
    assert!(error.contains("0..21, got 21 at [0, 1, 1]"), "{error}");
    assert!(sparse_softmax_cross_entropy(&z, &y, None, Some(21)).is_ok());
    let void = Tensor::from_u8(&[0, 255, 3, 20], [1, 2, 2]).unwrap();
    assert!(sparse_softmax_cross_entropy(&z, &void, None, None).is_err());
    assert!(sparse_softmax_cross_entropy(&z, &void, None, Some(255)).is_ok());
    let nan = tensor(&[f32::NAN; 4], &[1, 2, 2]);
    assert!(sparse_softmax_cross_entropy(&z, &nan, None, None).is_err());
}

#[test]
fn ignored_rows_have_no_gradient_but_count_as_rows() {
    let z = tensor(&[1.0, 2.0, 3.0, 4.0], &[2, 2]).leaf();
    let loss = |ignore, labels: &[u8]| {
        let labels = Tensor::from_u8(labels, [2]).unwrap();
        sparse_softmax_cross_entropy(&z, &labels, None, ignore).unwrap()
    };
    let (both, one) = (loss(None, &[0, 0]), loss(Some(255), &[0, 255]));
    assert!((both.item().unwrap() - 2.0 * one.item().unwrap()).abs() < 1e-6);
    let gradient = one.backward().unwrap().take(&z).unwrap().to_vec_f64();
    assert_eq!(gradient[2..], [0.0, 0.0]);
    assert!(gradient[0] < 0.0);
}

#[test]
fn huge_logits_give_finite_losses_and_gradients() {
    let z = tensor(&[1e4, -1e4, 0.0, -1e4, 1e4, 0.0], &[2, 3]).leaf();
    let y = tensor(&[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], &[2, 3]);
    let losses = [softmax_cross_entropy(&z, &y, None, None), binary_cross_entropy(&z, &y, None)]
        .map(Result::unwrap);
    assert!((losses[0].item().unwrap() - 1e4).abs() < 1e-2);
    for loss in losses {
        let gradient = loss.backward().unwrap().take(&z).unwrap();
        assert!(gradient.to_vec_f64().iter().all(|g| g.is_finite()));
    }
}

#[test]
fn the_gradient_of_a_later_operator_scales_the_saved_one() {
    let z = tensor(&[0.5, -1.0, 2.0], &[1, 3]).leaf();
    let y = tensor(&[0.0, 1.0, 0.0], &[1, 3]);
    let gradient = |factor: f64| {
        let loss = softmax_cross_entropy(&z, &y, None, None).unwrap();
        let loss = ops::scale(&loss, factor).unwrap();
        loss.backward().unwrap().take(&z).unwrap().to_vec_f64()
    };
    assert_eq!(gradient(2.0), gradient(1.0).iter().map(|g| 2.0 * g).collect::<Vec<_>>());
}

#[test]
fn what_does_not_fit_is_refused() {
    let z = Tensor::zeros([2, 3]);
    let weights = Some(&Tensor::zeros([3])).cloned();
    assert!(binary_cross_entropy(&z, &Tensor::zeros([2, 4]), None).is_err());
    assert!(binary_cross_entropy(&z, &z, weights.as_ref()).is_err());
    assert!(binary_cross_entropy(&Tensor::zeros([0, 3]), &Tensor::zeros([0, 3]), None).is_err());
    assert!(sparse_softmax_cross_entropy(&z, &Tensor::zeros([3]), None, None).is_err());
}
