//! What the files of an image are called: as short as can be, and no two the same.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

/// Bytes of a name that leave room for what is put behind it.
const MOST: usize = 200;

/// A name for each path, in their order: `holiday/cat.jpg` is `cat`. Of several cats each keeps its folders
/// (`a/cat`, `b/cat`), and its ending where that does not tell them apart (`a/cat.png`). Names that differ
/// only in capitals count as the same: on many file systems they are.
pub fn stems(paths: &[&Path]) -> Vec<PathBuf> {
    let mut stems: Vec<PathBuf> = paths.iter().map(|path| stem(path)).collect();
    let shared = common(paths);
    for longer in [with_folders, with_ending] {
        for i in ambiguous(&stems) {
            stems[i] = longer(paths[i], &shared);
        }
    }
    // (A pipe's image beside a file of its name.)
    let mut taken = HashSet::new();
    for stem in &mut stems {
        let first = stem.clone();
        for number in 2.. {
            if taken.insert(key(stem)) {
                break;
            }
            *stem = beside(&first, format!("{} ({number})", name(&first)));
        }
    }
    stems
}

fn stem(path: &Path) -> PathBuf {
    cut(&path.file_stem().unwrap_or_default().to_string_lossy()).into()
}

fn with_folders(path: &Path, shared: &Path) -> PathBuf {
    let below = path.parent().map(|folder| folder.strip_prefix(shared).unwrap_or(folder));
    // Neither a root nor `..`: it is to be below the folder of results.
    let parts = below.unwrap_or(Path::new("")).components();
    let folders = parts.filter_map(|part| match part {
        Component::Normal(name) => Some(cut(&name.to_string_lossy())),
        _ => None,
    });
    folders.collect::<PathBuf>().join(stem(path))
}

fn with_ending(path: &Path, shared: &Path) -> PathBuf {
    beside(&with_folders(path, shared), cut(&path.file_name().unwrap_or_default().to_string_lossy()))
}

/// The folders that all of the paths begin with.
fn common(paths: &[&Path]) -> PathBuf {
    let mut folders = paths.iter().map(|path| path.parent().unwrap_or(Path::new("")));
    let first = folders.next().unwrap_or(Path::new("")).to_owned();
    folders.fold(first, |shared, folder| {
        let pairs = shared.components().zip(folder.components());
        pairs.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    })
}

/// The places of names that are there more than once.
fn ambiguous(stems: &[PathBuf]) -> Vec<usize> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, stem) in stems.iter().enumerate() {
        places.entry(key(stem)).or_default().push(i);
    }
    places.into_values().filter(|places| places.len() > 1).flatten().collect()
}

fn key(stem: &Path) -> String {
    stem.to_string_lossy().to_lowercase()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// (`with_file_name`, which takes a name with a point for what it is.)
fn beside(path: &Path, name: String) -> PathBuf {
    path.parent().map_or(PathBuf::new(), Path::to_owned).join(name)
}

/// A name's beginning, if it is long.
fn cut(name: &str) -> String {
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
    name[..ends.take_while(|&end| end <= MOST).last().unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Vec<String> {
        let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
        stems(&paths).iter().map(|stem| stem.display().to_string()).collect()
    }

    #[test]
    fn a_name_is_short_where_it_is_alone() {
        assert_eq!(
            of(&["in/a/Zürich 1.JPG", "b.tar.png", "no ending"]),
            ["Zürich 1", "b.tar", "no ending"]
        );
    }

    #[test]
    fn names_that_collide_keep_their_folders_below_those_that_all_have() {
        let paths = ["/home/a/x.jpg", "/home/b/x.jpg", "/home/b/c/X.png", "/home/y.jpg"];
        assert_eq!(of(&paths), ["a/x", "b/x", "b/c/X", "y"]);
        assert_eq!(of(&["x.jpg", "../x.jpg", "../../b/x.jpg"]), ["x.jpg", "x.jpg (2)", "b/x"]);
    }

    #[test]
    fn names_that_differ_in_their_ending_keep_it() {
        assert_eq!(of(&["a/x.jpg", "a/x.png", "a/y.png"]), ["x.jpg", "x.png", "y"]);
        assert_eq!(of(&["a/x.jpg", "a/x.png", "b/x.png"]), ["a/x.jpg", "a/x.png", "b/x"]);
    }

    #[test]
    fn a_long_name_leaves_room_for_its_ending() {
        let long = format!("{}.jpg", "ü".repeat(126));
        assert_eq!(of(&[&long]), ["ü".repeat(100)]);
    }
}
