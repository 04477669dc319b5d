use super::*;
use crate::backend::cpu::threads;
use crate::ops::{mul, sum};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, [values.len()]).unwrap()
}

fn update(optimizer: &mut Optimizer, index: usize, w: &mut Tensor, g: &Tensor) -> Result<()> {
    let group = Group::Head;
    optimizer.update(vec![Update { index, parameter: w, gradient: g.clone().into(), group }], None)
}

fn rules() -> Vec<OptimizerKind> {
    let (rms, momentum) = (OptimizerKind::rmsprop(0.0), OptimizerKind::rmsprop(0.9));
    vec![
        OptimizerKind::sgd(0.0),
        OptimizerKind::sgd(0.9),
        rms,
        momentum,
        rms.keras3(),
        OptimizerKind::adam(),
    ]
}

#[test]
fn sgd_with_momentum_by_hand() {
    let mut sgd = Optimizer::new(OptimizerKind::sgd(0.5), 0.25).unwrap();
    let mut w = tensor(&[1.0]);
    for expected in [0.5, -0.25] {
        sgd.begin_step();
        update(&mut sgd, 0, &mut w, &tensor(&[2.0])).unwrap();
        assert_eq!(w.to_vec_f64(), [expected]);
    }
}

#[test]
fn the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient() {
    let mut adam = Optimizer::new(OptimizerKind::adam(), 0.125).unwrap();
    let mut w = tensor(&[1.0, 1.0]);
    adam.begin_step();
    update(&mut adam, 0, &mut w, &tensor(&[100.0, -0.25])).unwrap();
    let w = w.to_vec_f64();
    assert!((w[0] - 0.875).abs() < 1e-5 && (w[1] - 1.125).abs() < 1e-5, "{w:?}");
}

#[test]
fn long_parameters_give_the_same_bits_at_any_thread_count() {
    let n = 2 * threads::GRAIN_SIZE + 77;
    let values: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
    for rule in rules() {
        let run = || {
            let mut optimizer = Optimizer::new(rule, 0.01).unwrap();
            let mut w = Tensor::from_slice(&values, [n]).unwrap();
            for _ in 0..3 {
                optimizer.begin_step();
                let g = Tensor::from_slice(&values, [n]).unwrap();
                update(&mut optimizer, 0, &mut w, &g).unwrap();
            }
            w.to_vec_f64()
        };
        assert_eq!(threads::with(1, run).unwrap(), threads::with(3, run).unwrap());
    }
}

#[test]
fn state_that_is_saved_and_loaded_goes_on_with_the_same_bits() {
    let gradient = |step: usize| tensor(&[0.5, -1.0 / (step + 1) as f64, 3.0]);
    for rule in rules() {
        let mut first = Optimizer::new(rule, 0.01).unwrap();
        let mut w = tensor(&[1.0, 2.0, 3.0]);
        // Position 0 is frozen: it never has an update, and no state.
        let step = |optimizer: &mut Optimizer, w: &mut Tensor, i| {
            optimizer.begin_step();
            update(optimizer, 1, w, &gradient(i)).unwrap();
        };
        (0..3).for_each(|i| step(&mut first, &mut w, i));
        let saved: Vec<_> = first.slots().map(|(i, name, t)| (i, name.to_owned(), t.clone())).collect();
        assert_eq!(saved.len(), rule.slot_names().len());
        let mut second = Optimizer::new(rule, 0.01).unwrap();
        second.load(first.steps(), saved).unwrap();
        let mut other = w.clone();
        step(&mut first, &mut w, 3);
        step(&mut second, &mut other, 3);
        assert_eq!(w.to_vec_f64(), other.to_vec_f64());
    }
}

#[test]
fn a_loop_of_one_s_own_changes_its_leaves_as_updates_would() {
    let target = tensor(&[1.0, 2.0]);
    for rule in rules() {
        let mut own = Optimizer::new(rule, 0.01).unwrap();
        let mut parameters = [tensor(&[0.5, -1.0]).leaf(), tensor(&[3.0, 3.0]).leaf()];
        let unused = parameters[1].clone();
        let mut other = Optimizer::new(rule, 0.01).unwrap();
        let mut expected = parameters[0].detach();
        for _ in 0..3 {
            let loss = sum(&mul(&parameters[0], &target).unwrap()).unwrap();
            own.step(&mut parameters, &loss.backward().unwrap()).unwrap();
            other.begin_step();
            update(&mut other, 0, &mut expected, &target).unwrap();
        }
        assert_eq!(parameters[0].to_vec_f64(), expected.to_vec_f64());
        assert_eq!(parameters[1].to_vec_f64(), unused.to_vec_f64());
        assert_eq!(own.steps(), 3);
    }
}

#[test]
fn a_step_without_leaves_or_gradients_is_refused_and_counts_for_nothing() {
    let mut sgd = Optimizer::sgd(0.125, 0.0).unwrap();
    let mut x = tensor(&[1.0]).leaf();
    let gradients = sum(&mul(&x, &x).unwrap()).unwrap().backward().unwrap();
    let error = sgd.step([&mut x, &mut tensor(&[1.0])], &gradients).unwrap_err().to_string();
    assert!(error.ends_with("got none at parameter 1"), "{error}");
    let error = sgd.step([&mut tensor(&[1.0]).leaf()], &gradients).unwrap_err().to_string();
    assert!(error.contains("of none of them"), "{error}");
    assert_eq!((sgd.steps(), x.to_vec_f64()), (0, vec![1.0]));
    sgd.step([&mut x], &gradients).unwrap();
    assert_eq!((sgd.steps(), x.to_vec_f64()), (1, vec![0.75]));
    // The second parameter of this name is another one.
    let mut other = tensor(&[1.0, 2.0]).leaf();
    let gradients = sum(&other).unwrap().backward().unwrap();
    let mut adam = Optimizer::adam(0.1).unwrap();
    adam.step([&mut other], &gradients).unwrap();
    let mut another = tensor(&[1.0]).leaf();
    let gradients = sum(&another).unwrap().backward().unwrap();
    assert!(adam.step([&mut another], &gradients).is_err());
    assert_eq!(adam.steps(), 1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut adam = Optimizer::new(OptimizerKind::adam(), 0.01).unwrap();
    let mut w = tensor(&[1.0, 2.0]);
    assert!(update(&mut adam, 0, &mut w, &tensor(&[1.0, 1.0])).is_err()); // before a step
    adam.begin_step();
    let error = update(&mut adam, 0, &mut w, &tensor(&[1.0])).unwrap_err().to_string();
    assert!(error.contains("parameter 0") && error.contains("[2]"), "{error}");
    assert!(update(&mut adam, 0, &mut w, &Tensor::zeros([2])).is_err()); // f32 beside f64
    let (gradient, group) = (tensor(&[1.0, 1.0]), Group::Head);
    let mut other = w.clone();
    let twice = [&mut w, &mut other].map(|parameter| Update {
        index: 0,
        parameter,
        gradient: gradient.clone().into(),
        group,
    });
    assert!(adam.update(twice.into(), None).is_err());
    let state = |name: &str| vec![(0, name.to_owned(), tensor(&[0.0, 0.0]))];
    assert!(adam.load(1, state("velocity")).is_err());
    assert!(adam.load(1, state("m")).unwrap_err().to_string().contains("1 of the slots"));
    assert!(Optimizer::new(OptimizerKind::sgd(1.0), 0.1).is_err());
    assert!(Optimizer::new(OptimizerKind::sgd(0.9), f32::NAN).is_err());
    assert!("adamw".parse::<OptimizerKind>().is_err());
    assert_eq!("rmsprop".parse::<OptimizerKind>().unwrap(), OptimizerKind::rmsprop(0.0));
}
