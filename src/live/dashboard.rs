//! A run on a screen of characters: its curves, how far it is, what it holds.

use super::events::{Panel, Start};
use super::graphics::Graphics;
use super::half_blocks::HalfBlocks;
use super::sixel::Sixels;
use super::state::{Outcome, RunState};
use crate::data::Image;
use crate::duration::clock;
use crate::error::printable;
use crate::train::Epoch;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LineGauge, Widget};

/// Draws a run. It makes do with the room there is: without the image, then without the score, then without
/// curves.
///
/// ```
/// use atrous::live::events::Start;
/// use atrous::live::{Dashboard, Graphics, LogEvent, LogRecord, RunState};
/// use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};
///
/// let start = Start { network: "mobilenet".into(), epochs: 2, steps: 10, ..Start::default() };
/// let mut state = RunState::default();
/// state.apply(&LogRecord { time: 100.0, event: LogEvent::Start(Box::new(start)) });
/// let area = Rect::new(0, 0, 80, 24);
/// let mut screen = Buffer::empty(area);
/// let (panel, hint, graphics) = (None, "q quits", Graphics::HalfBlocks);
/// Dashboard { state: &state, panel, now: 101.0, hint, graphics }.render(area, &mut screen);
/// let text: String = screen.content().iter().map(|cell| cell.symbol()).collect();
/// assert!(text.contains("mobilenet") && text.contains("q quits"));
/// ```
pub struct Dashboard<'a> {
    /// The run.
    pub state: &'a RunState,
    /// The last drawing of predictions, where there is one.
    pub panel: Option<(&'a Panel, &'a Image)>,
    /// Seconds since 1970.
    pub now: f64,
    /// What the keys do.
    pub hint: &'a str,
    /// How images are drawn.
    pub graphics: Graphics,
}

/// The colours of curves in reports (train, validation).
const TRAIN: Color = Color::Rgb(88, 148, 214);
const VALIDATION: Color = Color::Rgb(230, 140, 70);
const SOFT: Color = Color::DarkGray;

/// With no event for so many seconds a run may have been killed.
const SILENT: f64 = 60.0;

type Points = Vec<(f64, f64)>;

impl Widget for Dashboard<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Some(start) = &self.state.start else {
            return Line::from("waiting for the run's first event").render(area, buffer);
        };
        let numbers = if area.height >= 10 { 2 } else { 1 };
        let rows = [1, 1].map(Constraint::Length).into_iter().chain([
            Constraint::Fill(1),
            Constraint::Length(numbers),
            Constraint::Length(1),
        ]);
        let [title, progress, main, numbers, footer] = Layout::vertical(rows).areas(area);
        title_of(start, area.width).render(title, buffer);
        self.progress(start).render(progress, buffer);
        self.main(start, main, buffer);
        self.numbers(numbers, buffer);
        self.footer().render(footer, buffer);
    }
}

fn title_of(start: &Start, width: u16) -> Line<'static> {
    let (training, validation) = (start.training_images, start.validation_images);
    let name = printable(&start.network).into_owned();
    let rest = [
        String::new(),
        printable(&start.task).into_owned(),
        format!("{training} + {validation} images"),
        printable(&start.device).into_owned(),
        format!("seed {}", start.seed),
    ];
    let room = (width as usize).saturating_sub(name.chars().count());
    let rest = fitting(&rest, " · ", room);
    Line::from(vec![Span::styled(name, Modifier::BOLD), Span::styled(rest, SOFT)])
}

/// The first of the words that have room in a row.
fn fitting(words: &[String], between: &str, width: usize) -> String {
    let length = |words: &[String]| words.join(between).chars().count();
    let most = (0..=words.len()).rev().find(|&n| length(&words[..n]) <= width);
    words[..most.unwrap_or(0)].join(between)
}

impl Dashboard<'_> {
    fn progress(&self, start: &Start) -> LineGauge<'static> {
        let (done, of) = self.state.progress();
        let (epoch, step) = self.state.place();
        let left = self.state.seconds_left().map_or(String::new(), |s| format!(" · {} left", clock(s)));
        let end =
            if self.state.outcome.is_some() { self.state.last } else { self.now.max(self.state.last) };
        let spent = clock(end - self.state.began);
        let label =
            format!("epoch {epoch}/{} · step {step}/{} · {spent}{left}", start.epochs, start.steps);
        LineGauge::default()
            .label(label)
            .ratio((done as f64 / of.max(1) as f64).clamp(0.0, 1.0))
            .filled_symbol("━")
            .unfilled_symbol("─")
            .filled_style(TRAIN)
            .unfilled_style(SOFT)
    }

    fn main(&self, start: &Start, area: Rect, buffer: &mut Buffer) {
        let (curves, image) = match self.panel {
            Some(panel) if area.width >= 70 && area.height >= 8 => {
                let columns = [Constraint::Fill(1), Constraint::Percentage(40)];
                let [curves, image] = Layout::horizontal(columns).areas(area);
                (curves, Some((panel, image)))
            }
            _ => (area, None),
        };
        if let Some((panel, area)) = image {
            draw_panel(panel, self.graphics, area, buffer);
        }
        let both = [Constraint::Fill(1), Constraint::Fill(1)];
        let (loss, score) = match (curves.width, curves.height) {
            (_, 12..) => {
                let [loss, score] = Layout::vertical(both).areas(curves);
                (loss, Some(score))
            }
            (70.., 4..) => {
                let [loss, score] = Layout::horizontal(both).areas(curves);
                (loss, Some(score))
            }
            (_, 4..) => (curves, None),
            _ => return,
        };
        let state = self.state;
        let epochs = state.progress().0 as f64 / start.steps.max(1) as f64;
        let validation = state.of_epochs(|e| e.metrics.val_loss);
        chart("loss", epochs, [state.training_loss(), validation], loss, buffer);
        if let Some(area) = score {
            let (name, values) = state.score();
            // Where accuracy on the validation images is all there is, that while training stands beside it.
            let training = if name == "accuracy" { state.training_accuracy() } else { Vec::new() };
            chart(name, epochs, [training, values], area, buffer);
        }
    }

    fn numbers(&self, area: Rect, buffer: &mut Buffer) {
        let Some(step) = self.state.steps.last() else { return };
        let last = |points: Points| points.last().map(|point| point.1);
        let val = |value: fn(&Epoch) -> Option<f64>| last(self.state.of_epochs(|e| value(&e.metrics)));
        let scores = [
            ("loss", Some(step.loss)),
            ("val_loss", val(|e| e.val_loss)),
            ("val_mAP", val(|e| e.val_map)),
            ("val_mIoU", val(|e| e.val_miou)),
            ("accuracy", Some(step.accuracy)),
            ("val_accuracy", val(|e| e.val_accuracy)),
        ];
        let scores =
            scores.into_iter().filter_map(|(name, value)| Some(format!("{name} {:.3}", value?)));
        let memory = step.memory;
        let mut rest = vec![
            format!("{:.0} images/s", step.images_per_second),
            format!("rate {}", short(step.learning_rate)),
        ];
        rest.extend(memory.resident.map(|bytes| format!("RSS {}", mib(bytes))));
        rest.push(format!("pool {} + {} free", mib(memory.pool), mib(memory.pool_free)));
        if let (Some(used), Some(total)) = (memory.device, memory.device_total) {
            rest.push(format!("GPU {} of {}", mib(used), mib(total)));
        }
        let width = area.width as usize;
        let lines = [scores.collect(), rest].map(|words: Vec<String>| fitting(&words, "  ", width));
        for (row, line) in area.rows().zip(lines) {
            Line::from(line).render(row, buffer);
        }
    }

    fn footer(&self) -> Line<'static> {
        let red = Style::new().fg(Color::LightRed);
        let line = match &self.state.outcome {
            Some(Outcome::Done) => Line::styled("done", Style::new().fg(Color::LightGreen)),
            Some(Outcome::Interrupted(why)) => Line::styled(printable(why).into_owned(), red),
            Some(Outcome::Failed(why)) => Line::styled(format!("error: {}", printable(why)), red),
            None if self.now - self.state.last > SILENT => {
                let ago = clock(self.now - self.state.last);
                Line::styled(format!("no event for {ago}: a long step, or it was killed"), red)
            }
            None => match self.state.saved {
                Some((epoch, step)) => {
                    Line::styled(format!("saved after epoch {epoch}, step {step}"), SOFT)
                }
                None => Line::default(),
            },
        };
        if self.hint.is_empty() {
            return line;
        }
        let mut spans = vec![Span::raw(format!("{}  ", self.hint))];
        spans.extend(line.spans.into_iter().map(|span| span.style(line.style)));
        Line::from(spans)
    }
}

fn draw_panel((panel, image): (&Panel, &Image), graphics: Graphics, area: Rect, buffer: &mut Buffer) {
    let block = Block::bordered().border_style(SOFT).title(format!("after epoch {}", panel.epoch));
    let inner = block.inner(area);
    block.render(area, buffer);
    let captions = panel.captions.len().min(inner.height as usize / 3) as u16;
    let rows = [Constraint::Fill(1), Constraint::Length(captions)];
    let [pixels, texts] = Layout::vertical(rows).areas(inner);
    let tiles = panel.captions.len();
    match graphics {
        Graphics::HalfBlocks => HalfBlocks { image, tiles }.render(pixels, buffer),
        Graphics::Sixels { cell } => Sixels { image, tiles, cell }.render(pixels, buffer),
    }
    for (row, caption) in texts.rows().zip(&panel.captions) {
        Line::from(printable(caption).into_owned()).render(row, buffer);
    }
}

/// Curves over so many epochs: while training, and on the validation images after each.
fn chart(name: &str, epochs: f64, curves: [Points; 2], area: Rect, buffer: &mut Buffer) {
    let [training, validation] = curves;
    let mut title = vec![Span::styled(name.to_owned(), Modifier::BOLD)];
    let mut datasets = Vec::new();
    let curves = [
        ("train", &training, Marker::Braille, TRAIN, "⠒⠒"),
        ("validation", &validation, Marker::Dot, VALIDATION, "•"),
    ];
    for (what, points, marker, colour, sign) in curves {
        if !points.is_empty() {
            title.push(Span::styled(format!("  {sign} {what}"), colour));
            let data = Dataset::default().data(points).marker(marker).style(colour);
            datasets.push(data.graph_type(if points.len() > 1 {
                GraphType::Line
            } else {
                GraphType::Scatter
            }));
        }
    }
    let all = || training.iter().chain(&validation);
    let right = epochs.max(1.0);
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = match (low < high, low.is_finite()) {
        (true, _) => (low, high),
        // (No loss and no score is below zero.)
        (false, true) => ((low - 0.5).max(low.min(0.0)), high + 0.5),
        (false, false) => (0.0, 1.0),
    };
    let x = Axis::default().bounds([0.0, right]).labels(["0".to_owned(), format!("{right:.1} epochs")]);
    let y = Axis::default().bounds([low, high]).labels([format!("{low:.3}"), format!("{high:.3}")]);
    Chart::new(datasets)
        .block(Block::bordered().border_style(SOFT).title(Line::from(title)))
        .x_axis(x.style(SOFT))
        .y_axis(y.style(SOFT))
        .legend_position(None)
        .render(area, buffer);
}

/// Three digits of a learning rate, which may be small.
fn short(rate: f32) -> String {
    let fixed = format!("{rate}");
    if fixed.len() <= 7 { fixed } else { format!("{rate:.2e}") }
}

fn mib(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ ..10_000 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

#[cfg(test)]
mod tests;
