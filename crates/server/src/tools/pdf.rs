//! The tool that makes a PDF: runs the code, looks at the bytes that came out, and offers them under the name that was asked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use engine::session::{FileEntry, Session};
use engine::{Error, ErrorKind, Language};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::{Scope, ToolResult, code, grouped, params, path, seconds};
use crate::files::copy;
use crate::json::Whole;
use crate::rest::{FileView, unreadable};

/// Where the header and the end mark have to stand, in bytes from the start and from the end: what readers accept.
const EDGE_BYTES: u64 = 1024;

/// Parameters of `GeneratePdfReport`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = GeneratePdfReportParams, example = json!({
    "pythonCode": "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.savefig('out.pdf')", "expectedOutputFilename": "out.pdf",
    "saveAsFilename": "Sales report.pdf"
}))]
pub(crate) struct Params {
    /// Python code that writes the PDF, at most 20,000 characters.
    #[schema(min_length = 1, max_length = 20_000)]
    python_code: String,
    /// The file that the code writes, relative to /mnt/data.
    #[schema(min_length = 1)]
    expected_output_filename: String,
    /// The name under which it is offered, ending in .pdf.
    #[schema(min_length = 1, pattern = r"\.[pP][dD][fF]$")]
    save_as_filename: String,
    /// How many seconds the code may run.
    #[schema(value_type = Option<u64>, minimum = 5, maximum = 900, default = 180)]
    timeout_seconds: Option<Whole>,
}

/// `GeneratePdfReport`
pub(super) async fn run(scope: Scope<'_>, asked: Json) -> Result<ToolResult, Error> {
    let asked: Params = params("GeneratePdfReport", asked)?;
    let timeout = seconds(asked.timeout_seconds, 180, 5..=900)?;
    code::check("pythonCode", &asked.python_code)?;
    let expected = path("expectedOutputFilename", &asked.expected_output_filename)?;
    let wanted = path("saveAsFilename", &asked.save_as_filename)?;
    if !wanted.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pdf")) {
        return Err(Error::new(ErrorKind::InvalidRequest, "`saveAsFilename` does not end in .pdf").hint("give a name such as `report.pdf`"));
    }
    let session = scope.open().await?;
    let before = session.open_file(&expected).await.ok().and_then(|(file, _)| stamp(&file));
    let mut result = code::execute(scope, &session, "GeneratePdfReport", code::request(scope, Language::Python, asked.python_code, timeout)).await?;
    if result.failed {
        result.text.push_str("\nNo report is offered: repair the code and call GeneratePdfReport again.\n");
        return Ok(result);
    }
    match checked(&session, &expected, before).await? {
        Err(reason) => {
            result.failed = true;
            let wrong =
                format!("\nNo report is offered: `{}` {reason}. Make the code write this file, then call GeneratePdfReport again.\n", expected.display());
            result.text.push_str(&wrong);
        }
        Ok((file, entry)) => {
            let offered = if expected == wanted { entry } else { copy(&session, file, entry.size, &wanted).await? };
            let view = FileView::of(&offered, &scope.links());
            result.text.push_str(&format!("\nreport: {} ({} bytes, a PDF)\n", view.path, grouped(view.size_bytes)));
            result.files.retain(|file| file.path != view.path);
            result.files.insert(0, view);
        }
    }
    Ok(result)
}

/// What changes when a file does.
fn stamp(file: &File) -> Option<(u64, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let facts = file.metadata().ok()?;
    Some((facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec()))
}

/// The PDF, or in words why it is none.
async fn checked(session: &Arc<Session>, path: &Path, before: Option<(u64, u64, i64, i64)>) -> Result<Result<(File, FileEntry), &'static str>, Error> {
    let (file, entry) = match session.open_file(path).await {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Conflict) => return Ok(Err("was not written")),
        Err(error) => return Err(error),
    };
    if before.is_some() && stamp(&file) == before {
        return Ok(Err("is still the file of before: the code did not write it"));
    }
    let size = entry.size;
    let looked = tokio::task::spawn_blocking(move || looks_like_pdf(&file, size).map(|looks| (file, looks))).await;
    let (file, looks) = looked.map_err(|_| Error::new(ErrorKind::Internal, "the file could not be read"))?.map_err(|error| unreadable(&error))?;
    Ok(if looks { Ok((file, entry)) } else { Err("is not a PDF") })
}

/// Whether these bytes begin and end like a PDF. Nothing of it is parsed: the code chose every byte.
fn looks_like_pdf(file: &File, size: u64) -> io::Result<bool> {
    let edge = size.min(EDGE_BYTES);
    let mut start = vec![0; usize::try_from(edge).unwrap_or_default()];
    let mut end = start.clone();
    file.read_exact_at(&mut start, 0)?;
    file.read_exact_at(&mut end, size.saturating_sub(edge))?;
    let has = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
    Ok(has(&start, b"%PDF-") && has(&end, b"%%EOF"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_bytes_of_a_pdf_pass() {
        let check = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            looks_like_pdf(&file, bytes.len() as u64).unwrap()
        };
        assert!(check(b"%PDF-1.7\n...\n%%EOF\n"));
        assert!(check(&[b"%PDF-1.4\n".to_vec(), vec![b'x'; 5000], b"%%EOF".to_vec()].concat()));
        assert!(!check(b""));
        assert!(!check(b"<html>%%EOF"));
        assert!(!check(b"%PDF-1.7\n"));
        assert!(!check(&[b"%PDF-1.4\n%%EOF".to_vec(), vec![b'x'; 5000]].concat()));
    }
}
