//! The one place where the host reaches into a workspace: always beneath the descriptor that init sent before any user code ran.
//!
//! Code inside may change everything at any moment, so nothing is resolved twice, no link is followed, no mount is crossed, only
//! regular files are opened, and no open can block.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

/// Entries a listing reads at most; what is beyond is left out, and the listing says so.
pub const MAX_ENTRIES: usize = 100_000;
/// Folders within folders a listing enters at most.
pub const MAX_DEPTH: usize = 64;
/// The paths of a listing have so many bytes at most: as many entries in folders with long names would take hundreds of megabytes.
pub const MAX_PATH_BYTES: usize = 16 * 1024 * 1024;
/// Removing a folder takes no longer than this.
pub const REMOVE_PATIENCE: Duration = Duration::from_secs(10);

/// The folder `/mnt/data` of a sandbox.
#[derive(Debug)]
pub struct Workspace {
    folder: OwnedFd,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, pipe or socket: listed, never opened.
    Other,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path within the workspace, as bytes the code chose.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes as it says; a sparse file may use less.
    pub size: u64,
    /// What changes when the file does: inode, modification and change time in nanoseconds.
    pub stamp: (u64, i128, i128),
}

/// A listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Entries by path.
    pub entries: Vec<Entry>,
    /// Something was left out: too many entries, paths too long, too deep, or not readable.
    pub incomplete: bool,
}

/// How full the workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes still free.
    pub free_bytes: u64,
    /// Files and folders that can still be made.
    pub free_inodes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
}

impl Workspace {
    /// Takes the descriptor of the folder.
    #[must_use]
    pub fn new(folder: OwnedFd) -> Self {
        Self { folder }
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open_beneath(self.folder.as_fd(), path, flags)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// Anything that is not a regular file beneath the workspace, without links on the way.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let file = self.open_beneath(path, OFlags::RDONLY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(file))
    }

    /// The same, with what is told of it: of the file that was opened, whatever stands under its name by now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_entry(&self, path: &Path) -> io::Result<(File, Entry)> {
        let file = self.open(path)?;
        let entry = Entry::of(path.to_owned(), &rustix::fs::fstat(&file)?);
        Ok((file, entry))
    }

    /// Lists everything, folder by folder, without following links.
    ///
    /// # Errors
    /// Where the workspace itself cannot be read.
    pub fn list(&self) -> io::Result<Listing> {
        self.list_folder(Path::new(""), true)
    }

    /// Lists a folder, and what is below it where that is wanted. Paths are within the workspace.
    ///
    /// # Errors
    /// Where the folder cannot be read, or is none.
    pub fn list_folder(&self, folder: &Path, recursive: bool) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut waiting = vec![(folder.to_owned(), 0_usize)];
        let mut room = MAX_PATH_BYTES;
        while let Some((folder, depth)) = waiting.pop() {
            match self.open_folder(&folder) {
                Ok(open) => {
                    let folders = list_one(&open, &folder, &mut listing, &mut room);
                    if !recursive {
                        break;
                    }
                    if depth + 1 < MAX_DEPTH {
                        waiting.extend(folders.into_iter().map(|folder| (folder, depth + 1)));
                    } else {
                        listing.incomplete |= !folders.is_empty();
                    }
                }
                Err(error) if depth == 0 => return Err(error),
                Err(_) => listing.incomplete = true,
            }
        }
        listing.entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(listing)
    }

    /// Opens a folder; the empty path is the workspace itself.
    fn open_folder(&self, folder: &Path) -> io::Result<OwnedFd> {
        let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        self.open_beneath(name, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// One entry, as [`Self::list`] tells it. A link is told of, never followed.
    ///
    /// # Errors
    /// Where there is none.
    pub fn entry(&self, path: &Path) -> io::Result<Entry> {
        let (folder, name) = self.parent(path)?;
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Entry::of(path.to_owned(), &stat))
    }

    /// Removes a file, a link or another thing that is no folder, or a folder with everything in it: within [`REMOVE_PATIENCE`], since code
    /// inside may build faster than we remove.
    ///
    /// # Errors
    /// Where there is none, something in it cannot be removed, or it takes too long.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_within(path, REMOVE_PATIENCE)
    }

    fn remove_within(&self, path: &Path, patience: Duration) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
            result => return Ok(result?),
        }
        let removal = Removal { deadline: Instant::now() + patience };
        loop {
            match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
                Err(rustix::io::Errno::NOTEMPTY) => {}
                result => return Ok(result?),
            }
            removal.in_time()?;
            removal.empty(open_beneath(folder.as_fd(), Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        }
    }

    /// The folder that a path lies in, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.open_folder(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// How full it is.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn space(&self) -> io::Result<Space> {
        let facts = rustix::fs::fstatvfs(&self.folder)?;
        Ok(Space {
            free_bytes: facts.f_bfree.saturating_mul(facts.f_frsize),
            free_inodes: facts.f_ffree,
            used_bytes: facts.f_blocks.saturating_sub(facts.f_bfree).saturating_mul(facts.f_frsize),
        })
    }
}

impl Entry {
    fn of(path: PathBuf, stat: &rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        let time = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
        let stamp = (stat.st_ino, time(stat.st_mtime, i128::from(stat.st_mtime_nsec)), time(stat.st_ctime, i128::from(stat.st_ctime_nsec)));
        Self { path, kind, size: u64::try_from(stat.st_size).unwrap_or_default(), stamp }
    }

    /// When it was changed last; code inside can set it to anything, so this is between the years 1970 and 2554, which every format can name.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        let nanoseconds = u64::try_from(self.stamp.1).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
    }
}

/// Empties a folder. Goes down and up again one folder at a time, so that neither depth nor the way down is ever walked twice: what it costs grows
/// with the entries, and no more than two folders are open at once.
struct Removal {
    deadline: Instant,
}

/// A folder on the way down.
struct Level {
    inode: u64,
    /// Its name in the folder above.
    name: OsString,
    /// Folders in it that are not empty.
    waiting: Vec<OsString>,
}

impl Removal {
    /// Removes what is in a folder, as far as code inside lets it be: what changed meanwhile may be left.
    fn empty(&self, top: OwnedFd) -> io::Result<()> {
        let mut levels = vec![self.sweep(&top, OsString::new())?];
        let mut here = top;
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.waiting.pop() {
                match open_beneath(here.as_fd(), Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY) {
                    Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                    below => {
                        here = below?;
                        levels.push(self.sweep(&here, name)?);
                    }
                }
                continue;
            }
            let (done, Some(above)) = (levels.pop(), levels.last()) else { break };
            here = open_above(&here)?;
            if rustix::fs::fstat(&here)?.st_ino != above.inode {
                // It was moved: whoever asked begins anew.
                break;
            }
            if let Some(done) = done {
                self.unlink(&here, &done.name)?;
            }
        }
        Ok(())
    }

    /// Removes what can be removed at once, and gives the rest.
    fn sweep(&self, folder: &OwnedFd, name: OsString) -> io::Result<Level> {
        let mut waiting = Vec::new();
        for name in names(folder)? {
            let name = name?;
            if !self.unlink(folder, &name)? {
                waiting.push(name);
            }
        }
        Ok(Level { inode: rustix::fs::fstat(folder)?.st_ino, name, waiting })
    }

    /// Removes one entry; false for a folder that is not empty.
    fn unlink(&self, folder: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        self.in_time()?;
        let mut removed = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        if matches!(removed, Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM)) {
            removed = rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR);
        }
        match removed {
            // Gone meanwhile, or another kind of thing by now: the next round sees what is there.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(true),
            Err(rustix::io::Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn in_time(&self) -> io::Result<()> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// The names of a folder's entries, as the kernel gives them.
fn names(folder: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<OsString>>> {
    let entries = Dir::read_from(folder)?.map(|entry| Ok(OsString::from_vec(entry?.file_name().to_bytes().to_vec())));
    Ok(entries.filter(|name| !name.as_ref().is_ok_and(|name| name == "." || name == "..")))
}

fn open_beneath(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open(folder, path, flags, ResolveFlags::BENEATH)
}

/// The folder that a folder lies in, wherever code inside has moved it: never beyond the workspace, since that is a mount of its own.
fn open_above(folder: &OwnedFd) -> io::Result<OwnedFd> {
    open(folder.as_fd(), Path::new(".."), OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty())
}

fn open(folder: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    // The kernel asks to try again when a rename went on at the same time; code inside can do that without end.
    for _ in 0..32 {
        match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Lists one folder, as far as its paths have room, and gives the folders in it.
fn list_one(open: &OwnedFd, folder: &Path, listing: &mut Listing, room: &mut usize) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let Ok(dir) = Dir::read_from(open) else {
        listing.incomplete = true;
        return folders;
    };
    for entry in dir {
        let Ok(entry) = entry else {
            listing.incomplete = true;
            break;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let left = room.checked_sub(folder.as_os_str().len() + 1 + name.to_bytes().len());
        let Some(left) = left.filter(|_| listing.entries.len() < MAX_ENTRIES) else {
            listing.incomplete = true;
            break;
        };
        // Gone in between: nothing to list.
        let Ok(stat) = rustix::fs::statat(open.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        *room = left;
        let path = folder.join(OsString::from_vec(name.to_bytes().to_vec()));
        let entry = Entry::of(path, &stat);
        if entry.kind == Kind::Folder {
            folders.push(entry.path.clone());
        }
        listing.entries.push(entry);
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn workspace(folder: &Path) -> Workspace {
        Workspace::new(OwnedFd::from(File::open(folder).unwrap()))
    }

    #[test]
    fn nothing_outside_can_be_opened() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("canary"), "secret").unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir(inside.path().join("sub")).unwrap();
        std::fs::write(inside.path().join("sub/file"), "mine").unwrap();
        symlink(outside.path().join("canary"), inside.path().join("link")).unwrap();
        symlink(outside.path(), inside.path().join("folder")).unwrap();
        symlink("sub/file", inside.path().join("harmless")).unwrap();
        symlink("/proc/self/root", inside.path().join("magic")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, inside.path().join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        let workspace = workspace(inside.path());
        let mut text = String::new();
        workspace.open(Path::new("sub/file")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "mine");
        let canary = format!("{}", outside.path().join("canary").display());
        let up = format!("../{}/canary", outside.path().file_name().unwrap().to_str().unwrap());
        assert_eq!(std::fs::read_to_string(inside.path().join(&up)).unwrap(), "secret", "the control reads it");
        for path in ["link", "folder/canary", "harmless", "magic/etc/passwd", "pipe", "sub", "sub/../../x", &up, &canary, "/etc/passwd", "", "."] {
            assert!(workspace.open(Path::new(path)).is_err(), "{path}");
        }
        let listing = workspace.list().unwrap();
        let names: Vec<_> = listing.entries.iter().map(|entry| (entry.path.to_str().unwrap(), entry.kind)).collect();
        let expected = [
            ("folder", Kind::Other),
            ("harmless", Kind::Other),
            ("link", Kind::Other),
            ("magic", Kind::Other),
            ("pipe", Kind::Other),
            ("sub", Kind::Folder),
            ("sub/file", Kind::File),
        ];
        assert_eq!(names, expected);
        assert!(!listing.incomplete);
    }

    /// What code may have put somewhere: a file, a folder, or a link to one of these places.
    #[derive(Debug, Clone)]
    enum Made {
        File,
        Folder,
        Link(String),
        Twin(String),
    }

    /// Paths of few names, so that they meet: with `.`, `..`, empty parts and slashes anywhere.
    fn paths() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "b", "c", "a", "b", "c", ".", "..", "", "outside", "canary"]);
        (any::<bool>(), prop::collection::vec(part, 1..6)).prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
    }

    fn made() -> impl Strategy<Value = Made> {
        let targets = prop_oneof![paths(), Just("/proc/self/root".to_owned()), Just("../outside/canary".to_owned()), Just("..".to_owned())];
        prop_oneof![2 => Just(Made::File), 3 => Just(Made::Folder), 3 => targets.prop_map(Made::Link), 1 => paths().prop_map(Made::Twin)]
    }

    /// Builds a workspace beside a canary; gives the files in it that no link leads to, each with what it holds.
    fn built(home: &Path, things: &[(String, Made)]) -> Vec<PathBuf> {
        let inside = home.join("inside");
        std::fs::create_dir_all(home.join("outside")).unwrap();
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(home.join("outside/canary"), "outside").unwrap();
        for (path, made) in things {
            // Only below, and through no link: whatever code does, it does inside.
            let place = inside.join(path.trim_start_matches('/'));
            let is_inside = place.parent().and_then(|parent| parent.canonicalize().ok()).is_some_and(|parent| parent.starts_with(&inside));
            if !is_inside || path.contains("..") {
                continue;
            }
            let _ = match made {
                Made::File => File::options().write(true).create_new(true).open(&place).and_then(|mut file| std::io::Write::write_all(&mut file, b"inside")),
                Made::Folder => std::fs::create_dir(&place),
                Made::Link(target) => symlink(target, &place),
                Made::Twin(other) => std::fs::hard_link(inside.join(other.trim_start_matches('/')), &place),
            };
        }
        let listing = workspace(&inside).list().unwrap();
        listing.entries.into_iter().filter(|entry| entry.kind == Kind::File).map(|entry| entry.path).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn whatever_is_built_and_asked_nothing_outside_is_reached(things in prop::collection::vec((paths(), made()), 0..24), asked in prop::collection::vec(paths(), 1..24)) {
            let home = tempfile::tempdir_in("/dev/shm").unwrap();
            let home_path = home.path().canonicalize().unwrap();
            let files = built(&home_path, &things);
            let workspace = workspace(&home_path.join("inside"));
            let content = |path: &Path| {
                let mut text = String::new();
                workspace.open(path).and_then(|mut file| file.read_to_string(&mut text)).map(|_| text)
            };
            for file in &files {
                prop_assert_eq!(content(file).unwrap(), "inside");
            }
            for path in asked.iter().map(Path::new) {
                if let Ok(text) = content(path) {
                    prop_assert_eq!(text, "inside", "{}", path.display());
                }
                if let Ok(listing) = workspace.list_folder(path, true) {
                    prop_assert!(listing.entries.iter().all(|entry| entry.path.file_name().is_none_or(|name| name != "inside")), "{}", path.display());
                }
                let _ = (workspace.entry(path), workspace.remove(path));
            }
            prop_assert_eq!(std::fs::read_to_string(home_path.join("outside/canary")).unwrap(), "outside");
            prop_assert_eq!(std::fs::read_dir(&home_path).unwrap().count(), 2);
        }
    }

    #[test]
    fn any_time_that_code_sets_can_be_named() {
        let inside = tempfile::tempdir_in("/dev/shm").unwrap();
        let workspace = workspace(inside.path());
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        for seconds in [i64::MIN, -1, 0, 253_402_300_800, i64::MAX] {
            let file = File::create(inside.path().join("file")).unwrap();
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 999_999_999 };
            rustix::fs::futimens(&file, &rustix::fs::Timestamps { last_access: time, last_modification: time }).unwrap();
            let told =
                [workspace.open_entry(Path::new("file")).unwrap().1, workspace.entry(Path::new("file")).unwrap(), workspace.list().unwrap().entries.remove(0)];
            assert!(told.iter().all(|entry| (SystemTime::UNIX_EPOCH..=latest).contains(&entry.modified())), "{seconds}");
        }
    }

    #[test]
    fn what_is_removed_is_inside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("canary"), "secret").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let place = |name: &str| inside.path().join(name);
        std::fs::create_dir_all(place("tree/a/b/c")).unwrap();
        std::fs::create_dir_all(place("tree/d")).unwrap();
        std::fs::write(place("tree/a/b/file"), "1").unwrap();
        symlink(outside.path(), place("tree/a/folder")).unwrap();
        symlink(outside.path(), place("folder")).unwrap();
        symlink(outside.path().join("canary"), place("link")).unwrap();
        let workspace = workspace(inside.path());
        for path in ["folder/canary", "../x", "", ".", "..", "/etc/passwd", "missing", "tree/../../x"] {
            assert!(workspace.remove(Path::new(path)).is_err(), "{path}");
        }
        for path in ["tree", "folder", "link"] {
            workspace.remove(Path::new(path)).unwrap();
        }
        assert_eq!(workspace.list().unwrap(), Listing::default());
        assert_eq!(std::fs::read_to_string(outside.path().join("canary")).unwrap(), "secret");
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        // Where workspaces are, too: disks take their time.
        let inside = tempfile::tempdir_in("/dev/shm").unwrap();
        let workspace = workspace(inside.path());
        let mut folder = OwnedFd::from(File::open(inside.path()).unwrap());
        // Walked from the top for each folder in it, this would take minutes.
        for _ in 0..10_000 {
            rustix::fs::mkdirat(&folder, "a-folder-with-a-name", Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, "a-folder-with-a-name", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        for number in 0..100 {
            std::fs::create_dir_all(inside.path().join(format!("a-folder-with-a-name/{number}/full/of"))).unwrap();
        }
        // However slow this machine is just now.
        workspace.remove_within(Path::new("a-folder-with-a-name"), Duration::from_secs(600)).unwrap();
        assert_eq!(workspace.list().unwrap().entries, Vec::new());
    }

    #[test]
    fn a_folder_can_be_listed_alone() {
        let inside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(inside.path().join("a/b")).unwrap();
        std::fs::write(inside.path().join("a/b/c"), "1").unwrap();
        let workspace = workspace(inside.path());
        let names = |listing: Listing| listing.entries.into_iter().map(|entry| entry.path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(workspace.list_folder(Path::new("a"), false).unwrap()), ["a/b"]);
        assert_eq!(names(workspace.list_folder(Path::new("a"), true).unwrap()), ["a/b", "a/b/c"]);
        assert!(workspace.list_folder(Path::new("a/b/c"), false).is_err() && workspace.list_folder(Path::new("x"), false).is_err());
        assert_eq!(workspace.entry(Path::new("a/b/c")).unwrap().size, 1);
        assert!(workspace.entry(Path::new("a/x")).is_err());
    }

    #[test]
    fn what_a_listing_holds_is_bounded_and_said() {
        let inside = tempfile::tempdir_in("/dev/shm").unwrap();
        let deep: PathBuf = std::iter::repeat_n("x".repeat(255), 14).collect();
        std::fs::create_dir_all(inside.path().join(&deep)).unwrap();
        for number in 0..MAX_PATH_BYTES / 3500 {
            std::fs::write(inside.path().join(&deep).join(number.to_string()), "").unwrap();
        }
        let listing = workspace(inside.path()).list().unwrap();
        let bytes: usize = listing.entries.iter().map(|entry| entry.path.as_os_str().len()).sum();
        assert!(listing.incomplete && bytes <= MAX_PATH_BYTES && bytes > MAX_PATH_BYTES / 2, "{bytes}");
        let workspace = workspace(inside.path());
        workspace.remove(Path::new(&"x".repeat(255))).unwrap();
        assert_eq!(workspace.list().unwrap(), Listing::default());
    }

    #[test]
    fn depth_is_bounded_and_said() {
        let inside = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 5).collect();
        std::fs::create_dir_all(inside.path().join(deep)).unwrap();
        let listing = workspace(inside.path()).list().unwrap();
        assert!(listing.incomplete);
        assert_eq!(listing.entries.len(), MAX_DEPTH);
    }
}
