//! What reaches the user's terminal: data on stdout, everything else on stderr, and nothing that code wrote can act on the terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Prints a line of ours on stderr. What names the code chose is made inert too.
pub(crate) fn note(text: &str) {
    let mut inert = Inert::default();
    let mut line = inert.push(text.replace('\n', " ").as_bytes());
    line.push_str(&inert.finish());
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a line of data on stdout; what it quotes is made inert, wherever it goes.
///
/// # Errors
/// Where nobody reads any more.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut inert = Inert::default();
    let mut line = inert.push(text.replace('\n', " ").as_bytes());
    line.push_str(&inert.finish());
    writeln!(io::stdout(), "{line}")
}

/// A stream of the code's output on its way to ours.
#[derive(Debug)]
pub(crate) struct Screen<W: Write> {
    out: W,
    inert: Option<Inert>,
}

impl Screen<io::Stdout> {
    /// To our stdout: inert on a terminal unless `raw`, the bytes as they are elsewhere.
    pub(crate) fn stdout(raw: bool) -> Self {
        let out = io::stdout();
        let inert = (out.is_terminal() && !raw).then(Inert::default);
        Self { out, inert }
    }
}

impl Screen<io::Stderr> {
    /// To our stderr, likewise.
    pub(crate) fn stderr(raw: bool) -> Self {
        let out = io::stderr();
        let inert = (out.is_terminal() && !raw).then(Inert::default);
        Self { out, inert }
    }
}

impl<W: Write> Screen<W> {
    /// Writes what the code wrote.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.inert {
            Some(inert) => self.out.write_all(inert.push(bytes).as_bytes())?,
            None => self.out.write_all(bytes)?,
        }
        self.out.flush()
    }

    /// Writes what was held back: the start of a character that never came to its end.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(inert) = &mut self.inert {
            self.out.write_all(inert.finish().as_bytes())?;
        }
        self.out.flush()
    }
}

/// Makes text inert: control characters become pictures of themselves, so that no sequence can move the cursor, set a title, fill the
/// clipboard or hide text.
#[derive(Debug, Default)]
pub(crate) struct Inert {
    /// An unfinished UTF-8 character at the end of the last push.
    pending: Vec<u8>,
}

impl Inert {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    push_inert(&mut text, valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    push_inert(&mut text, std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        rest = broken;
                        break;
                    };
                    text.push('\u{fffd}');
                    rest = broken.get(length..).unwrap_or_default();
                    continue;
                }
            }
            break;
        }
        self.pending = rest.to_vec();
        text
    }

    fn finish(&mut self) -> String {
        if std::mem::take(&mut self.pending).is_empty() { String::new() } else { "\u{fffd}".to_owned() }
    }
}

fn push_inert(text: &mut String, from: &str) {
    let mut characters = from.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => text.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\0'..='\u{1f}' => text.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}')),
            '\u{7f}' => text.push('\u{2421}'),
            hidden if is_hidden(hidden) => text.push_str(&format!("<U+{:04X}>", u32::from(hidden))),
            other => text.push(other),
        }
    }
}

/// Delete and C1 controls, and characters that reorder or hide what stands around them.
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Prints one JSON document on stdout. On a terminal its hidden characters are escaped, which is the same document.
///
/// # Errors
/// Where nobody reads any more.
pub(crate) fn json(document: &(impl Serialize + ?Sized)) -> io::Result<()> {
    let out = io::stdout();
    let terminal = out.is_terminal();
    let mut out = io::BufWriter::new(out);
    if terminal {
        out.write_all(escape_hidden(&serde_json::to_string(document)?).as_bytes())?;
    } else {
        // Piece by piece: an execution may have 64 MiB of pictures, and its text would take as much again, several times while it grows.
        serde_json::to_writer(&mut out, document)?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

fn escape_hidden(document: &str) -> String {
    let mut text = String::with_capacity(document.len());
    for character in document.chars() {
        if is_hidden(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inert(chunks: &[&[u8]]) -> String {
        let mut inert = Inert::default();
        let mut text: String = chunks.iter().map(|chunk| inert.push(chunk)).collect();
        text.push_str(&inert.finish());
        text
    }

    #[test]
    fn no_control_sequence_survives() {
        assert_eq!(inert(&[b"a\x1b[2Jb\x1b]52;c;eA==\x07\r\nc\rd\ttab"]), "a␛[2Jb␛]52;c;eA==␇\nc␍d\ttab");
        assert_eq!(inert(&["\u{9b}31m \u{202e}abc\u{7f}".as_bytes()]), "<U+009B>31m <U+202E>abc␡");
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let value = serde_json::json!("a\u{9b}31m\u{202e}\u{e0041}\u{7f}ü");
        let escaped = escape_hidden(&value.to_string());
        assert!(!escaped.chars().any(is_hidden), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn characters_survive_a_cut_and_rubbish_does_not() {
        assert_eq!(inert(&[b"\xe2\x82", b"\xac ok"]), "€ ok");
        assert_eq!(inert(&[b"\xc2", b"\x9b0m"]), "<U+009B>0m", "a control character cannot hide in a cut");
        assert_eq!(inert(&[b"\xff\xfe x \xe2\x82"]), "\u{fffd}\u{fffd} x \u{fffd}");
    }
}
