//! `atrous bench loader`

use super::{Bench, says};
use atrous::bench::loader::{Images, feeds, name};
use atrous::data::source::Layout;
use atrous::{Device, Error, Result};
use std::collections::HashMap;

impl Bench {
    pub fn loader(&self, device: Device) -> Result<()> {
        let all = self.named("loader", feeds()?, |feed| feed.name())?;
        let (count, workers) = (self.images, self.workers);
        if !(1..=1 << 16).contains(&count) || !(1..=256).contains(&workers) {
            let message =
                format!("expected 1 to 65536 pictures and 1 to 256 workers, got {count} and {workers}");
            return Err(Error::argument("bench", message));
        }
        self.header();
        says(&format!("making {count} pictures …"));
        let images = Images::make(&std::env::temp_dir(), count)?;
        says("");
        println!(
            "pictures a second: files to pixels on one thread, to batches by one worker and by \
             {workers}, and what"
        );
        println!(
            "training steps take; % step is what making a picture costs of the processor time of its step"
        );
        let titles = ["read", "1 worker", "workers", "a step", "% step"];
        print!("{:<30}{:<6}", "", "layout");
        titles.iter().for_each(|title| print!("{title:>10}"));
        println!();
        let mut needs = HashMap::new();
        for feed in all {
            let need = match (self.need, needs.get(feed.net.name)) {
                (Some(need), _) => need,
                (None, Some(&need)) => need,
                (None, None) => {
                    says(&format!("timing a training step of {} …", feed.net.name));
                    feed.need(device)?
                }
            };
            needs.insert(feed.net.name, need);
            for layout in [Layout::VocNpy, Layout::VocDevkit] {
                says(&format!("loading {} from {} …", feed.name(), name(layout)));
                let rates = feed.rates(&images.training(layout)?, workers)?;
                says("");
                let line = feed.line(layout, rates, workers, need);
                self.keep(&line)?;
                print!("{:<30}{:<6}", feed.name(), name(layout));
                let keys = ["read", "one_worker", "all", "step"].map(|key| format!("{key}_per_second"));
                for key in keys.iter().map(String::as_str).chain(["share"]) {
                    print!("{:>10.1}", line[key].as_f64().unwrap_or(f64::NAN));
                }
                println!();
            }
        }
        Ok(())
    }
}
