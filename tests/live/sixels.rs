//! Sixels as a terminal reads them.

/// What one `ESC P … q … ESC \` draws: its width and its pixels, row by row, None where nothing is drawn.
pub struct Drawn {
    pub width: usize,
    pub pixels: Vec<Option<[u8; 3]>>,
}

/// All that are in a text.
pub fn decode_all(text: &str) -> Vec<Drawn> {
    let ended = |part: &'_ str| part.split_once("\x1b\\").map(|(sixels, _)| decode(sixels));
    text.split("\x1bP").skip(1).filter_map(ended).collect()
}

/// `0;1q"1;1;WIDTH;HEIGHT`, then colours, columns, `$` and `-`.
fn decode(text: &str) -> Drawn {
    let (_, rest) = text.split_once("q\"").unwrap();
    let mut rest = rest;
    let size = numbers(&mut rest);
    let &[1, 1, width, height] = &size[..] else { panic!("{size:?}") };
    let mut pixels = vec![None; width * height];
    let (mut colours, mut colour) = (vec![[0; 3]; 256], 0);
    let (mut x, mut band) = (0, 0);
    while let Some(c) = rest.chars().next() {
        rest = &rest[1..];
        let (count, c) = match c {
            '#' => {
                match numbers(&mut rest)[..] {
                    [n] => colour = n,
                    [n, 2, r, g, b] => {
                        assert!([r, g, b].iter().all(|&percent| percent <= 100));
                        colours[n] = [r, g, b].map(|percent| ((percent * 255 + 50) / 100) as u8);
                    }
                    ref other => panic!("{other:?}"),
                }
                continue;
            }
            '$' => {
                x = 0;
                continue;
            }
            '-' => {
                (x, band) = (0, band + 1);
                continue;
            }
            '!' => {
                let count = numbers(&mut rest)[0];
                let c = rest.chars().next().unwrap();
                rest = &rest[1..];
                (count, c)
            }
            c => (1, c),
        };
        let bits = c as u8 - b'?';
        assert!(bits < 64 && x + count <= width, "{c} at {x}");
        for column in x..x + count {
            for row in (0..6).filter(|row| bits >> row & 1 == 1) {
                pixels[(6 * band + row) * width + column] = Some(colours[colour]);
            }
        }
        x += count;
    }
    Drawn { width, pixels }
}

/// Numbers with semicolons between them, taken from the beginning.
fn numbers(text: &mut &str) -> Vec<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    *text = rest;
    numbers.split(';').map(|number| number.parse().unwrap()).collect()
}
