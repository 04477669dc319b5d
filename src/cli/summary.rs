//! `atrous summary`

use atrous::Result;
use atrous::models;
use atrous::nn;
use clap::Args;

#[derive(Args)]
#[command(after_help = "Example:\n  atrous summary alexnet --json")]
pub struct Summary {
    /// The network: alexnet, vgg16, resnet50v2, mobilenet, mobilenetv2, deeplabv3plus
    model: String,
    /// Side of the pictures [default: the network's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Classes [default: VOC's 20; with the background 21 for deeplabv3plus]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Summary {
    pub fn run(self) -> Result<()> {
        let size = self.size.unwrap_or(models::default_side(&self.model));
        let classes = self.classes.unwrap_or(models::default_classes(&self.model));
        let network = models::by_name(&self.model, size, classes)?;
        let summary = nn::Summary::new(&network);
        if self.json {
            println!("{:#}", summary.to_json(&network));
        } else {
            println!("{summary}");
        }
        Ok(())
    }
}
