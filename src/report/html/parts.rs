//! Pieces that sections are made of.

use super::read;
use crate::data::image_files;
use crate::error::{Error, Result};
use crate::report::page::{Markup, fill, jpeg_data_uri, png_data_uri};
use crate::report::plots::{Chart, Plot};
use jpeg_encoder::SamplingFactor;
use serde::Serialize;
use std::path::Path;

/// Of sheets' JPEG: letters stay sharp.
const QUALITY: u8 = 80;

/// Numbers that are read first: (what it is, the number).
pub(super) fn tiles(tiles: &[(String, String)]) -> Result<Markup> {
    fill(include_str!("templates/tiles.html"), &serde_json::json!({ "tiles": tiles }))
}

#[derive(Serialize)]
struct Drawn {
    wide: bool,
    svg: Markup,
    caption: String,
}

/// Plots side by side, each with a caption, which may be empty.
pub(super) fn plots(plots: &[(Plot, String)]) -> Result<Markup> {
    #[derive(Serialize)]
    struct Values {
        plots: Vec<Drawn>,
    }
    let drawn = |(plot, caption): &(Plot, String)| Drawn {
        wide: matches!(plot.chart, Chart::HeatMap(_)),
        svg: plot.svg(),
        caption: caption.clone(),
    };
    let plots = plots.iter().map(drawn).collect();
    fill(include_str!("templates/plots.html"), &Values { plots })
}

/// A table; the first column is text, the others numbers.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<Markup> {
    let values = serde_json::json!({ "head": head, "rows": rows });
    fill(include_str!("templates/table.html"), &values)
}

/// Something to be opened.
pub(super) fn details(summary: &str, body: Markup) -> Result<Markup> {
    #[derive(Serialize)]
    struct Values<'a> {
        summary: &'a str,
        body: Markup,
    }
    fill(include_str!("templates/details.html"), &Values { summary, body })
}

/// A sentence below something.
pub(super) fn note(text: &str) -> Result<Markup> {
    fill("<p class=\"note\">{{ text }}</p>", &serde_json::json!({ "text": text }))
}

/// What is to be read before anything else.
pub(super) fn warning(text: &str) -> Result<Markup> {
    fill("<p class=\"warning\">{{ text }}</p>", &serde_json::json!({ "text": text }))
}

/// A heading within a section.
pub(super) fn heading(text: &str) -> Result<Markup> {
    fill("<h3>{{ text }}</h3>", &serde_json::json!({ "text": text }))
}

/// An image file within the page; None where there is none. An error where it is neither PNG nor JPEG.
pub(super) fn data_uri(path: &Path) -> Result<Option<Markup>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    match &bytes[..] {
        [0x89, b'P', b'N', b'G', ..] => Ok(Some(png_data_uri(&bytes))),
        [0xff, 0xd8, 0xff, ..] => Ok(Some(jpeg_data_uri(&bytes))),
        _ => Err(Error::file(path, "expected a PNG or a JPEG, got neither of their first bytes")),
    }
}

/// A sheet of photographs as a JPEG: several of them as PNG are 8 MB.
fn smaller(path: &Path) -> Result<Option<Markup>> {
    if data_uri(path)?.is_none() {
        return Ok(None);
    }
    let image = image_files::read_image(path)?;
    let jpeg = image_files::encode_jpeg(&image, QUALITY, SamplingFactor::F_1_1)
        .map_err(|error| Error::file(path, error))?;
    Ok(Some(jpeg_data_uri(&jpeg)))
}

/// A sheet of images that is wider than a phone: it scrolls in its own box.
pub(super) fn sheet(path: &Path, caption: &str) -> Result<Option<Markup>> {
    #[derive(Serialize)]
    struct Values<'a> {
        src: Markup,
        caption: &'a str,
    }
    let Some(src) = smaller(path)? else { return Ok(None) };
    fill(include_str!("templates/sheet.html"), &Values { src, caption }).map(Some)
}

/// A share with three digits, or a dash.
pub(super) fn share(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_escapes_its_cells() {
        let html = table(&["<a>"], &[vec!["<script>".into()]]).unwrap();
        assert!(html.as_str().contains("<th>&lt;a&gt;</th>"), "{html}");
        assert!(html.as_str().contains("<td>&lt;script&gt;</td>"), "{html}");
    }
}
