//! Annotations: XML files that name the objects of an image.
//!
//! They are read as a stream, in time linear in their length: a tree with its namespaces resolved
//! takes cubic time where a file nests thousands of them.

use super::wrong;
use crate::data::{CLASSES, Labels, read_file};
use crate::error::{Error, Result, printable};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::path::Path;

/// The classes of the objects in an annotation (XML), difficult ones included. An error that says
/// where, if it is not well formed or names a class that is none of VOC's.
///
/// ```
/// use atrous::data::Classes;
/// use atrous::data::voc_devkit::read_annotation;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("2007_000032.xml");
/// let objects = ["cat", "person", "cat"].map(|name| format!("<object><name>{name}</name></object>"));
/// std::fs::write(&path, format!("<annotation>{}</annotation>", objects.concat()))?;
/// assert_eq!(Classes::voc().named(&read_annotation(&path)?).collect::<Vec<_>>(), ["cat", "person"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_annotation(path: impl AsRef<Path>) -> Result<Labels> {
    let path = path.as_ref();
    let text = String::from_utf8(read_file(path)?);
    let text = text.map_err(|_| Error::file(path, "expected XML in UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = Reader::from_str(text);
    let mut annotation = Annotation { labels: vec![false; CLASSES.len()], ..Annotation::default() };
    loop {
        let at = reader.buffer_position() as usize;
        let line = |at: usize| 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        match reader.read_event() {
            Ok(Event::Eof) => break,
            Ok(event) => {
                annotation.take(event, at).map_err(|(at, message)| wrong(path, line(at), message))?
            }
            Err(error) => {
                let line = line((reader.error_position() as usize).min(text.len()));
                return Err(Error::file(path, format!("expected XML, got in line {line}: {error}")));
            }
        }
    }
    match (annotation.depth, annotation.begun) {
        (0, true) => Ok(annotation.labels),
        (0, false) => Err(Error::file(path, "expected XML with <annotation>, got an empty file")),
        _ => Err(Error::file(path, "expected XML, got a file that ends within an element")),
    }
}

/// What has been read so far.
#[derive(Default)]
struct Annotation {
    labels: Labels,
    begun: bool,
    /// Elements that are open.
    depth: usize,
    /// The object that is open: where it begins, and whether its class has been named.
    object: Option<(usize, bool)>,
    /// The name of the object that is open: where it begins, and its text so far.
    name: Option<(usize, String)>,
}

/// What is wrong, and where.
type Wrong = (usize, String);

impl Annotation {
    fn take(&mut self, event: Event, at: usize) -> Result<(), Wrong> {
        match event {
            Event::Start(element) => self.begin(&element, at),
            Event::Empty(element) => {
                self.begin(&element, at)?;
                self.end()
            }
            Event::End(_) => self.end(),
            Event::Text(text) => self.text(&text.xml10_content(), at),
            Event::CData(text) => self.text(&text.xml10_content(), at),
            Event::GeneralRef(name) => self.text(&format!("&{};", name.into_inner()), at),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, element: &BytesStart, at: usize) -> Result<(), Wrong> {
        let name = element.name();
        let name: &str = name.as_ref();
        // Twice the same attribute is not looked for: that takes quadratic time.
        if let Some(error) = element.attributes().with_checks(false).find_map(|found| found.err()) {
            return Err((at, format!("expected attributes in <{}>, got: {error}", printable(name))));
        }
        if self.name.is_some() {
            return Err((at, "expected a class in <name>, got an element in it".to_owned()));
        }
        match (self.depth, name) {
            (0, "annotation") if !self.begun => self.begun = true,
            (0, _) if self.begun => {
                let message = "expected the end of the file after </annotation>, got";
                return Err((at, format!("{message} <{}>", printable(name))));
            }
            (0, _) => return Err((at, format!("expected <annotation>, got <{}>", printable(name)))),
            (1, "object") => self.object = Some((at, false)),
            (_, "object") => {
                let message = "expected <object> directly in <annotation>, got it in another element";
                return Err((at, message.to_owned()));
            }
            (2, "name") => match &mut self.object {
                Some((_, named @ false)) => {
                    *named = true;
                    self.name = Some((at, String::new()));
                }
                Some(_) => return Err((at, "expected one <name> in <object>, got two".to_owned())),
                None => {}
            },
            _ => {}
        }
        self.depth += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Wrong> {
        self.depth = self.depth.saturating_sub(1);
        if let Some((at, text)) = self.name.take() {
            let text = text.trim();
            match CLASSES.iter().position(|class| *class == text) {
                Some(class) => self.labels[class] = true,
                None => {
                    let message = "expected one of VOC's 20 classes in <name>, got";
                    return Err((at, format!("{message} `{}`", printable(text))));
                }
            }
        }
        if self.depth == 1
            && let Some((at, false)) = self.object.take()
        {
            return Err((at, "expected a <name> in <object>, got none".to_owned()));
        }
        Ok(())
    }

    fn text(&mut self, text: &str, at: usize) -> Result<(), Wrong> {
        match &mut self.name {
            Some((_, name)) => name.push_str(text),
            None if self.depth == 0 && !text.trim().is_empty() => {
                return Err((at, "expected XML, got text outside <annotation>".to_owned()));
            }
            None => {}
        }
        Ok(())
    }
}
