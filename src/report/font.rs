//! Letters as strokes: no font has to be installed, and they are sharp at any size.
//!
//! Drawn for this project on a grid of base-36 digits, x then y upwards: the baseline is at 4, small
//! letters reach to e (14), capitals to i (18), tails to 0. A glyph is its width, then its strokes:
//! `-` a polyline, `~` a curve from the first point to the last, `o` a closed curve. Curves are
//! quadratic B-splines: the points between the ends are control points, passed halfway between.

/// Units from baseline to the top of a capital.
const CAPITAL: f64 = 14.0;
/// Units from baseline to the top of a small letter.
const SMALL: f64 = 10.0;
const BASELINE: f64 = 4.0;
/// Between two letters.
const GAP: f64 = 4.2;
/// The height of a capital, as a share of a font's size.
const CAPITAL_SHARE: f64 = 0.7;
/// Straight pieces in one arc of a curve.
const PIECES: usize = 6;

/// Strokes of a text that begins at x = 0 on the line y = 0 (y downwards), for a font of size 1.
pub(crate) fn strokes(text: &str) -> Vec<Vec<(f64, f64)>> {
    let unit = CAPITAL_SHARE / CAPITAL;
    let mut all = Vec::new();
    let mut left = 0.0;
    for (letter, mark) in letters(text) {
        let (width, strokes) = parse(glyph(letter));
        let mut draw = |strokes: Vec<Stroke>, [right, up]: [f64; 2]| {
            let place = |(x, y): (f64, f64)| ((left + right + x) * unit, (BASELINE - up - y) * unit);
            all.extend(strokes.into_iter().map(|stroke| stroke.into_iter().map(place).collect()));
        };
        draw(strokes, [0.0, 0.0]);
        if let Some(mark) = mark {
            let (own, strokes) = parse(mark);
            let top = if letter.is_uppercase() { CAPITAL + BASELINE } else { SMALL + BASELINE };
            draw(strokes, [(width - own) / 2.0, top]);
        }
        left += width + GAP;
    }
    all
}

/// The width of a text in a font of size 1.
pub(crate) fn width(text: &str) -> f64 {
    let widths = letters(text).into_iter().map(|(letter, _)| parse(glyph(letter)).0 + GAP);
    (widths.sum::<f64>() - GAP).max(0.0) * CAPITAL_SHARE / CAPITAL
}

type Stroke = Vec<(f64, f64)>;

/// What stands above a letter: as a character of its own, which follows the letter (as some systems write
/// names), as a glyph from the letter's top on, and the letters that have it with what they are without.
const MARKS: [(char, &str, &str); 6] = [
    ('\u{308}', "4 -0202 -4242", "äaëeïıöoüuÿyÄAËEÏIÖOÜU"),
    ('\u{301}', "4 -1133", "áaéeíıóoúuýyÁAÉEÍIÓOÚU"),
    ('\u{300}', "4 -1331", "àaèeìıòoùuÀAÈEÌIÒOÙU"),
    ('\u{302}', "4 -012341", "âaêeîıôoûuÂAÊEÎIÔOÛU"),
    ('\u{303}', "4 ~01133143", "ãañnõoÃAÑNÕO"),
    ('\u{30a}', "4 o11133331", "åaůuÅAŮU"),
];

/// The letters of a text, each with the mark above it.
fn letters(text: &str) -> Vec<(char, Option<&'static str>)> {
    let mut all: Vec<(char, Option<&'static str>)> = Vec::new();
    for letter in text.chars() {
        let alone = MARKS.iter().find(|(own, ..)| *own == letter);
        match (alone, all.last_mut()) {
            (Some((_, mark, _)), Some((_, above))) => *above = Some(mark),
            _ if letter.is_ascii() => all.push((letter, None)),
            _ => all.push(MARKS.iter().find_map(|mark| without(letter, mark)).unwrap_or((letter, None))),
        }
    }
    all
}

/// A letter that has the mark, as the letter without and the mark.
fn without(
    letter: char,
    (_, mark, pairs): &(char, &'static str, &str),
) -> Option<(char, Option<&'static str>)> {
    let mut pairs = pairs.chars();
    std::iter::from_fn(|| pairs.next().zip(pairs.next()))
        .find_map(|(with, base)| (with == letter).then_some((base, Some(*mark))))
}

fn parse(glyph: &str) -> (f64, Vec<Stroke>) {
    let digit = |byte: u8| (byte as char).to_digit(36).unwrap_or(0) as f64;
    let mut parts = glyph.split(' ');
    let width = parts.next().and_then(|part| part.bytes().next()).map_or(0.0, digit);
    let strokes = parts.filter_map(|part| {
        let (kind, points) = part.as_bytes().split_first()?;
        let points: Stroke = points.chunks_exact(2).map(|p| (digit(p[0]), digit(p[1]))).collect();
        Some(match kind {
            b'~' => curve(&points),
            b'o' => closed(&points),
            _ => points,
        })
    });
    (width, strokes.collect())
}

fn halfway(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0)
}

fn arc(from: (f64, f64), control: (f64, f64), to: (f64, f64), out: &mut Stroke) {
    for piece in 1..=PIECES {
        let t = piece as f64 / PIECES as f64;
        let mix =
            |a: f64, b: f64, c: f64| (1.0 - t) * ((1.0 - t) * a + t * b) + t * ((1.0 - t) * b + t * c);
        out.push((mix(from.0, control.0, to.0), mix(from.1, control.1, to.1)));
    }
}

fn curve(points: &[(f64, f64)]) -> Stroke {
    let [first, controls @ .., last] = points else { return points.to_vec() };
    let mut out = vec![*first];
    let mut from = *first;
    for (i, &control) in controls.iter().enumerate() {
        let to = controls.get(i + 1).map_or(*last, |&next| halfway(control, next));
        arc(from, control, to, &mut out);
        from = to;
    }
    out
}

fn closed(points: &[(f64, f64)]) -> Stroke {
    let n = points.len();
    let Some(start) = (n > 1).then(|| halfway(points[n - 1], points[0])) else { return points.to_vec() };
    let mut out = vec![start];
    for i in 0..n {
        let (from, to) =
            (halfway(points[(i + n - 1) % n], points[i]), halfway(points[i], points[(i + 1) % n]));
        arc(from, points[i], to, &mut out);
    }
    out
}

fn glyph(letter: char) -> &'static str {
    match letter {
        ' ' => "4",
        'a' => "8 o040e8e84 -8e84",
        'b' => "8 -0i04 o040e8e84",
        'c' => "8 ~8c8e0e048486",
        'd' => "8 -8i84 o040e8e84",
        'e' => "8 -0989 ~898e0e048486",
        'f' => "6 ~6i2i2e24 -0e5e",
        'g' => "8 o040e8e84 ~8e84800002",
        'h' => "8 -0i04 ~0a0e8e8a84",
        'i' => "0 -0e04 -0i0i",
        'j' => "3 ~3e333000 -3i3i",
        'k' => "7 -0i04 -7e08 -3a74",
        'l' => "2 ~0i060424",
        'm' => "c -0e04 ~0a0e6e6a64 ~6a6ececac4",
        'n' => "8 -0e04 ~0a0e8e8a84",
        'o' => "8 o040e8e84",
        'p' => "8 -0e00 o040e8e84",
        'q' => "8 -8e80 o040e8e84",
        'r' => "5 -0e04 ~090e5e",
        's' => "7 ~7c7e0e0979740406",
        't' => "5 ~2i262454 -0e5e",
        'u' => "8 ~0e08048488 -8e84",
        'v' => "8 -0e448e",
        'w' => "c -0e346d94ce",
        'x' => "8 -0e84 -8e04",
        'y' => "8 -0e44 -8e20",
        'z' => "7 -0e7e0474",
        'A' => "a -045ia4 -2989",
        'B' => "9 -040i ~0i6i8i8b6b0b ~0b6b9b946404",
        'C' => "a ~aeai0i04a4a8",
        'D' => "a -040i ~0i4iaia44404",
        'E' => "8 -8i0i0484 -0b7b",
        'F' => "8 -8i0i04 -0b7b",
        'G' => "a ~aeai0i04a4aa -aa6a",
        'H' => "a -0i04 -aia4 -0bab",
        'I' => "0 -0i04",
        'J' => "7 ~7i78740408",
        'K' => "9 -0i04 -9i0a -3c94",
        'L' => "8 -0i0484",
        'M' => "c -040i68cic4",
        'N' => "a -040ia4ai",
        'O' => "a o040iaia4",
        'P' => "9 -040i ~0i6i9i9a6a0a",
        'Q' => "a o040iaia4 -67b3",
        'R' => "9 -040i ~0i6i9i9a6a0a -5a94",
        'S' => "9 ~9f9i0i0b9b940407",
        'T' => "a -0iai -5i54",
        'U' => "a ~0i0a04a4aaai",
        'V' => "a -0i54ai",
        'W' => "e -0i447ia4ei",
        'X' => "a -0ia4 -ai04",
        'Y' => "a -0i5bai -5b54",
        'Z' => "a -0iai04a4",
        '0' => "8 o040i8i84",
        '1' => "8 -1f5i54",
        '2' => "8 ~0e0i8i8b04 -0484",
        '3' => "8 ~0f0i8i8b3b ~3b8b840407",
        '4' => "8 -646i0888",
        '5' => "8 -7i1i0b ~0b2d8d840407",
        '6' => "8 o040d8d84 ~7i2h0d08",
        '7' => "8 -0i8i34",
        '8' => "8 o1b1i7i7b o040b8b84",
        '9' => "8 o8i89090i ~1465898e",
        '.' => "0 -0404",
        ',' => "1 -1401",
        ':' => "0 -0404 -0d0d",
        ';' => "1 -1401 -1d1d",
        '-' => "6 -0a6a",
        '–' => "a -0aaa",
        '_' => "8 -0282",
        '+' => "8 -0a8a -4e46",
        '=' => "8 -0c8c -0888",
        '/' => "6 -026j",
        '\\' => "6 -0j62",
        '(' => "3 ~3k0g0531",
        ')' => "3 ~0k3g3501",
        '[' => "3 -3k0k0131",
        ']' => "3 -0k3k3101",
        '{' => "4 ~4k2k2b0b ~0b2b2141",
        '}' => "4 ~0k2k2b4b ~4b2b2101",
        '|' => "0 -0k01",
        '%' => "c o0d0i4i4d o8489c9c4 -ai24",
        '!' => "0 -0i09 -0404",
        '?' => "7 ~0f0i7i7c3c38 -3434",
        '\'' => "0 -0i0f",
        '"' => "3 -0i0f -3i3f",
        '#' => "a -3i14 -9i74 -0d9d -0898",
        '*' => "6 -3i3c -0g6e -6g0e",
        '<' => "8 -8f0a85",
        '>' => "8 -0f8a05",
        '&' => "a -a42f ~2f1i7i7e0c049489 ~8989a9",
        '@' => "c o373d9d97 ~9d96c6cb ~cbci0i0494",
        '$' => "8 ~8f8i0i0b8b840407 -4k42",
        '^' => "8 -0c4i8c",
        '`' => "3 -0i3f",
        '~' => "8 ~092c689b",
        'ε' => "8 ~7c6e1e1959 ~5909046476",
        '×' => "8 -0d86 -8d06",
        '·' => "0 -0a0a",
        '…' => "8 -0404 -4444 -8484",
        '→' => "c -0aca -8eca86",
        '✓' => "a -0a45ah",
        '°' => "4 o0e0i4i4e",
        'ı' => "0 -0e04",
        'ß' => "8 ~040f0i7i7b3b ~3b8b843424",
        'ç' => "8 ~8c8e0e048486 -4431",
        'σ' => "9 o040e7e74 ~4e6e9e",
        _ => "8 -040i8i8404",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_that_is_printed_has_a_shape_of_its_own_within_its_width() {
        let mut seen = std::collections::HashMap::new();
        for letter in (33..127u8).map(char::from).chain("–×·…→✓°".chars()) {
            let (width, strokes) = parse(glyph(letter));
            assert!(!strokes.is_empty() && strokes.iter().all(|s| !s.is_empty()), "{letter}");
            let inside =
                |&(x, y): &(f64, f64)| (0.0..=width + 1.0).contains(&x) && (0.0..=20.0).contains(&y);
            assert!(strokes.iter().flatten().all(inside), "{letter}: {strokes:?}");
            if let Some(other) = seen.insert(glyph(letter), letter) {
                panic!("{letter} looks like {other}");
            }
        }
        assert_eq!(glyph('日'), glyph('\u{1}'), "what is not known is a box");
    }

    #[test]
    fn a_letter_with_a_mark_is_the_letter_with_something_above_it_however_it_is_written() {
        for (with, without) in [("ä", "a"), ("Ü", "U"), ("é", "e"), ("ñ", "n"), ("Å", "A"), ("ô", "o")]
        {
            let (marked, plain) = (strokes(with), strokes(without));
            assert!(marked.len() > plain.len() && marked[..plain.len()] == plain[..], "{with}");
            let highest = |strokes: &[Stroke]| strokes.iter().flatten().map(|p| p.1).fold(0.0, f64::min);
            assert!(marked[plain.len()..].iter().flatten().all(|p| p.1 < highest(&plain)), "{with}");
            assert_eq!(width(with), width(without));
        }
        assert_eq!(strokes("Za\u{308}h"), strokes("Zäh"));
        assert!(letters("ïß").iter().all(|(letter, _)| glyph(*letter) != glyph('日')));
    }

    #[test]
    fn a_text_is_as_wide_as_its_strokes_reach() {
        for text in ["Hm", "AVA", "nn", "88"] {
            let reach = strokes(text).iter().flatten().map(|p| p.0).fold(0.0, f64::max);
            assert!((reach - width(text)).abs() < 1e-12, "{text}");
        }
        assert_eq!(width(""), 0.0);
    }

    #[test]
    fn curves_begin_and_end_where_they_say_and_closed_ones_close() {
        let open = curve(&[(0.0, 0.0), (0.0, 2.0), (2.0, 2.0), (2.0, 0.0)]);
        assert_eq!((open[0], open[open.len() - 1]), ((0.0, 0.0), (2.0, 0.0)));
        assert!(open.contains(&(1.0, 2.0)));
        let ring = closed(&[(0.0, 0.0), (0.0, 2.0), (2.0, 2.0), (2.0, 0.0)]);
        assert_eq!(ring[0], ring[ring.len() - 1]);
        assert!(ring.contains(&(0.0, 1.0)) && ring.contains(&(2.0, 1.0)));
    }
}
