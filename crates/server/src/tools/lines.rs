//! Text by lines, whatever the bytes: a line of any length takes bounded memory.

use std::io::{self, BufRead};

/// Text has no NUL in its first bytes, so many.
const LOOK_BYTES: usize = 8 * 1024;

/// Reads lines.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    reader: R,
    /// Of a line, so many bytes are kept.
    keep: usize,
    line: Vec<u8>,
    is_cut: bool,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(reader: R, keep: usize) -> Self {
        Self { reader, keep, line: Vec::new(), is_cut: false }
    }

    /// Whether this is no text. To be asked before the first line.
    pub(super) fn is_binary(&mut self) -> io::Result<bool> {
        let start = self.reader.fill_buf()?;
        Ok(start.get(..LOOK_BYTES).unwrap_or(start).contains(&0))
    }

    /// Goes to the next line; false after the last.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.is_cut = false;
        let mut is_something = false;
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if buffer.is_empty() {
                break;
            }
            is_something = true;
            let end = memchr::memchr(b'\n', buffer);
            let piece = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            let room = self.keep.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
            self.is_cut |= piece.len() > room;
            let used = end.map_or(buffer.len(), |end| end.saturating_add(1));
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if self.line.last() == Some(&b'\r') && !self.is_cut {
            self.line.pop();
        }
        Ok(is_something)
    }

    /// The line, without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Whether more of the line was left out.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn all(text: &[u8], capacity: usize) -> Vec<(Vec<u8>, bool)> {
        let mut reader = LineReader::new(BufReader::with_capacity(capacity, text), 4);
        let mut lines = Vec::new();
        while reader.advance().unwrap() {
            lines.push((reader.line().to_vec(), reader.is_cut()));
        }
        lines
    }

    #[test]
    fn lines_of_every_kind() {
        let line = |text: &str, cut| (text.as_bytes().to_vec(), cut);
        for capacity in [1, 3, 64] {
            assert_eq!(all(b"", capacity), []);
            assert_eq!(all(b"a", capacity), [line("a", false)]);
            assert_eq!(all(b"a\n", capacity), [line("a", false)]);
            assert_eq!(all(b"a\r\n\nbcde\nfghij\r\n", capacity), [line("a", false), line("", false), line("bcde", false), line("fghi", true)]);
        }
    }

    #[test]
    fn what_has_a_nul_is_no_text() {
        let is_binary = |text: &[u8]| LineReader::new(text, 10).is_binary().unwrap();
        assert!(is_binary(b"a\0b"));
        assert!(!is_binary(b"a\xffb"));
        assert!(!is_binary(b""));
    }
}
