use super::*;

const CLASSES: usize = crate::data::CLASSES.len();

/// Labels, and probabilities that know something of them: rounded, so that there are ties.
fn images(n: usize, seed: u64) -> (Vec<Labels>, Vec<f32>) {
    let mut stream = Stream::new(seed, &[domain::TEST]);
    let (mut labels, mut probabilities) = (Vec::new(), Vec::new());
    for _ in 0..n {
        // The first classes are frequent, the last never there.
        let set = |class| class < CLASSES - 2 && stream.unit() < 0.4 / (1.0 + class as f32);
        let row: Labels = (0..CLASSES).map(set).collect();
        for (class, &set) in row.iter().enumerate() {
            let level = 0.1 + 0.02 * class as f32 + if set { 0.15 } else { 0.0 };
            probabilities.push(((level + 0.12 * stream.normal()).clamp(0.0, 1.0) * 50.0).round() / 50.0);
        }
        labels.push(row);
    }
    (labels, probabilities)
}

fn f1(labels: &[Labels], probabilities: &[f32], class: usize, threshold: f32) -> f64 {
    let truth: Vec<bool> = labels.iter().map(|row| row[class]).collect();
    let over: Vec<bool> = probabilities.chunks(CLASSES).map(|row| row[class] > threshold).collect();
    dice(&truth, &over)
}

/// Every threshold that can matter: the probabilities lie at multiples of 0.02.
fn all_cuts() -> impl Iterator<Item = f32> {
    (0..=50).map(|step| step as f32 / 50.0 + 0.01)
}

#[test]
fn no_threshold_has_a_higher_f1_than_the_fitted_one() {
    for seed in 0..10 {
        let (labels, probabilities) = images(60, seed);
        let fitted = Thresholds::fit(&labels, &probabilities, Objective::F1).unwrap();
        let mut several = 0;
        for class in 0..CLASSES {
            if labels.iter().filter(|row| row[class]).count() < FEW {
                assert_eq!(fitted.per_class[class], fitted.shared);
                continue;
            }
            several += 1;
            let best = all_cuts().map(|t| f1(&labels, &probabilities, class, t)).fold(0.0, f64::max);
            assert_eq!(f1(&labels, &probabilities, class, fitted.per_class[class]), best);
        }
        assert!(several > 2);
    }
}

#[test]
fn no_threshold_of_one_class_can_be_moved_to_a_higher_dice() {
    for seed in 0..6 {
        let (labels, probabilities) = images(50, seed);
        let score = |t: &Thresholds| t.score(&labels, &probabilities, Objective::Dice).unwrap();
        let fitted = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
        for class in (0..CLASSES).filter(|&c| labels.iter().filter(|row| row[c]).count() >= FEW) {
            for threshold in all_cuts() {
                let mut moved = fitted.clone();
                moved.per_class[class] = threshold;
                assert!(score(&moved) <= score(&fitted) + 1e-12, "class {class}, {threshold}");
            }
        }
        let best = all_cuts().map(|t| score(&Thresholds::uniform(t, CLASSES))).fold(0.0, f64::max);
        let shared = score(&Thresholds::uniform(fitted.shared, CLASSES));
        assert!((shared - best).abs() < 1e-12, "{shared}, brute force {best}");
        assert!(score(&fitted) >= shared);
    }
}

#[test]
fn the_shared_threshold_has_the_highest_f1_of_all_labels_together() {
    let (labels, probabilities) = images(60, 3);
    let truth: Vec<bool> = labels.iter().flatten().copied().collect();
    let micro = |t: f32| dice(&truth, &probabilities.iter().map(|&p| p > t).collect::<Vec<_>>());
    let fitted = Thresholds::fit(&labels, &probabilities, Objective::F1).unwrap();
    assert_eq!(micro(fitted.shared), all_cuts().map(micro).fold(0.0, f64::max));
}

#[test]
fn the_score_is_that_of_a_submissions_label_rows() {
    let (labels, probabilities) = images(40, 4);
    let thresholds = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
    let rows = labels.iter().zip(probabilities.chunks(CLASSES)).map(|(labels, row)| {
        let truth: Vec<u8> = labels.iter().map(|&set| set as u8).collect();
        crate::eval::metrics::dice(&truth, &thresholds.apply(row).unwrap()).unwrap()
    });
    let expected = rows.sum::<f64>() / 40.0;
    let score = thresholds.score(&labels, &probabilities, Objective::Dice).unwrap();
    assert!((score - expected).abs() < 1e-12);
}

#[test]
fn labels_over_their_thresholds_or_else_the_most_probable() {
    let mut thresholds = Thresholds::uniform(0.5, 3);
    thresholds.per_class[2] = 0.1;
    assert_eq!(thresholds.apply(&[0.4, 0.6, 0.2]).unwrap(), [0, 1, 1]);
    assert_eq!(thresholds.apply(&[0.4, 0.5, 0.1]).unwrap(), [0, 1, 0]);
    assert!(thresholds.apply(&[0.4]).is_err());
}

#[test]
fn where_nothing_is_known_nothing_is_invented() {
    let (_, probabilities) = images(10, 5);
    let none = vec![vec![false; CLASSES]; 10];
    for objective in [Objective::F1, Objective::Dice] {
        let fitted = Thresholds::fit(&none, &probabilities, objective).unwrap();
        assert!(fitted.per_class.iter().all(|&t| t == fitted.shared));
    }
}

#[test]
fn the_gain_on_images_not_seen_is_told_beside_the_gain_on_those_that_were() {
    let (labels, probabilities) = images(300, 6);
    for objective in [Objective::F1, Objective::Dice] {
        let run = |seed| cross_validated(&labels, &probabilities, objective, 0.05, 5, seed);
        let gain = run(1).unwrap();
        assert_eq!(gain, run(1).unwrap());
        assert!(gain.shared > gain.before, "{objective:?}: {gain:?}");
        assert!(gain.per_class > gain.shared, "{objective:?}: {gain:?}");
        assert!(gain.fitted >= gain.per_class, "{objective:?}: {gain:?}");
    }
}

#[test]
fn probabilities_that_know_nothing_gain_nothing_on_images_not_seen() {
    let mut stream = Stream::new(8, &[domain::TEST]);
    let labels: Vec<Labels> =
        (0..200).map(|_| (0..CLASSES).map(|_| stream.unit() < 0.1).collect()).collect();
    let noise: Vec<f32> = (0..200 * CLASSES).map(|_| stream.unit()).collect();
    let gain = cross_validated(&labels, &noise, Objective::Dice, 0.5, 5, 0).unwrap();
    assert!(gain.fitted > gain.per_class + 0.01 && gain.per_class < gain.shared + 0.02, "{gain:?}");
}

#[test]
fn neighbouring_floats_can_still_be_parted() {
    let low = 0.3f32;
    let high = low.next_up();
    let threshold = halfway(low, high);
    assert!(high > threshold && threshold >= low);
    assert_eq!(halfway(0.25, 0.75), 0.5);
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let (labels, mut probabilities) = images(4, 7);
    let fit = |labels: &[Labels], p: &[f32]| {
        Thresholds::fit(labels, p, Objective::F1).unwrap_err().to_string()
    };
    assert!(fit(&labels, &probabilities[1..]).contains("4 pictures × 20"));
    assert!(fit(&[], &[]).contains("not none"));
    assert!(cross_validated(&labels, &probabilities, Objective::F1, 0.5, 5, 0).is_err());
    assert!(cross_validated(&labels, &probabilities, Objective::F1, 0.5, 1, 0).is_err());
    let few = Thresholds::uniform(0.5, 3);
    assert!(few.score(&labels, &probabilities, Objective::F1).is_err());
    for bad in [f32::NAN, 1.5, -0.1] {
        probabilities[2 * CLASSES + 7] = bad;
        let error = fit(&labels, &probabilities);
        assert!(error.contains("class 7 of picture 2") && error.contains(&bad.to_string()), "{error}");
    }
}

#[cfg(feature = "checkpoint")]
#[test]
fn thresholds_come_back_from_json_to_the_bit() {
    let (labels, probabilities) = images(40, 9);
    let thresholds = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
    let text = serde_json::to_string(&thresholds).unwrap();
    assert!(text.contains(r#""objective":"dice""#), "{text}");
    assert_eq!(serde_json::from_str::<Thresholds>(&text).unwrap(), thresholds);
}
