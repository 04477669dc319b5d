//! csv tables as records with the lines that they are in.
//!
//! The crate `csv` counts `\n` alone; here every end of a line counts as an editor shows it, `\n`,
//! `\r\n` and a lone `\r` too. White space around a field is no part of it.

use csv::{ErrorKind, ReaderBuilder, StringRecord, StringRecordsIntoIter, Trim};

pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    records: StringRecordsIntoIter<&'a [u8]>,
    /// How far the lines have been counted.
    counted: usize,
    line: usize,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut reader = ReaderBuilder::new();
        let reader = reader.flexible(true).has_headers(false).trim(Trim::All).from_reader(bytes);
        Records { bytes, records: reader.into_records(), counted: 0, line: 1 }
    }

    /// The line of a record: its position is still before the empty lines that were skipped.
    fn line_of(&mut self, position: Option<&csv::Position>) -> usize {
        let begin = position.map_or(self.counted, |position| position.byte() as usize);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let skipped = self.bytes[begin..].iter().take_while(|byte| is_end(byte)).count();
        let end = begin + skipped;
        let ends_line = |&at: &usize| match self.bytes[at] {
            b'\r' => self.bytes.get(at + 1) != Some(&b'\n'),
            byte => byte == b'\n',
        };
        self.line += (self.counted..end).filter(ends_line).count();
        self.counted = self.counted.max(end);
        self.line
    }
}

impl Iterator for Records<'_> {
    /// A record, or what is wrong with it, and its line, from 1.
    type Item = (usize, Result<StringRecord, String>);

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.records.next()? {
            Ok(record) => (self.line_of(record.position()), Ok(record)),
            Err(error) => {
                let message = match error.kind() {
                    ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
                    _ => error.to_string(),
                };
                (self.line_of(error.position()), Err(message))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, Vec<String>)> {
        let record = |(line, record): (usize, Result<StringRecord, String>)| {
            (line, record.unwrap().iter().map(str::to_owned).collect())
        };
        Records::new(text.as_bytes()).map(record).collect()
    }

    #[test]
    fn every_end_of_a_line_ends_a_record_and_is_counted() {
        let fields = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let expected = vec![
            (1, fields("Id", "x")),
            (3, fields("a", "1")),
            (4, fields("b,c", "2")),
            (6, fields("d", "")),
        ];
        for end in ["\n", "\r", "\r\n"] {
            for mark in ["", "\u{feff}"] {
                let text = format!("{mark}Id,x\n\n a , 1\n\"b,c\",2\n\nd,\n").replace('\n', end);
                assert_eq!(lines(&text), expected, "{text:?}");
            }
        }
        assert_eq!(
            lines("\r\n\na,1\r\rb,2\n\rc,3"),
            [(3, fields("a", "1")), (5, fields("b", "2")), (7, fields("c", "3"))]
        );
        assert_eq!(lines("a,\"1\n2\"\nb,3"), [(1, fields("a", "1\n2")), (3, fields("b", "3"))]);
    }

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        let found: Vec<_> = Records::new(b"a,1\r\xff,2\rb,3\r").collect();
        assert_eq!(found[1], (2, Err("not UTF-8 text".to_owned())));
        assert_eq!((found[2].0, found.len()), (3, 3));
    }
}
