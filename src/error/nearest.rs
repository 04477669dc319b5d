//! "Did you mean …?": the known name that is most like one that is not known.

/// The one of the names that is most like `name`, case aside; None where none is like it. Like it is what at
/// most a third of its letters tell apart (one of a short name): letters that were left out, added, mistaken,
/// or that changed places with their neighbour (the optimal string alignment distance). Of names that are as
/// near the longest, of which a letter was left out rather than added.
///
/// ```
/// use atrous::error::nearest;
///
/// let networks = ["alexnet", "vgg16", "mobilenet", "mobilenetv2"];
/// assert_eq!(nearest("alexnot", networks), Some("alexnet"));
/// assert_eq!(nearest("MobilNet", networks), Some("mobilenet"));
/// assert_eq!(nearest("lenet", networks), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let name = letters(name);
    let most = (name.len() / 3).max(1);
    let far = known.into_iter().map(|other| (distance(&name, &letters(other)), other));
    far.filter(|&(far, _)| far <= most && far < name.len())
        .min_by_key(|&(far, other)| (far, std::cmp::Reverse(other.len())))
        .map(|(_, other)| other)
}

/// How many letters have to be put in, left out, replaced, or swapped with the next to make `b` of `a`.
fn distance(a: &[char], b: &[char]) -> usize {
    // The last three rows of the table over the beginnings of both.
    let (mut before, mut above) = (Vec::new(), (0..=b.len()).collect::<Vec<_>>());
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut least = (above[j] + (a[i] != b[j]) as usize).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let before: &Vec<usize> = &before;
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_left_out_added_mistaken_and_swapped_are_one_each() {
        let far =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, wanted) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "acb", 1),
            ("abc", "bc", 1),
            ("abc", "xabc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(far(a, b), wanted, "{a} {b}");
        }
    }

    #[test]
    fn what_is_like_nothing_has_no_nearest() {
        assert_eq!(nearest("", ["a", "b"]), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest("epoch", ["epochs", "seed"]), Some("epochs"));
        assert_eq!(nearest("batch_sise", ["batch_size", "base_rate"]), Some("batch_size"));
        assert_eq!(nearest("epochs", []), None);
    }
}
