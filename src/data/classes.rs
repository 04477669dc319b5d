//! The names of what is told apart: twenty in VOC, any others in a data set of one's own.

use crate::error::{Error, Result, printable};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// PASCAL VOC's classes, in the order of label columns. Class i is i + 1 in a mask.
pub const CLASSES: [&str; 20] = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// Names at most: a network is built for no more.
pub const MOST: usize = 100_000;

/// The names of a data set's classes, in the order of its label columns; class i is i + 1 in a mask, where
/// 0 is the background. Shared: a clone costs nothing.
///
/// ```
/// use atrous::data::Classes;
///
/// let classes = Classes::new(["cat", "dog", "hen"])?;
/// assert_eq!((classes.len(), classes.position("dog")?, &classes[2]), (3, 1, "hen"));
/// assert_eq!((classes.of_mask(0), classes.of_mask(3), classes.of_mask(255)), ("background", "hen", "void"));
/// assert!(classes.position("dgo").unwrap_err().to_string().contains("`dgo`"));
/// assert_eq!(classes.listed(&[true, false, true]), "cat, hen");
/// assert_eq!(classes.listed(&[false; 3]), "nothing");
/// assert!(Classes::new(["cat", "cat"]).is_err());
/// assert!(Classes::voc().is_voc() && !classes.is_voc());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Classes(Arc<[String]>);

impl Classes {
    /// An error for no names, an empty one, one that is there twice, one with a character that no table of
    /// lines can hold, and for more than [`MOST`].
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let wrong = |message: String| Err(Error::argument("classes", message));
        if !(1..=MOST).contains(&names.len()) {
            return wrong(format!("expected 1 to {MOST} names, got {}", names.len()));
        }
        let mut seen = HashSet::new();
        for name in &names {
            if name.trim().is_empty() || name.trim() != name || name.chars().any(char::is_control) {
                let message = "expected names without blanks at their ends and without line breaks";
                return wrong(format!("{message}, got `{}`", printable(name)));
            }
            if !seen.insert(name) {
                return wrong(format!("expected each name once, got `{}` twice", printable(name)));
            }
        }
        Ok(Classes(names.into()))
    }

    /// PASCAL VOC's twenty.
    pub fn voc() -> Self {
        static VOC: LazyLock<Classes> = LazyLock::new(|| Classes(CLASSES.map(str::to_owned).into()));
        VOC.clone()
    }

    /// So many (one at least), called by their numbers: `class 0`, `class 1`, …
    pub fn numbered(count: usize) -> Self {
        Classes((0..count.max(1)).map(|class| format!("class {class}")).collect())
    }

    /// Whether they are PASCAL VOC's twenty, in its order.
    pub fn is_voc(&self) -> bool {
        self.iter().eq(CLASSES)
    }

    /// How many there are, the background not among them.
    #[allow(clippy::len_without_is_empty)] // There is always one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The names, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.0.iter().map(String::as_str)
    }

    /// The place of a name; an error that names what comes closest where there is none like it.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.iter().position(|known| known == name).ok_or_else(|| {
            let names: Vec<&str> = self.iter().collect();
            Error::unknown("class", name, &names)
        })
    }

    /// What a value of a mask means; `?` for what no class has.
    pub fn of_mask(&self, value: u8) -> &str {
        match value {
            super::BACKGROUND => "background",
            super::VOID => "void",
            class => self.0.get(usize::from(class) - 1).map_or("?", String::as_str),
        }
    }

    /// The names of the labels that are set.
    pub fn named<'a>(&'a self, labels: &'a [bool]) -> impl Iterator<Item = &'a str> {
        self.iter().zip(labels).filter(|(_, set)| **set).map(|(name, _)| name)
    }

    /// The same in one text, `cat, dog`; `nothing` where none is set.
    pub fn listed(&self, labels: &[bool]) -> String {
        match self.named(labels).collect::<Vec<_>>() {
            names if names.is_empty() => "nothing".to_owned(),
            names => names.join(", "),
        }
    }
}

impl std::ops::Index<usize> for Classes {
    type Output = str;

    /// The name of class `i`; panics where there is none.
    fn index(&self, i: usize) -> &str {
        &self.0[i]
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl Default for Classes {
    fn default() -> Self {
        Classes::voc()
    }
}

#[cfg(feature = "checkpoint")]
impl serde::Serialize for Classes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(feature = "checkpoint")]
impl<'de> serde::Deserialize<'de> for Classes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Classes::new(names).map_err(serde::de::Error::custom)
    }
}
