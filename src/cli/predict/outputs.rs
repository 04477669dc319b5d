//! The files of `--out`: a table of all images, and of each what its mask makes of it.

use super::inputs::Input;
use super::rows::{COLUMNS, Row, Written};
use super::stems::stems;
use super::{PANEL, write_panel};
use crate::cli::folder::refuse_files;
use atrous::data::image_files::{write_mask_png, write_rgba_png};
use atrous::data::{BACKGROUND, Classes, Image, Mask};
use atrous::files::{check_writable, explain};
use atrous::predict::Prediction;
use atrous::report::{PanelRow, overlay};
use atrous::{Error, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A panel's images are no larger than this: it would hold eight of a camera's in memory.
const SIDE: usize = 640;

pub struct Outputs {
    folder: PathBuf,
    /// The names of each image's files, without what is put behind them.
    stems: Vec<PathBuf>,
    table: csv::Writer<File>,
    panel: Vec<PanelRow>,
}

impl Outputs {
    /// Makes the folder. An error where it cannot be written to, and, unless `force` says so, where there
    /// is one of the files already.
    pub fn open(folder: &Path, inputs: &[Input], masks: bool, force: bool) -> Result<Self> {
        let paths: Vec<&Path> = inputs.iter().map(|input| &*input.path).collect();
        let stems = stems(&paths);
        let [table, panel] = [TABLE, "panel.png"].map(|name| folder.join(name));
        if !force {
            let of_masks = stems.iter().filter(|_| masks).flat_map(|stem| files(folder, stem));
            refuse_files([table.clone(), panel.clone()].into_iter().chain(of_masks))?;
        }
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
        check_writable(&panel)?;
        let file = File::create(&table).map_err(|error| Error::file(&table, explain(&error)))?;
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(COLUMNS).map_err(|error| Error::file(&table, error))?;
        Ok(Outputs { folder: folder.to_owned(), stems, table: writer, panel: Vec::new() })
    }

    /// Writes the files of the `i`-th image, and tells them to its row. What was written is there, whatever
    /// comes after.
    pub fn add(
        &mut self,
        i: usize,
        image: &Image,
        prediction: &Prediction,
        classes: &Classes,
        row: &mut Row,
    ) -> Result<()> {
        if let Some(mask) = &prediction.mask {
            row.files = self.write(i, image, mask, classes)?;
        }
        let table = self.folder.join(TABLE);
        row.write_csv(&mut self.table).map_err(|error| Error::file(table, explain(&error)))?;
        if self.panel.len() < PANEL {
            let (image, mask) = reduced(image, prediction.mask.as_ref())?;
            self.panel.push(PanelRow {
                name: prediction.id.clone(),
                image: Some(image),
                predicted: Some(prediction.labels.clone()),
                probabilities: prediction.probabilities.clone(),
                prediction: mask,
                ..PanelRow::default()
            });
        }
        Ok(())
    }

    fn write(&self, i: usize, image: &Image, mask: &Mask, classes: &Classes) -> Result<Written> {
        let files = files(&self.folder, &self.stems[i]);
        let folder = files[0].parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
        let [mask_file, overlay_file, cutout_file] = &files;
        write_mask_png(mask_file, mask)?;
        overlay(image, mask, classes, overlay_file)?;
        let opacity = |&class: &u8| if class == BACKGROUND { 0 } else { 255 };
        let alpha: Vec<u8> = mask.classes.iter().map(opacity).collect();
        write_rgba_png(cutout_file, image, &alpha)?;
        let [mask, overlay, cutout] = files.map(|file| Some(file.display().to_string()));
        Ok(Written { mask, overlay, cutout })
    }

    /// Writes the panel of the first images.
    pub fn finish(self, classes: &Classes) -> Result<()> {
        println!("table: {}", self.folder.join(TABLE).display());
        write_panel(&self.panel, classes, &self.folder.join("panel.png"))
    }
}

/// What the table is called.
const TABLE: &str = "predictions.csv";

/// An image's mask, overlay and cut-out.
fn files(folder: &Path, stem: &Path) -> [PathBuf; 3] {
    ["mask", "overlay", "cutout"].map(|kind| {
        let mut file = folder.join(stem).into_os_string();
        file.push(format!("_{kind}.png"));
        file.into()
    })
}

/// Every so manieth pixel of an image and its mask, so that neither side is longer than a panel needs.
fn reduced(image: &Image, mask: Option<&Mask>) -> Result<(Image, Option<Mask>)> {
    let step = image.height.max(image.width).div_ceil(SIDE);
    let [height, width] = [image.height, image.width].map(|side| side.div_ceil(step));
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (y * step, x * step)));
    let places: Vec<usize> = places.map(|(y, x)| y * image.width + x).collect();
    let rgb = places.iter().flat_map(|&at| image.rgb[3 * at..3 * at + 3].iter().copied()).collect();
    let mask =
        mask.map(|mask| Mask::new(height, width, places.iter().map(|&at| mask.classes[at]).collect()));
    Ok((Image::new(height, width, rgb)?, mask.transpose()?))
}
