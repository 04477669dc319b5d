//! `atrous summary`

use super::values::networks;
use atrous::models;
use atrous::nn::{self, PlanTable, Purpose};
use atrous::{Device, Result};
use clap::{Args, ValueEnum};

#[derive(Args)]
#[command(after_long_help = "\
Without --plan: each layer's output, parameters, arithmetic and memory. With it: the steps that compute \
the network on --device, what is fused and what is not and why, and which algorithm each convolution \
takes; the device need not be there. The keys of --json are in docs/schemas/summary.json.

Examples:
  atrous summary alexnet
  atrous summary deeplabv3plus --size 512 --classes 3
  atrous summary mobilenetv2 --plan train --batch 16
  atrous summary mobilenetv2 --plan --device cuda --json")]
pub struct Summary {
    /// The network
    #[arg(value_name = "NETWORK", value_parser = networks())]
    model: String,
    /// Side of the images [default: the network's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Classes [default: VOC's 20; with the background 21 for deeplabv3plus]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Show the steps of a pass instead of the layers [default: inference]
    #[arg(long, value_name = "PASS", num_args = 0..=1, default_missing_value = "inference")]
    plan: Option<PlanFor>,
    /// Images at once, for --plan [default: 1; in training 16]
    #[arg(long, value_name = "N", requires = "plan")]
    batch: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PlanFor {
    Inference,
    Train,
}

impl Summary {
    /// Whether it tells of a device that need not be there.
    pub fn is_of_any_device(&self) -> bool {
        self.plan.is_some()
    }

    pub fn run(self, device: Device) -> Result<()> {
        let size = self.size.unwrap_or(models::default_side(&self.model));
        let classes = self.classes.unwrap_or(models::default_classes(&self.model));
        let network = models::by_name(&self.model, size, classes)?;
        let summary = nn::Summary::new(&network);
        let plan = self.plan.map(|plan| {
            let (purpose, batch) = match plan {
                PlanFor::Inference => (Purpose::Inference, 1),
                PlanFor::Train => (Purpose::Training, 16),
            };
            PlanTable::new(&network, device, purpose, self.batch.unwrap_or(batch))
        });
        match (plan.transpose()?, self.json) {
            (None, false) => println!("{summary}"),
            (Some(plan), false) => println!("{plan}"),
            (plan, true) => {
                let mut json = summary.to_json(&network);
                if let Some(plan) = plan {
                    json["plan"] = plan.to_json();
                }
                println!("{json:#}");
            }
        }
        Ok(())
    }
}
