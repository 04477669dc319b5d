//! What is not known reaches no loss and no score.

#![cfg(feature = "checkpoint")]

use atrous::data::synthetic::Synthetic;
use atrous::data::{Dataset, Image, Labels, Mask, VOID};
use atrous::eval::baselines::Controls;
use atrous::models::Spec;
use atrous::nn::Model;
use atrous::train::{CheckpointPolicy, TrainConfig, Trainer, evaluate};
use atrous::{Result, predict};
use std::ops::ControlFlow::Continue;
use std::sync::Arc;

/// Made-up images, of which one has no labels, and whose masks are all void.
struct Unknown(Synthetic);

/// The one without labels.
const UNLABELLED: usize = 3;

impl Dataset for Unknown {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> atrous::data::Classes {
        atrous::data::Classes::voc()
    }

    fn id(&self, index: usize) -> String {
        format!("picture {index}")
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.0.labels(index).filter(|_| index != UNLABELLED)
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.0.image(index)
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        let mask = self.0.mask(index)?;
        Ok(mask.map(|mask| Mask { classes: vec![VOID; mask.classes.len()], ..mask }))
    }
}

fn data() -> Arc<dyn Dataset> {
    Arc::new(Unknown(Synthetic::train(1, 5)))
}

fn classifier() -> (Model, TrainConfig) {
    let config = TrainConfig {
        train_indices: (0..5).collect(),
        ..TrainConfig::new(Spec::new("alexnet", 108, 20))
    };
    (Model::new(config.graph().unwrap(), 1), config)
}

#[test]
fn labels_that_are_not_known_reach_no_loss_in_training_or_validation() {
    let (model, config) = classifier();
    let (loss, training) = (config.loss().unwrap(), config.training_loader(&data(), 1));
    let validation = config.scoring_loader(&data(), vec![2, UNLABELLED]);
    let scored = evaluate(&model, loss, &validation).err().unwrap().to_string();
    let mut trainer = Trainer::new(model, config).unwrap();
    let fitted = trainer.fit(&training, None, &CheckpointPolicy::default(), &mut |_| Continue(()));
    for message in [scored, fitted.unwrap_err().to_string()] {
        assert!(message.contains("the labels of sample 3 are not known"), "{message}");
    }
}

#[test]
fn labels_that_are_not_known_fit_no_thresholds_and_are_no_truth_for_controls() {
    let (model, config) = classifier();
    let config = TrainConfig { val_indices: vec![0, UNLABELLED], ..config };
    let fitted = predict::fit_thresholds(&model, &config, &data()).unwrap_err().to_string();
    let measured = Controls::measure(None, &*data(), &[0, UNLABELLED], &[0.5; 40], 0);
    for message in [fitted, measured.err().unwrap().to_string()] {
        assert!(message.contains("`picture 3` are not known"), "{message}");
    }
}

#[test]
fn masks_that_are_void_throughout_have_no_score_and_end_no_run() {
    let config =
        TrainConfig { batch_size: 2, epochs: 1, ..TrainConfig::new(Spec::new("deeplabv3plus", 32, 21)) };
    let config = TrainConfig { train_indices: vec![0, 1], val_indices: vec![2], ..config };
    let model = Model::new(config.graph().unwrap(), 1);
    let validation = config.scoring_loader(&data(), config.val_indices.clone());
    let scores = evaluate(&model, config.loss().unwrap(), &validation).unwrap();
    assert_eq!((scores.loss, scores.accuracy), (None, None));
    let training = config.training_loader(&data(), 1);
    let mut trainer = Trainer::new(model, config).unwrap();
    trainer
        .fit(&training, Some(&validation), &CheckpointPolicy::default(), &mut |_| Continue(()))
        .unwrap();
    assert_eq!(trainer.history.epochs[0].val_loss, None);
}
