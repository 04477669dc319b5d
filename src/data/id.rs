//! Ids: what an image is called in tables, in lists, and in its files' names.
//!
//! An Id is any text that is part of a file's name and is not changed by being written into a
//! table or a list: neither empty nor with white space around it, without folders, line ends or
//! other control characters. Commas, quotes, and spaces inside are fine in both layouts.

use crate::error::printable;
use std::collections::HashMap;

/// An error that says what is wrong with an Id, which becomes part of file names and csv cells.
///
/// ```
/// use atrous::data::id::check;
///
/// assert_eq!(check("2007_000032"), Ok(()));
/// assert_eq!(check("a dog, barking"), Ok(()));
/// assert!(check("../secret").is_err() && check("dog ").is_err() && check("").is_err());
/// ```
pub fn check(id: &str) -> Result<(), String> {
    let got = || format!("got `{}`", printable(id));
    if id.is_empty() {
        return Err("expected an Id, got an empty field".to_owned());
    }
    if id.contains(['/', '\\']) || id == "." || id == ".." {
        return Err(format!("expected part of a file's name, {}", got()));
    }
    if id.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(format!("expected an Id without line ends and control characters, {}", got()));
    }
    if id.trim() != id {
        return Err(format!("expected an Id without white space around it, {}", got()));
    }
    Ok(())
}

/// Pairs of different Ids, each with the one before it that only capitals tell it from: file
/// systems that do not tell capitals from small letters have one file for both.
pub(crate) fn differ_by_capitals<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut before = HashMap::new();
    let mut pairs = Vec::new();
    for id in ids {
        let first = *before.entry(id.to_lowercase()).or_insert(id);
        if first != id && !pairs.contains(&(first, id)) {
            pairs.push((first, id));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_or_table_can_hold_is_no_id() {
        for id in ["7", "2007_000032", "a b", "a,b", "d\"e", "=1+1", "Größe", "猫", ".x", "x 1", "-1"]
        {
            assert_eq!(check(id), Ok(()), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a\\b", " a", "a ", "a\u{a0}", "a\nb", "a\rb", "\x1b[2J", "a\0"]
        {
            assert!(check(id).is_err(), "{id:?}");
        }
        assert!(!check("\x1b[2J").unwrap_err().contains('\x1b'));
    }

    #[test]
    fn ids_that_only_capitals_tell_apart_are_found() {
        assert_eq!(differ_by_capitals(["a", "B", "a", "A", "b", "A"]), [("a", "A"), ("B", "b")]);
        assert!(differ_by_capitals(["a", "b"]).is_empty());
    }
}
