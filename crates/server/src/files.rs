//! Files on their way between callers and a session's workspace, for every surface.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::session::{FileEntry, Session};
use engine::{Error, ErrorKind};

use crate::rest::unreadable;

/// Bytes written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Padding may be left out: some clients do.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Decodes base64.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Error> {
    BASE64.decode(text).map_err(|error| Error::new(ErrorKind::InvalidRequest, format!("the content is not valid base64: {}", wording(&error))))
}

fn wording(error: &base64::DecodeError) -> String {
    let text = error.to_string();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Writes a file whole, in place of one that was there.
///
/// # Errors
/// As of [`Session::upload`].
pub(crate) async fn put(session: &Arc<Session>, path: &Path, bytes: &[u8]) -> Result<FileEntry, Error> {
    let mut upload = session.upload(path, u64::try_from(bytes.len()).ok()).await?;
    for piece in bytes.chunks(CHUNK_BYTES) {
        upload.write(piece).await?;
    }
    Ok(upload.finish().await?.file)
}

/// Copies a file to a name in the workspace. Names go no other way than any upload's.
///
/// # Errors
/// As of [`Session::upload`].
pub(crate) async fn copy(session: &Arc<Session>, file: File, size: u64, to: &Path) -> Result<FileEntry, Error> {
    let file = Arc::new(file);
    let mut upload = session.upload(to, Some(size)).await?;
    let mut at = 0;
    while at < size {
        let source = Arc::clone(&file);
        let length = usize::try_from((size - at).min(CHUNK_BYTES as u64)).unwrap_or_default();
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; length];
            source.read_exact_at(&mut piece, at).map(|()| piece)
        });
        let piece = read.await.map_err(|_| Error::new(ErrorKind::Internal, "the file could not be read"))?.map_err(|error| unreadable(&error))?;
        upload.write(&piece).await?;
        at = at.saturating_add(u64::try_from(length).unwrap_or_default());
    }
    Ok(upload.finish().await?.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding() {
        assert_eq!(decode("aGk=").unwrap(), b"hi");
        assert_eq!(decode("aGk").unwrap(), b"hi");
        assert_eq!(decode("").unwrap(), b"");
        for text in ["a", "aGk=x", "a b=", "äöüä"] {
            assert_eq!(decode(text).unwrap_err().kind, ErrorKind::InvalidRequest, "{text}");
        }
    }
}
