//! Keeps what an execution wrote: all of it while it is short, head and tail when it is long, and the whole in a file where that is wanted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of a stream that are kept: half from its head, half from its tail.
pub(crate) const KEEP_BYTES: usize = 1024 * 1024;

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    keep: usize,
    whole: Whole,
}

/// Where the whole of a long stream goes: a file without a name, gone with its last descriptor.
#[derive(Debug, Default)]
enum Whole {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Into a file below this folder, once it is long.
    Later(PathBuf),
    /// Into this file.
    File(File),
}

impl Kept {
    pub(crate) fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Keeps the whole as well.
    pub(crate) fn with_whole(keep: usize, folder: Option<&Path>) -> Self {
        Self { whole: folder.map_or(Whole::Nowhere, |folder| Whole::Later(folder.to_owned())), ..Self::new(keep) }
    }

    /// The whole, where the text is not: it is longer than what is kept, or no text. `None` where there is no file of it.
    pub(crate) fn into_whole(mut self) -> Option<File> {
        match self.whole {
            Whole::File(file) => Some(file),
            Whole::Later(ref folder) => {
                self.head.extend(&self.tail);
                if std::str::from_utf8(&self.head).is_ok() {
                    return None;
                }
                let mut file = tempfile::tempfile_in(folder).ok()?;
                file.write_all(&self.head).ok().map(|()| file)
            }
            Whole::Nowhere => None,
        }
    }

    /// Writes what would be lost, and everything after, into the file. A disk that takes no more costs the file, not the execution.
    fn save(&mut self, bytes: &[u8]) {
        if let Whole::Later(folder) = &self.whole {
            if self.head.len().saturating_add(self.tail.len()).saturating_add(bytes.len()) <= self.keep {
                return;
            }
            let (first, second) = self.tail.as_slices();
            let begun = tempfile::tempfile_in(folder)
                .and_then(|mut file| [self.head.as_slice(), first, second].into_iter().try_for_each(|part| file.write_all(part)).map(|()| file));
            self.whole = begun.map_or(Whole::Nowhere, Whole::File);
        }
        if let Whole::File(file) = &mut self.whole
            && file.write_all(bytes).is_err()
        {
            self.whole = Whole::Nowhere;
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.save(bytes);
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let half = self.keep / 2;
        let room = half.saturating_sub(self.head.len());
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        let rest = rest.get(rest.len().saturating_sub(half)..).unwrap_or_default();
        let over = (self.tail.len() + rest.len()).saturating_sub(half);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(rest);
    }

    /// Bytes written so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The text, whole characters only, and whether something was left out.
    pub(crate) fn text(&self) -> (String, bool) {
        let kept = self.head.len() + self.tail.len();
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let left_out = self.total.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX));
        if left_out == 0 {
            let mut all = self.head.clone();
            all.extend(tail);
            return (lossy(&all), false);
        }
        let (head, tail) = (whole_end(&self.head), whole_start(&tail));
        let cut = self.total.saturating_sub(u64::try_from(head.len() + tail.len()).unwrap_or(u64::MAX));
        (format!("{}\n[… {cut} bytes left out …]\n{}", lossy(head), lossy(tail)), true)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Without a character that is cut at the end.
fn whole_end(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or_default(),
        _ => {
            // Invalid bytes earlier hide the end from the check above: look at the last character alone.
            let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or_default();
            let last = bytes.get(start..).unwrap_or_default();
            match std::str::from_utf8(last) {
                Err(error) if error.error_len().is_none() => bytes.get(..start).unwrap_or_default(),
                _ => bytes,
            }
        }
    }
}

/// Without a character that is cut at the start.
fn whole_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    bytes.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_output_is_kept_whole() {
        let mut kept = Kept::new(16);
        kept.push(b"hello");
        kept.push("wörld".as_bytes());
        assert_eq!(kept.text(), ("hellowörld".to_owned(), false));
    }

    #[test]
    fn long_output_keeps_head_and_tail_and_says_what_is_gone() {
        let mut kept = Kept::new(8);
        kept.push(b"abcdefghij");
        kept.push(b"klmnop");
        assert_eq!(kept.text(), ("abcd\n[… 8 bytes left out …]\nmnop".to_owned(), true));
    }

    #[test]
    fn the_whole_of_a_long_stream_is_in_its_file() {
        use std::io::{Read, Seek};
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::with_whole(8, Some(folder.path()));
        for part in ["abcdef", "gh", "ijklmnop", "q"] {
            kept.push(part.as_bytes());
        }
        let mut file = kept.into_whole().unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdefghijklmnopq");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        let mut short = Kept::with_whole(8, Some(folder.path()));
        short.push(b"12345678");
        assert!(short.into_whole().is_none());
        let mut binary = Kept::with_whole(8, Some(folder.path()));
        binary.push(b"ab\xffc");
        let (mut file, mut bytes) = (binary.into_whole().unwrap(), Vec::new());
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"ab\xffc", "what is no text has its file however short it is");
        let mut lost = Kept::with_whole(8, Some(&folder.path().join("missing")));
        lost.push(b"123456789");
        assert!(lost.text().1 && lost.into_whole().is_none(), "without a place for it, the rest goes on");
    }

    proptest! {
        #[test]
        fn characters_are_never_cut(text in "\\PC{0,60}", keep in 8_usize..40, step in 1_usize..9) {
            let mut kept = Kept::new(keep);
            for chunk in text.as_bytes().chunks(step) {
                kept.push(chunk);
            }
            let (shown, truncated) = kept.text();
            let whole = !shown.contains('\u{fffd}') || text.contains('\u{fffd}');
            prop_assert!(whole, "a character was cut");
            prop_assert_eq!(truncated, text.len() > keep / 2 * 2);
            if !truncated {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
