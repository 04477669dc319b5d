use super::*;

#[test]
fn a_image_of_any_shape_lies_within_its_square() {
    for (h, w) in [(1, 500), (500, 1), (375, 500), (500, 333), (1, 1), (3, 2)] {
        for size in [1, 7, 150, 224, 256] {
            let at = padded(h, w, size);
            let inside = at.top + at.height <= size && at.left + at.width <= size;
            assert!(inside && at.height > 0 && at.width > 0, "{h}×{w} in {size}: {at:?}");
            let image = Image::new(h, w, vec![255; h * w * 3]).unwrap();
            let square = resize_with_pad(&image, size).unwrap();
            let lit = square.iter().filter(|&&v| v == 255.0).count();
            assert_eq!(lit, at.height * at.width * 3);
        }
    }
}

#[test]
fn colours_in_vectors_have_the_bits_of_the_operator() {
    let (h, w) = (53, 71);
    let rgb: Vec<u8> = (0..h * w * 3).map(|i| (i * 83 % 256) as u8).collect();
    let values: Vec<f32> = rgb.iter().map(|&value| value as f32).collect();
    let image = Image::new(h, w, rgb).unwrap();
    let x = Tensor::from_slice(&values, [1, h, w, 3]).unwrap();
    for (height, width) in [(20, 33), (97, 71), (53, 140), (1, 1)] {
        let expected = ops::resize(&x, height, width, Method::Bilinear).unwrap();
        for isa in simd::supported() {
            let got = crate::context::with_isa(isa, || resize(&image, height, width)).unwrap();
            assert_eq!(Some(&got[..]), expected.as_slice::<f32>(), "{isa:?} {height}×{width}");
        }
    }
}

#[test]
fn the_mask_is_fitted_where_the_image_is() {
    let mask = fit_mask(&Mask::new(2, 4, vec![7; 8]).unwrap(), 4, Fit::Pad, VOID).unwrap();
    let row = |v| [v; 4];
    assert_eq!(mask.classes, [row(VOID), row(7), row(7), row(VOID)].concat());
    let mask = fit_mask(&mask, 2, Fit::Stretch, VOID).unwrap();
    assert_eq!(mask.classes.len(), 4);
}

#[test]
fn blended_labels_are_cut_to_whole_numbers_and_void_is_not_blended_into_classes() {
    let blend = |classes: &[u8]| {
        let mask = Mask::new(1, 2, classes.to_vec()).unwrap();
        fit_mask_by(&mask, 4, Fit::Stretch, VOID, MaskResize::Bilinear { classes: 20 }).unwrap().classes
            [..4]
            .to_vec()
    };
    // A quarter, a half, … of the way: at 0, ¼, ¾ and 1.
    assert_eq!(blend(&[0, 11]), [0, 2, 8, 11]);
    assert_eq!(blend(&[3, 255]), [3, 255, 255, 255]);
}

#[test]
fn boxes_come_before_shrinking_only_where_they_are_asked_for() {
    let stripes = (0..64 * 64).flat_map(|i| [if i % 2 == 0 { 0 } else { 200 }; 3]).collect();
    let image = Image::new(64, 64, stripes).unwrap();
    let smooth = fit_changed(&image, 16, Fit::Stretch, true, |_| {}).unwrap();
    assert_eq!(smooth, [100.0; 768]);
    let changed = fit_changed(&image, 16, Fit::Stretch, false, |v| v.fill(1.0)).unwrap();
    assert_eq!(changed, [1.0; 768]);
}

#[test]
fn preprocessing_can_be_undone() {
    let before = [0.0f32, 17.0, 255.0, 3.5, 127.5, 200.25];
    use Preprocess::{Caffe, None, Symmetric, Torch, Unit};
    for preprocess in [None, Unit, Symmetric, Caffe, Torch] {
        let mut values = before;
        preprocess.apply(&mut values);
        assert_eq!(preprocess == None, values == before);
        preprocess.undo(&mut values);
        assert!(values.iter().zip(before).all(|(a, b)| (a - b).abs() < 1e-4), "{preprocess:?}");
    }
}

/// Values of `torchvision.transforms.Normalize` on black, white and one colour.
#[test]
fn torch_preprocessing_gives_what_torchvision_gives() {
    let mut values = [0.0f32, 0.0, 0.0, 255.0, 255.0, 255.0, 10.0, 128.0, 200.0];
    Preprocess::Torch.apply(&mut values);
    let expected = [
        -2.117_904,
        -2.035_714,
        -1.804_444,
        2.248_908,
        2.428_571_5,
        2.64,
        -1.946_656_5,
        0.205_182_2,
        1.681_394_5,
    ];
    assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
}

#[test]
fn sizes_of_zero_or_beyond_reason_are_refused() {
    let image = Image::new(1, 1, vec![1, 2, 3]).unwrap();
    assert!(resize_with_pad(&image, 0).is_err());
    assert!(resize(&image, 1, usize::MAX).is_err());
    let mask = Mask::new(1, 1, vec![1]).unwrap();
    assert!(fit_mask(&mask, 0, Fit::Pad, VOID).is_err());
    assert!(resize_mask(&mask, 5, 0, Nearest::Corner).is_err());
}
