//! Images that are in memory already: photos of one's own, frames of a film.

use super::{Classes, Dataset, Image, Labels, Mask};
use crate::error::Result;

/// Images with names, of which nobody knows what is in them: what a network is to say.
///
/// ```
/// use atrous::data::{Classes, Dataset, Image, in_memory::InMemory};
///
/// let grey = Image::new(4, 6, vec![128; 4 * 6 * 3])?;
/// let images = InMemory::new(vec![("grey".into(), grey)], Classes::new(["cat", "dog"])?);
/// assert_eq!((images.len(), images.id(0), images.size(0)?), (1, "grey".to_string(), (4, 6)));
/// assert!(images.labels(0).is_none() && images.mask(0)?.is_none());
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct InMemory {
    images: Vec<(String, Image)>,
    classes: Classes,
}

impl InMemory {
    /// Images with what they are called, and the classes that a network tells apart.
    pub fn new(images: Vec<(String, Image)>, classes: Classes) -> Self {
        InMemory { images, classes }
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn id(&self, index: usize) -> String {
        self.images[index].0.clone()
    }

    fn labels(&self, _: usize) -> Option<Labels> {
        None
    }

    fn image(&self, index: usize) -> Result<Image> {
        Ok(self.images[index].1.clone())
    }

    fn size(&self, index: usize) -> Result<(usize, usize)> {
        let Image { height, width, .. } = self.images[index].1;
        Ok((height, width))
    }

    fn mask(&self, _: usize) -> Result<Option<Mask>> {
        Ok(None)
    }
}
