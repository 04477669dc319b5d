//! The csv file: written atomically and as it comes, read with the place of every mistake.

use super::runs::{Runs, shortened};
use crate::data::table::Records;
use crate::error::{Error, Result};
use crate::files::{explain, write_atomically};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const HEADER: [&str; 2] = ["Id", "Predicted"];
const CLASSIFICATION: &str = "_classification";
const SEGMENTATION: &str = "_segmentation";

/// The two rows of one image.
///
/// ```
/// use atrous::predict::submission::Entry;
///
/// // Four classes, of which the second and third are there; a mask of four pixels.
/// let entry = Entry::new("cat", &[0, 1, 1, 0], Some(&[0, 2, 2, 3]));
/// assert_eq!(entry.classification.to_string(), "2 2"); // from the second on, two
/// assert_eq!(entry.segmentation.to_string(), "6 2 12 1"); // 4 + 2 and 4 + 3, then 8 + 4
/// assert_eq!(Entry::new("cat", &[0, 1, 1, 0], None).segmentation.to_string(), "");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The image's, without what tells the rows apart.
    pub id: String,
    /// The runs of one bit a class.
    pub classification: Runs,
    /// The runs of the class masks, stacked and flattened.
    pub segmentation: Runs,
}

impl Entry {
    /// `labels` is 0 or 1 a class; `mask` the image's label map, or none for a run that only
    /// classifies (its row is then empty).
    pub fn new(id: impl Into<String>, labels: &[u8], mask: Option<&[u8]>) -> Self {
        // There are as many masks as labels, and never more classes than a label map can name.
        let classes = labels.len().min(255) as u8;
        Entry {
            id: id.into(),
            classification: Runs::of_mask(labels),
            segmentation: mask.map(|mask| Runs::of_classes(mask, classes)).unwrap_or_default(),
        }
    }

    fn rows(self) -> [(String, Runs); 2] {
        let id = self.id;
        [
            (format!("{id}{CLASSIFICATION}"), self.classification),
            (format!("{id}{SEGMENTATION}"), self.segmentation),
        ]
    }
}

/// Writes the entries as they come, so that they may be predicted one by one. An entry that is an
/// error ends the writing and is returned, and the file that was there stays.
///
/// ```
/// use atrous::Error;
/// use atrous::predict::submission::{Entry, Submission, write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("submission.csv");
/// let labels = [[0, 1], [1, 1]];
/// let ids = ["a", "b"];
/// write(&path, ids.iter().zip(labels).map(|(&id, labels)| Ok(Entry::new(id, &labels, None))))?;
/// assert_eq!(Submission::read(&path)?.len(), 4);
/// let failed = write(&path, [Err(Error::argument("network", "no number"))]);
/// assert!(failed.is_err() && Submission::read(&path)?.len() == 4); // what was there stays
/// # Ok::<(), Error>(())
/// ```
pub fn write(path: impl AsRef<Path>, entries: impl IntoIterator<Item = Result<Entry>>) -> Result<()> {
    let mut failed = None;
    let written = write_atomically(path, |file| write_rows(file, entries, &mut failed));
    failed.map_or(written, Err)
}

/// Writes the entries to anything, up to the first that is an error; `name` is what messages call it.
///
/// ```
/// use atrous::predict::submission::{Entry, write_to};
///
/// let mut bytes = Vec::new();
/// write_to(&mut bytes, "memory", [Ok(Entry::new("cat", &[0, 1], Some(&[0, 2, 2])))])?;
/// let text = "Id,Predicted\ncat_classification,2 1\ncat_segmentation,5 2\n";
/// assert_eq!(String::from_utf8(bytes).unwrap(), text);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn write_to(
    writer: impl Write,
    name: impl AsRef<Path>,
    entries: impl IntoIterator<Item = Result<Entry>>,
) -> Result<()> {
    let mut failed = None;
    let written = write_rows(writer, entries, &mut failed);
    let written =
        written.map_err(|error| Error::file(name, format!("could not be written: {}", explain(&error))));
    failed.map_or(written, Err)
}

/// Writes the entries up to the first that is an error, which is then in `failed`.
fn write_rows(
    writer: impl Write,
    entries: impl IntoIterator<Item = Result<Entry>>,
    failed: &mut Option<Error>,
) -> io::Result<()> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(writer);
    writer.write_record(HEADER).map_err(io_error)?;
    for entry in entries {
        match entry {
            Ok(entry) => {
                for (id, runs) in entry.rows() {
                    writer.write_record([id, runs.to_string()]).map_err(io_error)?;
                }
            }
            Err(error) => {
                *failed = Some(error);
                return Err(io::Error::other("an entry failed"));
            }
        }
    }
    writer.flush()
}

/// The cause itself: what `From` makes of it has lost its kind.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A submission, or the truth in the same form: rows by id, in their order.
///
/// ```
/// use atrous::predict::submission::{Entry, Submission};
///
/// let text = "Id,Predicted\ncat_classification,2 1\ncat_segmentation,\n";
/// let submission = Submission::from_reader(text.as_bytes(), "memory")?;
/// assert_eq!((submission.len(), submission.is_empty()), (2, false));
/// assert_eq!(submission.get("cat_classification").unwrap().to_string(), "2 1");
/// let same = Submission::from_entries("memory", [Entry::new("cat", &[0, 1], None)])?;
/// assert_eq!(same.get("cat_segmentation"), submission.get("cat_segmentation"));
///
/// let wrong = Submission::from_reader("Id,Predicted\ncat_classification,0 1\n".as_bytes(), "memory");
/// assert!(wrong.unwrap_err().to_string().contains("2")); // the line; runs count from 1
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Submission {
    path: PathBuf,
    rows: Vec<Row>,
    places: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Row {
    id: String,
    runs: Runs,
    line: usize,
}

impl Submission {
    /// Reads a csv file. An error, with line and column, for another header, an id of neither kind or that
    /// came before, and runs that are none.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::file(path, explain(&error)))?;
        Submission::from_reader(file, path)
    }

    /// Reads from anything, as [`Submission::read`] does; `path` is what messages call it.
    pub fn from_reader(mut reader: impl Read, path: impl AsRef<Path>) -> Result<Self> {
        let mut submission = Submission { path: path.as_ref().to_owned(), ..Default::default() };
        let mut bytes = Vec::new();
        let read = reader.read_to_end(&mut bytes);
        read.map_err(|error| Error::file(&submission.path, explain(&error)))?;
        let mut records = Records::new(&bytes);
        let Some((line, header)) = records.next() else {
            return Err(Error::file(&submission.path, "expected `Id,Predicted`, but the file is empty"));
        };
        let header = header.map_err(|message| submission.wrong(line, None, message))?;
        if header != HEADER[..] {
            let got = header.iter().collect::<Vec<_>>().join(",");
            let message = format!("expected `Id,Predicted`, got `{}`", shortened(&got));
            return Err(submission.wrong(line, None, message));
        }
        for (line, record) in records {
            let record = record.map_err(|message| submission.wrong(line, None, message))?;
            let [id, code] = [0, 1].map(|column| record.get(column).unwrap_or_default());
            if record.len() != HEADER.len() {
                let message = format!("expected an id and its runs, got {} columns", record.len());
                return Err(submission.wrong(line, None, message));
            }
            let runs = code.parse();
            let runs = runs.map_err(|e: Error| submission.wrong(line, Some(1), e.to_string()))?;
            submission.push(id.to_owned(), runs, line)?;
        }
        Ok(submission)
    }

    /// A submission of labels and masks at hand; `name` is what messages call them. An error for an id that
    /// came before.
    pub fn from_entries(
        name: impl AsRef<Path>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self> {
        let mut submission = Submission { path: name.as_ref().to_owned(), ..Default::default() };
        for (id, runs) in entries.into_iter().flat_map(Entry::rows) {
            let line = submission.rows.len() + 2;
            submission.push(id, runs, line)?;
        }
        Ok(submission)
    }

    /// The runs of a row, by its whole id.
    pub fn get(&self, id: &str) -> Option<&Runs> {
        self.places.get(id).map(|&place| &self.rows[place].runs)
    }

    /// The number of rows, two an image.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn push(&mut self, id: String, runs: Runs, line: usize) -> Result<()> {
        if !id.ends_with(CLASSIFICATION) && !id.ends_with(SEGMENTATION) {
            let id = shortened(&id);
            let message = format!("`{id}` ends neither in `{CLASSIFICATION}` nor in `{SEGMENTATION}`");
            return Err(self.wrong(line, Some(0), message));
        }
        if let Some(&place) = self.places.get(&id) {
            let message = format!("`{}` is in line {} already", shortened(&id), self.rows[place].line);
            return Err(self.wrong(line, Some(0), message));
        }
        self.places.insert(id.clone(), self.rows.len());
        self.rows.push(Row { id, runs, line });
        Ok(())
    }

    fn wrong(&self, line: usize, column: Option<usize>, message: String) -> Error {
        let column = column.map(|column| HEADER[column].to_owned());
        Error::Row { path: self.path.clone(), line, column, message }
    }
}

/// Dice of every row, 0 to 1, and its means.
///
/// [`score()`] has an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Over all rows: the competition's figure.
    pub mean: f64,
    /// Over the classification rows; None if the truth has no such row.
    pub classification: Option<f64>,
    /// Over the segmentation rows; None if the truth has no such row.
    pub segmentation: Option<f64>,
    /// Id and Dice, in the order of the truth.
    pub rows: Vec<(String, f64)>,
}

/// Scores a submission. An error where it has not exactly the rows that the truth has, in any order, or the
/// truth has none.
///
/// ```
/// use atrous::predict::submission::{Entry, Submission, score};
///
/// let truth = Submission::from_entries("truth", [Entry::new("cat", &[0, 1, 1], Some(&[0, 2, 2]))])?;
/// let said = Submission::from_entries("said", [Entry::new("cat", &[0, 1, 0], Some(&[0, 2, 2]))])?;
/// let score = score(&said, &truth)?;
/// assert_eq!(score.classification, Some(2.0 * 1.0 / (1.0 + 2.0))); // one class of two
/// assert_eq!(score.segmentation, Some(1.0));
/// assert_eq!(score.mean, (2.0 / 3.0 + 1.0) / 2.0);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn score(submission: &Submission, truth: &Submission) -> Result<Score> {
    if truth.is_empty() {
        return Err(Error::file(&truth.path, "there is no row to score"));
    }
    let missing: Vec<&str> = truth
        .rows
        .iter()
        .map(|row| row.id.as_str())
        .filter(|&id| submission.get(id).is_none())
        .collect();
    if let Some(first) = missing.first() {
        let (missing, all) = (missing.len(), truth.len());
        let message = format!("{missing} of the {all} rows are missing, the first is `{first}`");
        return Err(Error::file(&submission.path, message));
    }
    if let Some(row) = submission.rows.iter().find(|row| truth.get(&row.id).is_none()) {
        let message = format!("`{}` is not asked for by {}", shortened(&row.id), truth.path.display());
        return Err(submission.wrong(row.line, Some(0), message));
    }
    let dice = |row: &Row| submission.get(&row.id).map_or(0.0, |predicted| row.runs.dice(predicted));
    let rows: Vec<(String, f64)> = truth.rows.iter().map(|row| (row.id.clone(), dice(row))).collect();
    let mean_of = |kind: &str| {
        let of_kind: Vec<f64> =
            rows.iter().filter(|(id, _)| id.ends_with(kind)).map(|row| row.1).collect();
        (!of_kind.is_empty()).then(|| of_kind.iter().sum::<f64>() / of_kind.len() as f64)
    };
    Ok(Score {
        mean: mean_of("").unwrap_or_default(),
        classification: mean_of(CLASSIFICATION),
        segmentation: mean_of(SEGMENTATION),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> Vec<Entry> {
        vec![Entry::new("0", &[0, 1, 1], Some(&[0, 2, 2, 3])), Entry::new("1", &[1, 0, 0], None)]
    }

    fn read(text: &str) -> Result<Submission> {
        Submission::from_reader(text.as_bytes(), "s.csv")
    }

    #[test]
    fn a_written_file_reads_back_and_scores_one_against_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("submission.csv");
        write(&path, entries().into_iter().map(Ok)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "Id,Predicted\n0_classification,2 2\n0_segmentation,6 2 12 1\n\
             1_classification,1 1\n1_segmentation,\n"
        );
        let truth = Submission::from_entries("truth", entries()).unwrap();
        let score = score(&Submission::read(&path).unwrap(), &truth).unwrap();
        assert_eq!((score.mean, score.classification, score.segmentation), (1.0, Some(1.0), Some(1.0)));
        assert_eq!(score.rows.len(), 4);
    }

    #[test]
    fn the_score_is_the_mean_over_all_rows() {
        let truth = Submission::from_entries("truth", entries()).unwrap();
        let predicted = [
            Entry::new("1", &[1, 0, 1], Some(&[0, 1])), // 2/3; something where nothing is: 0
            Entry::new("0", &[0, 1, 1], Some(&[0, 2, 0, 0])), // 1; 2·1 / (3 + 1)
        ];
        let score = score(&Submission::from_entries("s", predicted).unwrap(), &truth).unwrap();
        assert!((score.mean - (1.0 + 0.5 + 2.0 / 3.0 + 0.0) / 4.0).abs() < 1e-12, "{score:?}");
        assert!((score.classification.unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(score.segmentation, Some(0.25));
    }

    #[test]
    fn an_entry_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("submission.csv");
        std::fs::write(&path, "old").unwrap();
        let failing = vec![Ok(entries().remove(0)), Err(Error::argument("picture", "is broken"))];
        assert_eq!(write(&path, failing).unwrap_err().to_string(), "picture: is broken");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn a_writer_that_fails_is_named_with_the_cause() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = write_to(Full, "out", entries().into_iter().map(Ok)).unwrap_err().to_string();
        assert!(error.starts_with("out: could not be written: the disk is full"), "{error}");
        let mut rows = Vec::new();
        write_to(&mut rows, "out", entries().into_iter().map(Ok)).unwrap();
        assert_eq!(rows.iter().filter(|&&byte| byte == b'\n').count(), 5);
    }

    #[test]
    fn mistakes_are_named_with_file_line_and_column() {
        for (text, message) in [
            ("", "s.csv: expected `Id,Predicted`, but the file is empty"),
            ("Id,Labels\n", "s.csv, line 1: expected `Id,Predicted`, got `Id,Labels`"),
            (
                "Id,Predicted\n0_classification,1 1,\n",
                "s.csv, line 2: expected an id and its runs, got 3 columns",
            ),
            ("Id,Predicted\n0,1 1\n", "s.csv, line 2, column `Id`: `0` ends neither"),
            (
                "Id,Predicted\n\n0_segmentation,1\n",
                "line 3, column `Predicted`: run-length code: the run at 1 has",
            ),
            (
                "Id,Predicted\r\n0_segmentation,\r\n0_segmentation,\r\n",
                "line 3, column `Id`: `0_segmentation` is in line 2 already",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
        let error = Submission::from_reader(&b"Id,Predicted\n\xff,1\n"[..], "s.csv").unwrap_err();
        assert_eq!(error.to_string(), "s.csv, line 2: not UTF-8 text");
        let error = Submission::read("/nowhere/s.csv").unwrap_err().to_string();
        assert!(error.contains("/nowhere/s.csv: no such file"), "{error}");
    }

    #[test]
    fn what_other_programs_put_into_a_csv_file_is_read() {
        let plain = read("Id,Predicted\n0_classification,1 1\n0_segmentation,\n").unwrap();
        let quoted = read(
            "\u{feff}\"Id\",\"Predicted\"\r\n\"0_classification\",\"1 1\"\r\n\r\n0_segmentation,\"\"",
        );
        let score = score(&quoted.unwrap(), &plain).unwrap();
        assert_eq!((score.mean, score.rows.len()), (1.0, 2));
    }

    #[test]
    fn rows_that_are_missing_or_not_asked_for_are_named() {
        let truth = Submission::from_entries("truth.csv", entries()).unwrap();
        let short =
            read("Id,Predicted\n0_classification,1 1\n0_segmentation,\n1_segmentation,\n").unwrap();
        let error = score(&short, &truth).unwrap_err().to_string();
        assert_eq!(error, "s.csv: 1 of the 4 rows are missing, the first is `1_classification`");
        let mut more = entries();
        more.push(Entry::new("7", &[1], None));
        let error =
            score(&Submission::from_entries("s.csv", more).unwrap(), &truth).unwrap_err().to_string();
        assert_eq!(
            error,
            "s.csv, line 6, column `Id`: `7_classification` is not asked for by truth.csv"
        );
        assert!(score(&short, &Submission::default()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Submission::from_reader(&bytes[..], "s.csv");
            let headed = [b"Id,Predicted\n".as_slice(), &bytes].concat();
            let _ = Submission::from_reader(&headed[..], "s.csv");
        }

        #[test]
        fn any_rows_are_read_or_refused(
            rows in "([0-9]_(classification|segmentation),[0-9 ,]{0,12}\n){0,6}"
        ) {
            if let Ok(submission) = read(&format!("Id,Predicted\n{rows}")) && !submission.is_empty() {
                prop_assert_eq!(score(&submission, &submission).unwrap().mean, 1.0);
            }
        }
    }
}
