//! Images of one's own: read, predicted and written a few at a time, however many there are.

use super::PredictOptions;
use super::inputs::{Input, Inputs};
use super::outputs::Outputs;
use super::rows::{Failed, Format, Printer, Row};
use crate::cli::output;
use crate::cli::progress::{Bar, asked_to_stop, bar, interruptible};
use atrous::backend::cpu::threads;
use atrous::data::in_memory::InMemory;
use atrous::data::{Classes, Dataset, Image};
use atrous::predict::Networks;
use atrous::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images in memory at a time, at most.
const BATCH: usize = 32;
/// Pixels of them, about: of a camera's images there are fewer.
const PIXELS: usize = 1 << 25;

/// What is to be done with images.
pub struct Job<'a> {
    pub networks: &'a Networks,
    pub how: &'a PredictOptions,
    /// So many of the likeliest classes are told, instead of those that are predicted.
    pub top: Option<usize>,
    pub format: Format,
    /// The folder for tables, masks, overlays and cut-outs.
    pub out: Option<&'a Path>,
    pub force: bool,
}

impl Job<'_> {
    /// Predicts the images that the arguments mean. What cannot be read is told and left out, and an error
    /// at the end.
    pub fn run(&self, arguments: &[PathBuf]) -> Result<()> {
        let mut inputs = Inputs::find(arguments, self.out)?;
        let classes = self.networks.classes()?;
        let masks = self.networks.segmenter.is_some();
        let open = |folder| Outputs::open(folder, &inputs.images, masks, self.force);
        let outputs = self.out.map(open).transpose()?;
        let printer = Printer::new(self.format, inputs.images.iter().map(Input::name))?;
        match inputs.passed_over {
            0 => {}
            1 => println!("note: 1 file that is no image is passed over"),
            n => println!("note: {n} files that are no images are passed over"),
        }
        let bar = bar(inputs.images.len(), "predicting");
        let mut work = Work { job: self, classes, outputs, printer, bar, failed: Vec::new(), done: 0 };
        inputs.failures.drain(..).for_each(|error| work.fail(error));
        interruptible(|| work.all(&inputs.images))?;
        work.finish(inputs.images.len())
    }
}

/// How far it is.
struct Work<'a> {
    job: &'a Job<'a>,
    classes: &'a Classes,
    outputs: Option<Outputs>,
    printer: Printer,
    bar: Bar,
    failed: Vec<Failed>,
    /// Images that were predicted.
    done: usize,
}

impl Work<'_> {
    fn all(&mut self, inputs: &[Input]) -> Result<()> {
        let mut from = 0;
        while from < inputs.len() && !self.is_over() {
            let read = read(&inputs[from..]);
            let count = read.len();
            let (mut places, mut images) = (Vec::new(), Vec::new());
            for (place, image) in (from..).zip(read) {
                match image {
                    Ok(image) => {
                        places.push(place);
                        images.push((inputs[place].name(), image));
                    }
                    Err(error) => self.fail(error),
                }
            }
            self.predict(&places, images)?;
            from += count;
        }
        Ok(())
    }

    /// Whether nobody wants more.
    fn is_over(&self) -> bool {
        asked_to_stop().is_break() || output::unread() && self.outputs.is_none()
    }

    /// Images that are read, and their places among all.
    fn predict(&mut self, places: &[usize], images: Vec<(String, Image)>) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let images: Arc<dyn Dataset> = Arc::new(InMemory::new(images, self.classes.clone()));
        let indices: Vec<usize> = (0..images.len()).collect();
        let Job { networks, how, .. } = *self.job;
        let predictions =
            networks.predict(&images, &indices, &how.masks(), how.threshold, &mut |_| {})?;
        for (i, &place) in places.iter().enumerate() {
            if self.is_over() {
                return Ok(());
            }
            let (image, prediction) = (images.image(i)?, predictions.get(i)?);
            let size = [image.height, image.width];
            let mut row = Row::new(&prediction, size, self.classes, self.job.top);
            if let Some(outputs) = &mut self.outputs {
                outputs.add(place, &image, &prediction, self.classes, &mut row)?;
            }
            self.bar.suspend(|| self.printer.row(&row))?;
            self.done += 1;
            self.bar.set_position((self.done + self.failed.len()) as u64);
        }
        Ok(())
    }

    /// Tells of an image that is left out.
    fn fail(&mut self, error: Error) {
        self.bar.suspend(|| output::tell(&format!("left out: {error}")));
        if let Error::File { path, message } = error {
            self.failed.push(Failed { id: path.display().to_string(), error: message });
        }
    }

    /// Closes tables; an error where not all images are predicted.
    fn finish(self, found: usize) -> Result<()> {
        self.bar.finish_and_clear();
        self.printer.finish(&self.failed)?;
        if let Some(outputs) = self.outputs {
            outputs.finish(self.classes)?;
        }
        let done = self.done;
        if asked_to_stop().is_break() {
            let message =
                format!("{done} of {found} images are predicted; what was written of them is kept");
            return Err(Error::Interrupted(message));
        }
        let Some(first) = self.failed.first() else { return Ok(()) };
        let others = match self.failed.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        Err(Error::file(&first.id, format!("left out{others}: see above; {done} images are predicted")))
    }
}

/// The next images, or why one is none: as many as go into memory together.
fn read(inputs: &[Input]) -> Vec<Result<Image>> {
    let (mut read, mut pixels) = (Vec::new(), 0);
    while read.len() < inputs.len().min(BATCH) && pixels < PIXELS {
        let some = &inputs[read.len()..inputs.len().min(read.len() + threads::count())];
        let images = threads::map(some.len(), |i| some[i].read());
        pixels += images.iter().flatten().map(|image| image.height * image.width).sum::<usize>();
        read.extend(images);
    }
    read
}
