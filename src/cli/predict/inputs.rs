//! Which images a command line means: files, folders, lists, patterns, standard input.

use crate::cli::output;
use atrous::data::Image;
use atrous::data::image_files::{decode_image, is_image, read_image};
use atrous::files::explain;
use atrous::{Error, Result};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// What an image's name ends in, in a folder whose other files are passed over.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// So many bytes of a file say what it is.
const START: u64 = 12;

/// More bytes than this are neither a list nor an image.
const MOST_BYTES: u64 = 1 << 30;

/// What standard input's image is called.
const STDIN: &str = "stdin";

/// An image that is to be predicted.
#[derive(Debug)]
pub struct Input {
    /// Its path as it was given, or found in what was given.
    pub path: PathBuf,
    /// What came through a pipe.
    bytes: Option<Vec<u8>>,
}

impl Input {
    /// Upright, as all images are read.
    pub fn read(&self) -> Result<Image> {
        match &self.bytes {
            Some(bytes) => decode_image(bytes).map_err(|message| Error::file(&self.path, message)),
            None => read_image(&self.path),
        }
    }

    /// For people and tables.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// What a command line's arguments mean together.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Each once, in the order of the arguments; a folder's by their names.
    pub images: Vec<Input>,
    /// How many files of folders are none.
    pub passed_over: usize,
    /// What was asked for and is not there.
    pub failures: Vec<Error>,
    seen: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
}

impl Inputs {
    /// Looks into folders, lists and patterns. `except` is a folder that is left out: the one that results
    /// go to. An error where there is no image at all.
    pub fn find(arguments: &[PathBuf], except: Option<&Path>) -> Result<Self> {
        let mut inputs = Inputs::default();
        // (As if it had been looked into.)
        inputs.folders.extend(except.and_then(|folder| fs::canonicalize(folder).ok()));
        arguments.iter().for_each(|argument| inputs.argument(argument));
        if !inputs.images.is_empty() {
            return Ok(inputs);
        }
        let mut failures = inputs.failures.into_iter();
        let Some(first) = failures.next() else {
            let besides = if except.is_some() { ", besides those in the folder of --out" } else { "" };
            let message = format!("expected images (JPEG, PNG or WebP){besides}, got none");
            return Err(Error::file(&arguments[0], message));
        };
        failures.for_each(|error| output::tell(&error));
        Err(first)
    }

    fn argument(&mut self, argument: &Path) {
        if argument == Path::new("-") {
            return self.stream(Path::new(STDIN), &mut io::stdin().lock());
        }
        match fs::metadata(argument) {
            Err(_) if is_pattern(argument) => self.pattern(argument),
            Ok(there) if !there.is_file() && !there.is_dir() => match File::open(argument) {
                Ok(mut pipe) => self.stream(argument, &mut pipe),
                Err(error) => self.fail(argument, explain(&error)),
            },
            Ok(there) if there.is_file() && is_list(argument) => match fs::read(argument) {
                Ok(bytes) => self.list(&bytes, argument.parent()),
                Err(error) => self.fail(argument, explain(&error)),
            },
            _ => self.path(argument),
        }
    }

    /// `*.jpg`, where no shell has put the names in its place.
    fn pattern(&mut self, pattern: &Path) {
        let paths = match glob::glob(&pattern.to_string_lossy()) {
            Ok(paths) => paths,
            Err(error) => return self.fail(pattern, error),
        };
        let mut any = false;
        for path in paths {
            any = true;
            match path {
                Ok(path) => self.path(&path),
                Err(error) => self.fail(error.path(), explain(error.error())),
            }
        }
        if !any {
            self.fail(pattern, "expected files of such names, got none");
        }
    }

    /// A file or a folder.
    fn path(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => self.folder(path),
            Ok(_) => self.add(path, None),
            Err(error) => self.fail(path, explain(&error)),
        }
    }

    fn folder(&mut self, folder: &Path) {
        // A link may lead back to where it is.
        let is_new = fs::canonicalize(folder).map_or(true, |folder| self.folders.insert(folder));
        if !is_new {
            return;
        }
        let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail(folder, explain(&error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // What systems leave beside images, some of it with their names (`._cat.jpg`).
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            match fs::metadata(&path) {
                _ if hidden => self.passed_over += 1,
                Ok(there) if there.is_dir() => self.folder(&path),
                Ok(there) if there.is_file() && (has_ending(&path) || begins_as_image(&path)) => {
                    self.add(&path, None);
                }
                Ok(_) => self.passed_over += 1,
                Err(error) => self.fail(&path, explain(&error)),
            }
        }
    }

    /// An image's bytes, or a list of paths.
    fn stream(&mut self, name: &Path, from: &mut dyn Read) {
        let mut bytes = Vec::new();
        if let Err(error) = from.take(MOST_BYTES).read_to_end(&mut bytes) {
            return self.fail(name, explain(&error));
        }
        match (is_image(&bytes), bytes.is_empty()) {
            (true, _) => self.add(name, Some(bytes)),
            (_, true) => self.fail(name, "expected an image or a list of paths, got nothing"),
            _ => self.list(&bytes, None),
        }
    }

    /// A path a line, or each before a zero (`find -print0`); from the folder that the list is in, or from
    /// the one one works in.
    fn list(&mut self, bytes: &[u8], beside: Option<&Path>) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let end = if bytes.contains(&0) { 0 } else { b'\n' };
        for line in bytes.split(|&byte| byte == end) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let path = PathBuf::from(os_string(line));
            let near = beside.map(|folder| folder.join(&path)).filter(|path| path.exists());
            self.path(&near.unwrap_or(path));
        }
    }

    fn add(&mut self, path: &Path, bytes: Option<Vec<u8>>) {
        // `./a` is `a`.
        let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        if self.seen.insert(plain.clone()) {
            self.images.push(Input { path: plain, bytes });
        }
    }

    fn fail(&mut self, path: &Path, message: impl std::fmt::Display) {
        self.failures.push(Error::file(path, message));
    }
}

fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// A text file of paths, by its name; an image may have any.
fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) && !begins_as_image(path)
}

fn has_ending(path: &Path) -> bool {
    path.extension().is_some_and(|own| ENDINGS.iter().any(|ending| own.eq_ignore_ascii_case(ending)))
}

fn begins_as_image(path: &Path) -> bool {
    let mut start = Vec::new();
    File::open(path).is_ok_and(|file| file.take(START).read_to_end(&mut start).is_ok())
        && is_image(&start)
}

/// A name as the file system has it, whatever its encoding.
#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use atrous::data::image_files::write_png;

    /// A folder with an image under each name.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::new(2, 3, vec![7; 18]).unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_png(&path, &image).unwrap();
        }
        folder
    }

    fn found(inputs: &Inputs, folder: &Path) -> Vec<String> {
        let below = |input: &Input| input.path.strip_prefix(folder).unwrap().display().to_string();
        inputs.images.iter().map(below).collect()
    }

    #[test]
    fn a_folder_has_its_images_by_name_whatever_they_are_called_and_nothing_else() {
        let names =
            ["b/Zürich 1.JPG", "b/no ending", "a.webp", "c.jpeg", "._c.jpeg", "out/a_overlay.png"];
        let folder = folder(&names);
        fs::write(folder.path().join("notes.txt"), "a.webp").unwrap();
        fs::write(folder.path().join("broken.jpg"), "").unwrap();
        let argument = [folder.path().to_owned()];
        let inputs = Inputs::find(&argument, Some(&folder.path().join("out"))).unwrap();
        let expected = ["a.webp", "b/Zürich 1.JPG", "b/no ending", "broken.jpg", "c.jpeg"];
        assert_eq!(found(&inputs, folder.path()), expected);
        assert_eq!((inputs.passed_over, inputs.failures.len()), (2, 0));
        let broken = inputs.images[3].read().unwrap_err().to_string();
        assert!(broken.contains("broken.jpg: expected a JPEG"), "{broken}");
    }

    #[test]
    fn lists_patterns_and_what_is_missing_are_told_apart() {
        let folder = folder(&["a.png", "in/b.png", "in/c [1].png"]);
        let at = |name: &str| folder.path().join(name);
        let list = format!("\u{feff}a.png\r\n\n{}\nmissing.png\n", at("in").display());
        fs::write(at("list.txt"), list).unwrap();
        let inputs = Inputs::find(&[at("list.txt"), at("a.png"), at("in/*.png")], None).unwrap();
        assert_eq!(found(&inputs, folder.path()), ["a.png", "in/b.png", "in/c [1].png"]);
        assert_eq!(inputs.failures.len(), 1);
        assert!(inputs.failures[0].to_string().starts_with("missing.png: no such file"));
        let inputs = Inputs::find(&[at("in/c [1].png"), at("none/*.png"), at("[")], None).unwrap();
        assert_eq!((inputs.images.len(), inputs.failures.len()), (1, 2), "{inputs:?}");
        assert!(Inputs::find(&[at("none")], None).unwrap_err().to_string().contains("no such file"));
        fs::create_dir(at("empty")).unwrap();
        let none = Inputs::find(&[at("empty")], None).unwrap_err().to_string();
        assert!(none.ends_with("expected images (JPEG, PNG or WebP), got none"), "{none}");
    }

    #[test]
    fn a_stream_is_an_image_or_a_list_with_lines_or_zeros() {
        let folder = folder(&["a.png", "b c.png"]);
        let [a, b] = ["a.png", "b c.png"].map(|name| folder.path().join(name));
        let mut inputs = Inputs::default();
        inputs.stream(Path::new("stdin"), &mut &fs::read(&a).unwrap()[..]);
        assert_eq!(inputs.images[0].read().unwrap().width, 3);
        let list = format!("{}\0{}\0", a.display(), b.display());
        inputs.stream(Path::new("stdin"), &mut list.as_bytes());
        inputs.stream(Path::new("stdin"), &mut &b""[..]);
        assert_eq!((inputs.images.len(), inputs.failures.len()), (3, 1));
    }
}
