//! Files that the host writes into the workspace: by a process of the sandbox, so that their pages are charged to it and its user owns them.
//!
//! A file has no name until it is complete; then it appears at its place at once, or takes the place of the one that is there. Code inside may
//! change the tree at any moment: nothing is resolved twice, no link is followed, no mount is crossed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Uploads that may go on at once.
const MAX_UPLOADS: usize = 64;
/// Names that are tried for the moment in which a file takes the place of another.
const ATTEMPTS: u32 = 100;

/// The uploads of a sandbox.
pub(crate) struct Uploads {
    workspace: OwnedFd,
    open: Vec<Upload>,
}

struct Upload {
    number: u64,
    /// Its folder and its name there.
    place: Result<(OwnedFd, PathBuf, OwnedFd), i32>,
}

impl Uploads {
    pub(crate) fn new(workspace: OwnedFd) -> Self {
        Self { workspace, open: Vec::new() }
    }

    /// Begins one. What fails is told at its end.
    pub(crate) fn begin(&mut self, number: u64, path: &[u8], mode: u32) {
        if self.open.len() < MAX_UPLOADS {
            let place = begin(self.workspace.as_fd(), Path::new(OsStr::from_bytes(path)), mode).map_err(Errno::raw_os_error);
            self.open.push(Upload { number, place });
        }
    }

    /// Writes the next bytes. After a failure the rest is read and dropped.
    pub(crate) fn write(&mut self, number: u64, mut bytes: &[u8]) {
        let Some(upload) = self.open.iter_mut().find(|upload| upload.number == number) else { return };
        while let (Ok((_, _, file)), false) = (&upload.place, bytes.is_empty()) {
            match rustix::io::write(file, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => upload.place = Err(error.raw_os_error()),
            }
        }
    }

    /// Drops what there is of one.
    pub(crate) fn abort(&mut self, number: u64) {
        self.open.retain(|upload| upload.number != number);
    }

    /// Puts one in its place, and says whether another stood there.
    pub(crate) fn finish(&mut self, number: u64) -> Result<bool, i32> {
        let Some(index) = self.open.iter().position(|upload| upload.number == number) else { return Err(libc::EMFILE) };
        let (folder, name, file) = self.open.swap_remove(index).place?;
        finish(folder.as_fd(), &name, &file).map_err(Errno::raw_os_error)
    }
}

fn open_beneath(folder: BorrowedFd<'_>, name: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..32 {
        match rustix::fs::openat2(folder, name, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::BUSY)
}

/// Opens the folder, made where it is not there, and in it a file without a name.
fn begin(workspace: BorrowedFd<'_>, path: &Path, mode: u32) -> Result<(OwnedFd, PathBuf, OwnedFd), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut folder = open_beneath(workspace, Path::new("."), directory, Mode::empty())?;
    for part in parent.components() {
        let Component::Normal(part) = part else { return Err(Errno::INVAL) };
        folder = match open_beneath(folder.as_fd(), Path::new(part), directory, Mode::empty()) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                open_beneath(folder.as_fd(), Path::new(part), directory, Mode::empty())?
            }
            opened => opened?,
        };
    }
    let file = open_beneath(folder.as_fd(), Path::new("."), OFlags::WRONLY | OFlags::TMPFILE, Mode::from_raw_mode(mode & 0o777))?;
    Ok((folder, PathBuf::from(name), file))
}

fn finish(folder: BorrowedFd<'_>, name: &Path, file: &OwnedFd) -> Result<bool, Errno> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |name: &Path| rustix::fs::linkat(CWD, nameless.as_str(), folder, name, AtFlags::SYMLINK_FOLLOW);
    match link(name) {
        Err(Errno::EXIST) => {}
        result => return result.map(|()| false),
    }
    for attempt in 0..ATTEMPTS {
        let passing = PathBuf::from(format!(".upload-{}-{attempt}", file.as_raw_fd()));
        match link(&passing) {
            Err(Errno::EXIST) => continue,
            result => result?,
        }
        let moved = rustix::fs::renameat_with(folder, &passing, folder, name, RenameFlags::empty());
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(folder, &passing, AtFlags::empty());
        }
        return moved.map(|()| true);
    }
    Err(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn uploads(folder: &Path) -> Uploads {
        Uploads::new(OwnedFd::from(fs::File::open(folder).unwrap()))
    }

    fn put(uploads: &mut Uploads, path: &str, content: &[u8]) -> Result<bool, i32> {
        uploads.begin(1, path.as_bytes(), 0o644);
        uploads.write(1, content);
        uploads.finish(1)
    }

    #[test]
    fn a_file_appears_whole_and_replaces_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let mut uploads = uploads(home.path());
        uploads.begin(7, b"a/b/c.txt", 0o644);
        uploads.write(7, b"one ");
        assert_eq!(fs::read_dir(home.path().join("a/b")).unwrap().count(), 0, "nothing is seen before the end");
        uploads.write(7, b"two");
        assert_eq!(uploads.finish(7), Ok(false));
        assert_eq!(put(&mut uploads, "a/b/c.txt", b"three"), Ok(true));
        assert_eq!(fs::read(home.path().join("a/b/c.txt")).unwrap(), b"three");
        assert_eq!(fs::read_dir(home.path().join("a/b")).unwrap().count(), 1, "no passing name is left");
        uploads.begin(8, b"gone", 0o644);
        uploads.abort(8);
        assert_eq!((uploads.finish(8), home.path().join("gone").exists()), (Err(libc::EMFILE), false));
    }

    #[test]
    fn nothing_outside_is_written() {
        let (outside, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("canary"), "1").unwrap();
        symlink(outside.path(), home.path().join("folder")).unwrap();
        symlink(outside.path().join("canary"), home.path().join("link")).unwrap();
        let mut uploads = uploads(home.path());
        for path in ["folder/canary", "folder/new", "../x", "/etc/x", "", ".", "a/../../x"] {
            assert!(put(&mut uploads, path, b"2").is_err(), "{path}");
        }
        // A link that stands in a file's place is replaced itself.
        assert_eq!(put(&mut uploads, "link", b"2"), Ok(true));
        assert_eq!(fs::read_to_string(outside.path().join("canary")).unwrap(), "1");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        fs::create_dir(home.path().join("taken")).unwrap();
        assert_eq!(put(&mut uploads, "taken", b"2"), Err(libc::EISDIR));
        for name in [".upload-0-0", "x"] {
            assert!(!home.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn uploads_are_bounded() {
        let home = tempfile::tempdir().unwrap();
        let mut uploads = uploads(home.path());
        for number in 0..100 {
            uploads.begin(number, format!("{number}").as_bytes(), 0o644);
        }
        assert_eq!(uploads.open.len(), MAX_UPLOADS);
        assert_eq!((uploads.finish(3), uploads.finish(99)), (Ok(false), Err(libc::EMFILE)));
    }
}
