//! Files that hold the same image under two Ids.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::Path;

/// What a file holds, in short; None where it cannot be read.
pub fn of(path: &Path) -> Option<u64> {
    let (mut file, mut hasher) = (File::open(path).ok()?, DefaultHasher::new());
    let mut bytes = vec![0; 1 << 16];
    loop {
        match file.read(&mut bytes).ok()? {
            0 => return Some(hasher.finish()),
            read => hasher.write(&bytes[..read]),
        }
    }
}

/// Files by what they hold.
#[derive(Default)]
pub struct Contents {
    places: HashMap<u64, usize>,
    /// The split and Id of each file, those with the same bytes together.
    groups: Vec<Vec<(String, String)>>,
}

impl Contents {
    pub fn add(&mut self, split: &str, id: &str, content: Option<u64>) {
        let Some(content) = content else { return };
        let place = *self.places.entry(content).or_insert(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(Vec::new());
        }
        self.groups[place].push((split.to_owned(), id.to_owned()));
    }

    /// One line for each image that is there more than once.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.groups.iter().filter(|group| group.len() > 1).map(|group| {
            let named: Vec<String> =
                group.iter().map(|(split, id)| format!("`{id}` ({split})")).collect();
            let apart = group.iter().any(|(split, _)| *split != group[0].0);
            let leak = if apart { ": no two sets should share one" } else { "" };
            format!("the same picture in {} files: {}{leak}", group.len(), named.join(", "))
        })
    }
}
