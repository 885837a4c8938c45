//! Files of a session: read by the host beneath the workspace's descriptor, written by init.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use sandbox::workspace::{Entry, Kind};
use sandbox::{Remote, ToInit, Workspace};
use tokio::sync::oneshot;

use super::{FileEntry, Files, Session, no_session};
use crate::artifact::media_type;
use crate::error::{Error, ErrorKind};
use crate::run::{self, UPLOAD_BYTES};

/// Uploads into one session at once.
const MAX_UPLOADS: usize = 16;
/// A path may have so many bytes, and each of its parts so many.
const PATH_BYTES: usize = 4000;
const NAME_BYTES: usize = 255;

/// A file that is in its place.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The file.
    pub file: FileEntry,
    /// It took the place of another.
    pub replaced: bool,
}

/// A file on its way into the workspace. Dropped before [`Self::finish`], nothing of it appears.
pub struct Upload {
    session: Arc<Session>,
    number: u64,
    path: PathBuf,
    buffer: Vec<u8>,
    written: oneshot::Receiver<Result<bool, i32>>,
    begun: bool,
    _transfer: Transfer,
}

/// Keeps a session from being idle.
struct Transfer(Arc<Session>);

impl Transfer {
    fn of(session: &Arc<Session>) -> Self {
        session.transfers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(session))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.touch();
        self.0.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upload {
    /// Writes the next bytes. Waits while the sandbox is behind.
    ///
    /// # Errors
    /// The session has ended; the workspace is full.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(UPLOAD_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= UPLOAD_BYTES {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Error> {
        let buffer = std::mem::replace(&mut self.buffer, Vec::with_capacity(UPLOAD_BYTES));
        if self.session.workspace.space().is_ok_and(|space| space.free_bytes < u64::try_from(buffer.len()).unwrap_or(u64::MAX)) {
            return Err(no_room(&self.path));
        }
        let (remote, upload) = (self.session.remote.clone(), self.number);
        let sent = blocking(move || remote.send(&ToInit::FileData { upload, bytes: buffer })).await?;
        sent.map_err(|_| no_session(&self.session.key.id))
    }

    /// The file appears, at once and whole, in place of one that was there.
    ///
    /// # Errors
    /// The session has ended; the workspace is full; a folder stands in its place.
    pub async fn finish(mut self) -> Result<Uploaded, Error> {
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        let (remote, upload) = (self.session.remote.clone(), self.number);
        let sent = blocking(move || remote.send(&ToInit::FileEnd { upload })).await?;
        sent.map_err(|_| no_session(&self.session.key.id))?;
        self.begun = false;
        self.session.hear(self.number);
        // Whoever hears init has this much time for it, after what runs; its end closes the channel.
        let Ok(result) = (&mut self.written).await else { return Err(no_session(&self.session.key.id)) };
        self.session.changed.store(true, Ordering::Release);
        let shown = self.path.display().to_string();
        let replaced = run::written(&shown, result)?;
        let session = Arc::clone(&self.session);
        let path = self.path.clone();
        let file = blocking(move || {
            session.note("file_written", &path.display().to_string());
            session.workspace.entry(&path).map(FileEntry::from).map_err(|error| failed(&path, &error))
        });
        Ok(Uploaded { file: file.await??, replaced })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.session.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        if self.begun {
            abort(self.session.remote.clone(), self.number);
        }
    }
}

/// Tells init to drop a file, without waiting for it.
fn abort(remote: Remote, upload: u64) {
    let send = move || drop(remote.send(&ToInit::FileAbort { upload }));
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(send)),
        Err(_) => send(),
    }
}

impl From<Entry> for FileEntry {
    fn from(entry: Entry) -> Self {
        let media_type = match entry.kind {
            Kind::File => media_type(&entry.path),
            Kind::Folder => "inode/directory".to_owned(),
            Kind::Other => "application/octet-stream".to_owned(),
        };
        Self { modified: entry.modified(), kind: entry.kind, size: entry.size, media_type, path: entry.path }
    }
}

impl Session {
    /// Does something with the workspace on a thread that may block.
    async fn with_workspace<T: Send + 'static>(&self, path: &Path, work: impl FnOnce(&Workspace, &Path) -> io::Result<T> + Send + 'static) -> Result<T, Error> {
        self.touch();
        self.not_over()?;
        let (workspace, path) = (Arc::clone(&self.workspace), path.to_owned());
        blocking(move || work(&workspace, &path).map_err(|error| failed(&path, &error))).await?
    }

    /// The entries of a folder of the workspace; an empty path is the workspace itself.
    ///
    /// # Errors
    /// `not_found`; `conflict` for what is no folder.
    pub async fn files(&self, folder: &Path, recursive: bool) -> Result<Files, Error> {
        let listing = self.with_workspace(folder, move |workspace, path| workspace.list_folder(path, recursive)).await?;
        Ok(Files { entries: listing.entries.into_iter().map(FileEntry::from).collect(), incomplete: listing.incomplete })
    }

    /// One file or folder.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn file(&self, path: &Path) -> Result<FileEntry, Error> {
        self.with_workspace(path, |workspace, path| workspace.entry(path).map(FileEntry::from)).await
    }

    /// Opens a file for reading; it may change meanwhile.
    ///
    /// # Errors
    /// `not_found`; `conflict` for what is no regular file.
    pub async fn open_file(self: &Arc<Self>, path: &Path) -> Result<(File, FileEntry), Error> {
        let session = Arc::clone(self);
        self.with_workspace(path, move |workspace, path| {
            let opened = workspace.open_entry(path)?;
            session.note("file_read", &path.display().to_string());
            Ok(opened)
        })
        .await
        .map(|(file, entry)| (file, FileEntry::from(entry)))
    }

    /// Begins a search below a folder, which is put on record once: code can make so many files that a record of each would fill a disk.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn begin_search(self: &Arc<Self>, folder: &Path) -> Result<(), Error> {
        let session = Arc::clone(self);
        self.with_workspace(&folder.join("**"), move |_, below| {
            session.note("file_read", &below.display().to_string());
            Ok(())
        })
        .await
    }

    /// Opens a file for a search that has begun.
    ///
    /// # Errors
    /// As [`Self::open_file`].
    pub async fn open_searched(&self, path: &Path) -> Result<(File, FileEntry), Error> {
        self.with_workspace(path, Workspace::open_entry).await.map(|(file, entry)| (file, FileEntry::from(entry)))
    }

    /// Begins to write a file, with the folders on its way. `size` in bytes, where it is known, is checked against the room that is left.
    ///
    /// # Errors
    /// `too_large` where there is no room; `limit` where too many go on.
    pub async fn upload(self: &Arc<Self>, path: &Path, size: Option<u64>) -> Result<Upload, Error> {
        self.touch();
        self.not_over()?;
        if let (Some(size), Ok(space)) = (size, self.workspace.space())
            && size > space.free_bytes.saturating_add(self.workspace.entry(path).map_or(0, |there| there.size))
        {
            return Err(no_room(path));
        }
        let number = self.next_upload.fetch_add(1, Ordering::Relaxed);
        let (sender, written) = oneshot::channel();
        {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            if uploads.len() >= MAX_UPLOADS {
                let error = Error::new(ErrorKind::Limit, format!("{MAX_UPLOADS} uploads into this session go on already"));
                return Err(Error { retry_after: Some(std::time::Duration::from_secs(1)), ..error.hint("wait until one of them is over") });
            }
            uploads.insert(number, sender);
        }
        let mut upload =
            Upload { session: Arc::clone(self), number, path: path.to_owned(), buffer: Vec::new(), written, begun: false, _transfer: Transfer::of(self) };
        let (remote, bytes) = (self.remote.clone(), path.as_os_str().as_bytes().to_vec());
        let sent = blocking(move || remote.send(&ToInit::FileBegin { upload: number, path: bytes, mode: 0o644 })).await?;
        sent.map_err(|_| no_session(&self.key.id))?;
        upload.begun = true;
        Ok(upload)
    }

    /// Removes a file, or a folder with everything in it.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn remove(self: &Arc<Self>, path: &Path) -> Result<(), Error> {
        let session = Arc::clone(self);
        self.with_workspace(path, move |workspace, path| {
            workspace.remove(path)?;
            session.changed.store(true, Ordering::Release);
            session.note("file_removed", &path.display().to_string());
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::new(ErrorKind::Internal, "the work on a file was lost"))
}

fn no_room(path: &Path) -> Error {
    let message = format!("the file `{}` does not fit into the workspace", path.display());
    Error::new(ErrorKind::TooLarge, message).hint("remove files that are not needed any more, pass less, or raise the limit workspaceBytes")
}

/// What to say of an error of the workspace.
fn failed(path: &Path, error: &io::Error) -> Error {
    let name = path.display();
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, format!("there is no file `{name}`")),
        io::ErrorKind::NotADirectory => (ErrorKind::NotFound, format!("there is no `{name}`: a part of its path is no folder")),
        io::ErrorKind::IsADirectory => (ErrorKind::Conflict, format!("`{name}` is a folder")),
        io::ErrorKind::PermissionDenied => (ErrorKind::Conflict, format!("`{name}` may not be read or changed: its permissions forbid it")),
        io::ErrorKind::TimedOut => (ErrorKind::Conflict, format!("`{name}` could not be emptied in time: it holds too much, or is filled at the same time")),
        io::ErrorKind::InvalidFilename => (ErrorKind::InvalidRequest, format!("the name `{name}` is too long")),
        _ => (ErrorKind::Conflict, format!("`{name}` is no regular file or folder, or a link stands in its way")),
    };
    Error { detail: Some(error.to_string()), ..Error::new(kind, message) }
}

/// A path of the workspace as callers write it: relative to `/mnt/data`, which may stand in front.
///
/// # Errors
/// `invalid_request`, with the reason: empty, absolute, `.`, `..`, an empty part, a NUL, a part over 255 bytes.
pub fn parse_path(text: &[u8]) -> Result<PathBuf, Error> {
    let relative = text.strip_prefix(b"/mnt/data/").unwrap_or(text);
    let shown = String::from_utf8_lossy(text.get(..text.len().min(NAME_BYTES)).unwrap_or_default()).into_owned();
    let refused = |reason: &str| {
        let error = Error::new(ErrorKind::InvalidRequest, format!("the path `{shown}` {reason}"));
        Err(error.hint("name a file relative to /mnt/data, like `data.csv` or `folder/data.csv`"))
    };
    if relative.is_empty() {
        return refused("is empty");
    }
    if relative.len() > PATH_BYTES {
        return refused("is too long");
    }
    for part in relative.split(|byte| *byte == b'/') {
        match part {
            b"" if relative.starts_with(b"/") => return refused("is absolute, and not below /mnt/data"),
            b"" => return refused("has an empty part"),
            b"." | b".." => return refused("has a part `.` or `..`"),
            part if part.contains(&0) => return refused("contains a NUL byte"),
            part if part.len() > NAME_BYTES => return refused("has a name of over 255 bytes"),
            _ => {}
        }
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(relative)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b", "/mnt/data/a", "..x", "...", "-rf", " a", ".hidden", "a\nb", "C:\\x", "..\\x", "%2e%2e", "/mnt/data/mnt/data/x"] {
            assert!(parse_path(good.as_bytes()).is_ok(), "{good}");
        }
        assert_eq!(parse_path(b"/mnt/data/a/b").unwrap(), PathBuf::from("a/b"));
        assert_eq!(parse_path(b"\xff\xfe").unwrap().as_os_str().as_bytes(), b"\xff\xfe");
        let long = "x".repeat(256);
        let deep = "x/".repeat(3000) + "x";
        for bad in ["", "/", "/mnt/data", "/mnt/data/", "/etc/passwd", "..", "a/..", "../a", "a/../b", ".", "./a", "a/", "a//b", "//a", "a\0b", &long, &deep] {
            let error = parse_path(bad.as_bytes()).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidRequest && error.hint.is_some(), "{bad}");
        }
    }
}
