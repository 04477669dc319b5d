//! Frames as a terminal would show them.

use super::*;
use crate::live::events::LogEvent;
use crate::live::state::tests::{at, run};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

/// A photo of two tiles, red and blue.
fn photo() -> Image {
    let row: Vec<u8> = (0..16).flat_map(|x| if x < 8 { [255, 0, 0] } else { [0, 0, 255] }).collect();
    Image::new(6, 16, row.repeat(6)).unwrap()
}

fn panel() -> Panel {
    Panel {
        epoch: 2,
        image: "live.png".into(),
        captions: vec!["truth: dog".into(), "predicted: cat".into()],
    }
}

fn drawn(state: &RunState, width: u16, height: u16, with_image: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let (panel, photo) = (panel(), photo());
    let panel = with_image.then_some((&panel, &photo));
    let graphics = Graphics::HalfBlocks;
    let dashboard = Dashboard { state, panel, now: 1026.0, hint: "q: save and stop", graphics };
    terminal.draw(|frame| frame.render_widget(dashboard, frame.area())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> Vec<String> {
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn same(buffer: &Buffer, expected: &str) {
    let got = text(buffer).join("\n");
    assert!(got == expected.trim_matches('\n'), "got:\n{got}\n");
}

#[test]
fn a_frame_of_80_by_24_has_curves_image_numbers_and_keys() {
    let buffer = drawn(&run(25), 80, 24, true);
    same(&buffer, include_str!("frame_80x24.txt"));
    let colours: Vec<Color> = buffer.content.iter().map(|cell| cell.fg).collect();
    for colour in [TRAIN, VALIDATION, Color::Rgb(255, 0, 0), Color::Rgb(0, 0, 255)] {
        assert!(colours.contains(&colour), "{colour:?}");
    }
}

#[test]
fn a_frame_of_40_by_12_has_the_loss() {
    same(&drawn(&run(25), 40, 12, true), include_str!("frame_40x12.txt"));
}

#[test]
fn no_size_is_too_small_and_no_run_too_young() {
    for steps in [0, 1, 80] {
        for (width, height) in [(1, 1), (3, 2), (10, 3), (20, 5), (200, 4), (2, 100), (300, 90)] {
            drawn(&run(steps), width, height, true);
        }
    }
    let young = text(&drawn(&RunState::default(), 40, 5, false));
    assert_eq!(young[0], "waiting for the run's first event");
}

#[test]
fn the_footer_says_how_a_run_ended_or_that_nothing_is_heard_of_it() {
    let footer = |state: &RunState| text(&drawn(state, 100, 12, false)).pop().unwrap();
    let mut state = run(25);
    assert_eq!(footer(&state), "q: save and stop");
    state.saved = Some((2, 0));
    assert_eq!(footer(&state), "q: save and stop  saved after epoch 2, step 0");
    state.last = 900.0;
    assert!(footer(&state).ends_with("no event for 2:06: a long step, or it was killed"));
    let message = || "the disk\x1b[2J is full".to_string();
    for (event, words) in [
        (LogEvent::Done { seconds: 1.0 }, "done"),
        (LogEvent::Interrupted { message: message() }, "the disk\\u{1b}[2J is full"),
        (LogEvent::Error { message: message() }, "error: the disk\\u{1b}[2J is full"),
    ] {
        state.apply(&at(1026.0, event));
        assert_eq!(footer(&state), format!("q: save and stop  {words}"));
    }
}

#[test]
fn rates_and_memory_are_short() {
    assert_eq!([1e-3, 0.05, 1.234567e-6].map(short), ["0.001", "0.05", "1.23e-6"]);
    assert_eq!([5 << 20, 20 << 30].map(mib), ["5 MiB", "20.0 GiB"]);
}
