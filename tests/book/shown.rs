//! Whether a command printed what a page shows: the rules at the end of docs/README.md.

/// Stands for anything: alone on a line for any lines, within a line for any characters.
const ANYTHING: char = '…';

/// An error that names the first line that is not as shown.
pub fn check(shown: &[String], printed: &str) -> Result<(), String> {
    let clean = |line: &str| plain(line);
    let wanted: Vec<String> =
        shown.iter().map(|line| clean(line)).filter(|line| !line.is_empty()).collect();
    let printed: Vec<String> = printed.lines().map(clean).filter(|line| !line.is_empty()).collect();
    let is_any = |line: &String| line.chars().eq([ANYTHING]);
    match furthest(&wanted, &printed, is_any, |wanted, line| is_like(wanted, line)) {
        Ok(()) => Ok(()),
        Err(at) => {
            let wanted = wanted.get(at).map_or("the output's end", |line| line);
            Err(format!("expected `{wanted}`, got:\n{}", printed.join("\n")))
        }
    }
}

fn is_like(wanted: &str, line: &str) -> bool {
    let [wanted, line] = [wanted, line].map(|text| text.chars().collect::<Vec<_>>());
    furthest(&wanted, &line, |c| *c == ANYTHING, |a, b| a == b).is_ok()
}

/// Whether the whole of `items` is as `pattern` has it; if not, the place of the pattern that nothing fits.
fn furthest<T>(
    pattern: &[T],
    items: &[T],
    is_any: impl Fn(&T) -> bool,
    fits: impl Fn(&T, &T) -> bool,
) -> Result<(), usize> {
    let (mut p, mut i, mut best) = (0, 0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while p < pattern.len() || i < items.len() {
        best = best.max(p);
        if p < pattern.len() && is_any(&pattern[p]) {
            retry = Some((p, i + 1));
            p += 1;
        } else if p < pattern.len() && i < items.len() && fits(&pattern[p], &items[i]) {
            (p, i) = (p + 1, i + 1);
        } else {
            match retry {
                Some((any, next)) if next <= items.len() => {
                    retry = Some((any, next + 1));
                    (p, i) = (any + 1, next);
                }
                _ => return Err(best),
            }
        }
    }
    Ok(())
}

/// The line with white space of one width, and every number that has a point or a colon in it (0.482, .5,
/// 1.8e-7, 0:07) as `#`: such are measured, or their last digits hang on the instruction set.
fn plain(line: &str) -> String {
    let text: Vec<char> = line.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    let digit = |i: usize| text.get(i).is_some_and(char::is_ascii_digit);
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        let mut end = at;
        let mut measured = false;
        while digit(end) || (matches!(text.get(end), Some('.' | ':')) && digit(end + 1)) {
            measured |= !digit(end);
            end += 1;
        }
        if measured && text.get(end) == Some(&'e') {
            let sign = matches!(text.get(end + 1), Some('+' | '-')) as usize;
            if digit(end + 1 + sign) {
                end += 1 + sign;
                while digit(end) {
                    end += 1;
                }
            }
        }
        match end == at {
            true => {
                out.push(text[at]);
                at += 1;
            }
            false => {
                out.extend(if measured { &['#'][..] } else { &text[at..end] });
                at = end;
            }
        }
    }
    out
}

#[test]
fn what_is_shown_may_leave_out_lines_and_parts_of_lines() {
    let check = |shown: &str, printed: &str| {
        check(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), printed).is_ok()
    };
    assert!(check("a  b\n…\nd", "a b\nb\nc\nd\n"));
    assert!(check("…\nb\n…", "a\nb\nb\nc\n") && check("…\nb", "a\nb\nb\n"));
    assert!(check("a … of 8\n…", "a 1 2 of 8\n"));
    assert!(!check("a", "a\nb\n") && !check("a\nb", "a\n") && !check("…\nx\n…", "a\nb\n"));
}

#[test]
fn a_number_with_a_point_or_a_colon_may_be_another_and_a_whole_one_may_not() {
    for (shown, printed, fine) in [
        ("loss 0.4051, 0:03 left", "loss 1.9, 1:22:05 left", true),
        ("1.2e-7 off", "3.84e-12 off", true),
        ("mAP .576.", "mAP .61.", true),
        ("7 steps", "8 steps", false),
        ("0.5 of 7", "0.5 of 7.1", false),
        ("2,048 weights", "2,049 weights", false),
    ] {
        let result = check(&[shown.to_owned()], printed);
        assert_eq!(result.is_ok(), fine, "{shown}: {result:?}");
    }
}
