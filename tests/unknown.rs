//! What is not known reaches no loss and no score.

#![cfg(feature = "checkpoint")]

use atrous::data::synthetic::Synthetic;
use atrous::data::{Dataset, Labels, Mask, Picture, VOID};
use atrous::eval::baselines::Controls;
use atrous::models::Spec;
use atrous::nn::Model;
use atrous::train::{Pace, Plan, Trainer, evaluate};
use atrous::{Result, predict};
use std::ops::ControlFlow::Continue;
use std::sync::Arc;

/// Made-up pictures, of which one has no labels, and whose masks are all void.
struct Unknown(Synthetic);

/// The one without labels.
const UNLABELLED: usize = 3;

impl Dataset for Unknown {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> String {
        format!("picture {index}")
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.0.labels(index).filter(|_| index != UNLABELLED)
    }

    fn picture(&self, index: usize) -> Result<Picture> {
        self.0.picture(index)
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        let mask = self.0.mask(index)?;
        Ok(mask.map(|mask| Mask { classes: vec![VOID; mask.classes.len()], ..mask }))
    }
}

fn data() -> Arc<dyn Dataset> {
    Arc::new(Unknown(Synthetic::train(1, 5)))
}

fn classifier() -> (Model, Plan) {
    let plan = Plan { train_indices: (0..5).collect(), ..Plan::new(Spec::new("alexnet", 108, 20)) };
    (Model::new(plan.graph().unwrap(), 1), plan)
}

#[test]
fn labels_that_are_not_known_reach_no_loss_in_training_or_validation() {
    let (model, plan) = classifier();
    let (loss, training) = (plan.loss().unwrap(), plan.training_loader(&data(), 1));
    let validation = plan.scoring_loader(&data(), vec![2, UNLABELLED]);
    let scored = evaluate(&model, loss, &validation).err().unwrap().to_string();
    let mut trainer = Trainer::new(model, plan).unwrap();
    let fitted = trainer.fit(&training, None, &Pace::default(), &mut |_| Continue(()));
    for message in [scored, fitted.unwrap_err().to_string()] {
        assert!(message.contains("the labels of sample 3 are not known"), "{message}");
    }
}

#[test]
fn labels_that_are_not_known_fit_no_thresholds_and_are_no_truth_for_controls() {
    let (model, plan) = classifier();
    let plan = Plan { val_indices: vec![0, UNLABELLED], ..plan };
    let fitted = predict::fit_thresholds(&model, &plan, &data()).unwrap_err().to_string();
    let measured = Controls::measure(None, &*data(), &[0, UNLABELLED], &[0.5; 40], 0);
    for message in [fitted, measured.err().unwrap().to_string()] {
        assert!(message.contains("`picture 3` are not known"), "{message}");
    }
}

#[test]
fn masks_that_are_void_throughout_have_no_score_and_end_no_run() {
    let plan = Plan { batch_size: 2, epochs: 1, ..Plan::new(Spec::new("deeplabv3plus", 32, 21)) };
    let plan = Plan { train_indices: vec![0, 1], val_indices: vec![2], ..plan };
    let model = Model::new(plan.graph().unwrap(), 1);
    let validation = plan.scoring_loader(&data(), plan.val_indices.clone());
    let scores = evaluate(&model, plan.loss().unwrap(), &validation).unwrap();
    assert_eq!((scores.loss, scores.accuracy), (None, None));
    let training = plan.training_loader(&data(), 1);
    let mut trainer = Trainer::new(model, plan).unwrap();
    trainer.fit(&training, Some(&validation), &Pace::default(), &mut |_| Continue(())).unwrap();
    assert_eq!(trainer.history.epochs[0].val_loss, None);
}
