//! A folder of the host that others may be able to change, too, such as the one that files are copied out to: reached part by part from its
//! descriptor, through no link and by plain names only, so that whatever stands there, or is put there meanwhile, nothing outside is touched.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, ResolveFlags};

use crate::workspace::Workspace;

/// A folder, by its descriptor.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder of this path, as whoever named it means it.
    ///
    /// # Errors
    /// Where it is none, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Makes a folder in it that nobody else may enter, and locks it for as long as it is open.
    ///
    /// # Errors
    /// Where there is one, or it cannot be made.
    pub fn create_private(&self, name: &OsStr) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.0, plain(name)?, Mode::RWXU)?;
        let folder = self.below(name)?;
        // Where there are no locks, nobody gets one, and nothing is swept.
        let _ = rustix::fs::flock(&folder.0, FlockOperation::NonBlockingLockExclusive);
        Ok(folder)
    }

    /// Creates a file, with the folders on its way, where none is.
    ///
    /// # Errors
    /// A path of other parts than plain names; a link, or what is no folder, on the way; something of this name.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        let (folder, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&folder.0, name, flags, Mode::from_raw_mode(0o666))?))
    }

    /// Moves a file here from below another folder, under the same path, with the folders on its way. A file or a link that stands there is replaced.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn take(&self, from: &Self, path: &Path) -> io::Result<()> {
        let ((from, name), (to, _)) = (from.parent(path)?, self.parent(path)?);
        Ok(rustix::fs::renameat(&from.0, name, &to.0, name)?)
    }

    /// Removes a file, a link, or a folder with everything in it.
    ///
    /// # Errors
    /// Where it is not there, or others put more into it than can be removed.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Workspace::new(self.0.try_clone()?).remove(Path::new(plain(name)?))
    }

    /// Removes folders that [`Self::create_private`] made under names with this beginning, whose makers are gone: they were killed. Not before they
    /// are this old, since one that has just been made is not locked yet.
    pub fn sweep(&self, prefix: &str, age: Duration) {
        let Ok(entries) = Dir::read_from(&self.0) else { return };
        let own = rustix::process::geteuid().as_raw();
        for entry in entries.flatten().filter(|entry| entry.file_name().to_bytes().starts_with(prefix.as_bytes())) {
            let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(entry.file_name().to_bytes());
            let Ok(folder) = self.below(name) else { continue };
            let Ok(facts) = rustix::fs::fstat(&folder.0) else { continue };
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(facts.st_mtime).unwrap_or_default());
            let is_old = SystemTime::now().duration_since(changed).is_ok_and(|since| since >= age);
            if is_old && facts.st_uid == own && rustix::fs::flock(&folder.0, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = self.remove(name);
            }
        }
    }

    /// The folder that a path lies in, made where it is not there, and the name in it.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Self, &'a OsStr)> {
        let mut parts = path.components().map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        });
        let mut name = parts.next().ok_or(io::ErrorKind::InvalidInput)??;
        let mut folder = Self(self.0.try_clone()?);
        for next in parts {
            folder = folder.below_or_new(name)?;
            name = next?;
        }
        Ok((folder, name))
    }

    fn below_or_new(&self, name: &OsStr) -> io::Result<Self> {
        match self.below(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => self.below(name),
                Err(error) => Err(error.into()),
            },
            opened => opened,
        }
    }

    fn below(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(self.0.as_fd(), plain(name)?, flags, Mode::empty(), resolve) {
            // As it is told of anything else that is no folder.
            Err(rustix::io::Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            opened => Ok(Self(opened?)),
        }
    }
}

/// A name that is one part of a path, and no way to anywhere.
fn plain(name: &OsStr) -> io::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, FileType};
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// Whether something of this name is there, and what.
    fn kind(folder: &Folder, name: &str) -> Option<FileType> {
        rustix::fs::statat(&folder.0, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|facts| FileType::from_raw_mode(facts.st_mode))
    }

    fn filled(folder: &Folder, path: &str) -> io::Result<()> {
        folder.create(Path::new(path)).and_then(|mut file| file.write_all(b"new"))
    }

    #[test]
    fn nothing_outside_is_touched_whatever_stands_there() {
        let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("canary"), "old").unwrap();
        symlink(outside.path(), home.path().join("folder")).unwrap();
        symlink(outside.path().join("canary"), home.path().join("canary")).unwrap();
        symlink("/proc/self/cwd", home.path().join("magic")).unwrap();
        let (folder, staging) = (Folder::open(home.path()).unwrap(), tempfile::tempdir().unwrap());
        let staging = Folder::open(staging.path()).unwrap();
        for path in ["folder/canary", "folder/new", "folder/a/b", "magic/x", "../x", "a/../../x", "/etc/x", "", ".", "a/.."] {
            assert!(filled(&folder, path).is_err(), "{path}");
        }
        for path in ["folder/canary", "folder/new", "magic/x"] {
            filled(&staging, path).unwrap();
            assert!(folder.take(&staging, Path::new(path)).is_err(), "{path}");
        }
        // A link in a file's place is replaced itself.
        filled(&staging, "canary").unwrap();
        folder.take(&staging, Path::new("canary")).unwrap();
        assert_eq!((fs::read_to_string(home.path().join("canary")).unwrap().as_str(), kind(&folder, "canary")), ("new", Some(FileType::RegularFile)));
        assert_eq!(fs::read_to_string(outside.path().join("canary")).unwrap(), "old");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        folder.remove(OsStr::new("folder")).unwrap();
        for name in ["..", ".", "", "a/b", "/etc"] {
            assert!(folder.remove(OsStr::new(name)).is_err() && folder.create_private(OsStr::new(name)).is_err(), "{name}");
        }
        assert!(outside.path().join("canary").exists());
    }

    #[test]
    fn folders_of_makers_that_are_gone_are_swept() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let lives = folder.create_private(OsStr::new(".made-lives")).unwrap();
        drop(folder.create_private(OsStr::new(".made-gone")).unwrap());
        filled(&folder, ".made-gone/a/b").unwrap();
        for name in [".made-file", "other"] {
            filled(&folder, name).unwrap();
        }
        symlink("/", home.path().join(".made-link")).unwrap();
        folder.sweep(".made-", Duration::from_secs(3600));
        assert!(kind(&folder, ".made-gone").is_some(), "it is not old enough");
        folder.sweep(".made-", Duration::ZERO);
        assert_eq!(kind(&folder, ".made-gone"), None);
        for name in [".made-lives", ".made-file", ".made-link", "other"] {
            assert!(kind(&folder, name).is_some(), "{name}");
        }
        drop(lives);
        folder.sweep(".made-", Duration::ZERO);
        assert_eq!(kind(&folder, ".made-lives"), None);
    }
}
