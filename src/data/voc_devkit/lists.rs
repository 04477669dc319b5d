//! The lists of `ImageSets`: which images a set has, and which of them show a class.
//!
//! Lines end in `\n`, `\r\n` or `\r`. A line is one id and, in a class's list, a value; in a list
//! for `Main` a value may follow too (some years have it). An id with white space inside is taken
//! where an image has that name; any other line of several words is refused, since the second may
//! be a second id.

use super::{Task, class_list, image_path, mask_path, wrong};
use crate::data::{CLASSES, Labels, id, read_file};
use crate::error::{Error, Result, printable};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// An id and the line of its list that it is in, from 1.
pub(super) type Listed = (String, usize);

/// A set's list and what is in it.
pub(super) fn ids(
    root: &Path,
    task: Task,
    set: &str,
    classes: &ClassLists,
) -> Result<(PathBuf, Vec<Listed>)> {
    let path = task.list(root, set);
    let (path, ids) = if path.is_file() {
        let ids = read_ids(root, task, &path)?;
        (path, ids)
    } else if let (Task::Main, Some((path, ids))) = (task, &classes.first) {
        (path.clone(), ids.clone())
    } else {
        let known: Vec<&str> =
            ["train", "val", "trainval", "test"].into_iter().filter(|set| task.has(root, set)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::file(
            path,
            format!("expected a list of pictures, got no such file (there are: {known})"),
        ));
    };
    match ids.is_empty() {
        true => Err(Error::file(path, "expected at least one picture, got an empty list")),
        false => Ok((path, ids)),
    }
}

/// The lines that are not empty, with their numbers from 1 and without white space around them.
fn lines(text: &str) -> Vec<(usize, String)> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let lines = text.split(['\n', '\r']).enumerate();
    let lines = lines.map(|(i, line)| (i + 1, line.trim().to_owned()));
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

fn read_lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let text = String::from_utf8(read_file(path)?);
    Ok(lines(&text.map_err(|_| Error::file(path, "expected a list in UTF-8"))?))
}

fn read_ids(root: &Path, task: Task, path: &Path) -> Result<Vec<Listed>> {
    let mut ids = Vec::new();
    let mut first_line = HashMap::new();
    for (line, text) in read_lines(path)? {
        let id = id_of(root, task, &text).map_err(|message| wrong(path, line, message))?;
        if let Some(first) = first_line.insert(id.to_owned(), line) {
            let message = format!("`{}` was in line {first} before", printable(id));
            return Err(wrong(path, line, message));
        }
        ids.push((id.to_owned(), line));
    }
    Ok(ids)
}

/// The id that a line of a set's list is.
fn id_of<'a>(root: &Path, task: Task, text: &'a str) -> Result<&'a str, String> {
    let there = |id: &str| image_path(root, id).is_file();
    let valued = id_and_value(text).filter(|_| task == Task::Main).map(|(id, _)| id);
    let id = match (text.contains(char::is_whitespace), valued) {
        (false, _) => text,
        (true, Some(id)) if there(text) && there(id) => {
            let message = "expected one picture, got two: is the last word a value, or part of the id";
            return Err(format!("{message} in `{}`?", printable(text)));
        }
        (true, _) if there(text) => text,
        (true, Some(id)) => id,
        (true, None) => return Err(format!("expected one id, got `{}`", printable(text))),
    };
    checked(root, id, text)
}

/// An id and its value, if a line ends in one.
fn id_and_value(text: &str) -> Option<(&str, bool)> {
    let (id, value) = text.rsplit_once(char::is_whitespace)?;
    let shown = match value {
        "1" | "0" => true,
        "-1" => false,
        _ => return None,
    };
    Some((id.trim_end(), shown))
}

/// What is left of an id that ends in what may be a value (`photo 1`), read so in a list for `Main`.
pub(crate) fn without_value(id: &str) -> Option<&str> {
    id_and_value(id).map(|(id, _)| id)
}

/// The id, unless it is none, or several.
fn checked<'a>(root: &Path, id: &'a str, text: &str) -> Result<&'a str, String> {
    if id.contains(['/', '\\']) {
        let got = printable(id);
        return Err(format!("expected a file's name without its folder and ending, got `{got}`"));
    }
    id::check(id)?;
    if id.contains(char::is_whitespace) && !image_path(root, id).is_file() {
        return Err(format!("expected one id, got `{}`", printable(text)));
    }
    Ok(id)
}

/// What the class lists of a set say of an image.
#[derive(Clone)]
struct Shown {
    /// The lists that name it.
    named: [bool; CLASSES.len()],
    labels: Labels,
}

impl Shown {
    fn nothing() -> Self {
        Shown { named: [false; CLASSES.len()], labels: vec![false; CLASSES.len()] }
    }
}

/// What the classes' lists say: labels of the images that all twenty of them name.
#[derive(Default)]
pub(super) struct ClassLists {
    shown: HashMap<String, Shown>,
    /// The first class's list of the set and what is in it.
    first: Option<(PathBuf, Vec<Listed>)>,
}

impl ClassLists {
    pub fn read(root: &Path, set: &str) -> Result<Self> {
        let mut lists = ClassLists::default();
        // A set for segmentation need not be the one of the same name for classification.
        let others: &[&str] = if set == "test" { &[] } else { &["trainval", "train", "val"] };
        let sets = std::iter::once(set).chain(others.iter().copied().filter(|other| *other != set));
        for one in sets {
            let paths = CLASSES.map(|class| class_list(root, class, one));
            if !paths.iter().any(|path| path.is_file()) {
                continue;
            }
            let mut found: HashMap<String, Shown> = HashMap::new();
            for (class, path) in paths.iter().enumerate() {
                let ids = read_class(root, class, path, &mut found)?;
                if class == 0 && one == set {
                    lists.first = Some((path.clone(), ids));
                }
            }
            lists.join(found, one, &paths)?;
        }
        Ok(lists)
    }

    /// Takes over what another set's lists say; what contradicts is an error.
    fn join(&mut self, found: HashMap<String, Shown>, set: &str, paths: &[PathBuf]) -> Result<()> {
        for (id, new) in found {
            let known = self.shown.entry(id.clone()).or_insert_with(|| new.clone());
            let says = |class: usize| known.named[class] && new.named[class];
            let contradicted = |&class: &usize| says(class) && known.labels[class] != new.labels[class];
            if let Some(class) = (0..CLASSES.len()).find(contradicted) {
                let (id, class_name) = (printable(&id), CLASSES[class]);
                let message = format!(
                    "expected the sets' lists of `{class_name}` to agree on `{id}`, got another value \
                     than before in the one of `{set}`"
                );
                return Err(Error::file(&paths[class], message));
            }
        }
        Ok(())
    }

    pub fn labels(&self, id: &str) -> Option<Labels> {
        let shown = self.shown.get(id)?;
        shown.named.iter().all(|&named| named).then(|| shown.labels.clone())
    }

    /// Is it in some of the twenty lists, but not in all?
    pub fn names_in_part(&self, id: &str) -> bool {
        self.shown.contains_key(id) && self.labels(id).is_none()
    }
}

fn read_class(
    root: &Path,
    class: usize,
    path: &Path,
    found: &mut HashMap<String, Shown>,
) -> Result<Vec<Listed>> {
    let mut ids = Vec::new();
    for (line, text) in read_lines(path)? {
        let wrong = |message: String| wrong(path, line, message);
        let expected = || wrong(format!("expected an id and 1, 0 or -1, got `{}`", printable(&text)));
        let (id, value) = id_and_value(&text).ok_or_else(expected)?;
        checked(root, id, &text).map_err(wrong)?;
        let shown = found.entry(id.to_owned()).or_insert_with(Shown::nothing);
        if shown.named[class] {
            return Err(wrong(format!("`{}` was in this list before", printable(id))));
        }
        (shown.named[class], shown.labels[class]) = (true, value);
        ids.push((id.to_owned(), line));
    }
    Ok(ids)
}

/// An error, with the line of the list, where a file of the image is not there.
pub(super) fn files_exist(root: &Path, list: &Path, listed: &Listed, masks: bool) -> Result<()> {
    let (id, line) = listed;
    let there = |what: &str, path: PathBuf| {
        if path.is_file() {
            return Ok(());
        }
        let (id, path) = (printable(id), path.display());
        Err(wrong(list, *line, format!("expected the {what} of `{id}` at {path}, got no such file")))
    };
    there("picture", image_path(root, id))?;
    if masks { there("mask", mask_path(root, id)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_whatever_ends_lines_anywhere() {
        let expected = vec![(1, "a".to_owned()), (2, "b c".to_owned()), (4, "d".to_owned())];
        for end in ["\n", "\r", "\r\n"] {
            for last in ["", end] {
                let text = "\u{feff}a\n b c \n\nd".replace('\n', end) + last;
                assert_eq!(lines(&text), expected, "{text:?}");
            }
        }
        let mixed: Vec<usize> = lines("a\rb\r\nc\n\rd").into_iter().map(|(line, _)| line).collect();
        assert_eq!(mixed, [1, 2, 3, 5]);
    }
}
