//! The folder and the files in it: made for their owner alone, and refused where somebody else could have laid them there.
//!
//! Nothing here opens an existing database: closing any descriptor of it would drop the locks that SQLite holds on it in this process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::StoreError;

/// The database below the data folder.
const DATABASE: &str = "belljar.db";
/// The writer's lock below the data folder.
const LOCK: &str = "belljar.lock";
/// A holder that is on its way out, or wants only a moment, is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// The data folder with its symbolic links resolved, once it is found to be ours.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    owner: u32,
    group: u32,
}

/// The right to write, for as long as this lives. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

impl Place {
    /// Finds the folder, or makes it for its owner alone.
    pub(crate) fn make(folder: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreError::place("create the data folder", folder))?;
        Self::find(folder)
    }

    /// Finds the folder.
    pub(crate) fn find(folder: &Path) -> Result<Self, StoreError> {
        let folder = match folder.canonicalize() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::NoRecord { folder: folder.to_owned() }),
            found => found.map_err(StoreError::place("look up the data folder", folder))?,
        };
        let facts = fs::metadata(&folder).map_err(StoreError::place("look at the data folder", &folder))?;
        let refused = |reason, hint| Err(StoreError::Distrusted { path: folder.clone(), reason, hint });
        if !facts.is_dir() {
            return refused("is not a folder", "name a folder with `--data`");
        }
        // Root may work on the data of another, and leaves it another's.
        let user = rustix::process::geteuid();
        if !user.is_root() && facts.uid() != user.as_raw() {
            return refused("belongs to another user", "name a folder of your own with `--data`");
        }
        if facts.mode() & 0o002 != 0 {
            return refused("can be written to by every user", "take that right away: `chmod o-w`");
        }
        Ok(Self { folder, owner: facts.uid(), group: facts.gid() })
    }

    /// Takes the right to write, and says who has it where that fails.
    pub(crate) fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.folder.join(LOCK);
        self.check(LOCK)?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow()).open(&path);
        let mut file = opened.and_then(|file| self.hand_over(file)).map_err(StoreError::place("open the lock", &path))?;
        let deadline = Instant::now() + PATIENCE;
        let tried = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(STEP),
                tried => break tried,
            }
        };
        match tried {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = (&file).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::InUse { folder: self.folder.clone(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::place("lock", &path)(error)),
        }
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(StoreError::place("write the lock", &path))?;
        Ok(Lock(file))
    }

    /// The database, made empty for its owner alone where there is none.
    pub(crate) fn make_database(&self) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(DATABASE);
        if !self.check(DATABASE)? {
            // A journal without its database would be played into the new one.
            for name in ["belljar.db-wal", "belljar.db-journal"] {
                if self.check(name)? {
                    let hint = "put `belljar.db` back beside it, or remove it";
                    return Err(StoreError::Distrusted { path: self.folder.join(name), reason: "is there, but its database is not", hint });
                }
            }
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            drop(made.and_then(|file| self.hand_over(file)).map_err(StoreError::place("create the database", &path))?);
        }
        self.check_beside()?;
        Ok(path)
    }

    /// The database.
    pub(crate) fn find_database(&self) -> Result<PathBuf, StoreError> {
        if !self.check(DATABASE)? {
            return Err(StoreError::NoRecord { folder: self.folder.clone() });
        }
        self.check_beside()?;
        Ok(self.folder.join(DATABASE))
    }

    /// Gives a file that we have made, or just found, the owner of its folder. SQLite does the same with those that it makes.
    fn hand_over(&self, file: File) -> std::io::Result<File> {
        if file.metadata()?.uid() != self.owner {
            std::os::unix::fs::fchown(&file, Some(self.owner), Some(self.group))?;
        }
        Ok(file)
    }

    /// The files that SQLite keeps beside the database.
    fn check_beside(&self) -> Result<(), StoreError> {
        for name in ["belljar.db-wal", "belljar.db-shm", "belljar.db-journal"] {
            self.check(name)?;
        }
        Ok(())
    }

    /// Whether this file is there. One that is must be a plain file of ours with one name, and is closed to others where it is not.
    fn check(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.folder.join(name);
        let facts = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            found => found.map_err(StoreError::place("look at", &path))?,
        };
        let refused = |reason| Err(StoreError::Distrusted { path: path.clone(), reason, hint: "look who put it there, and move it away" });
        if !facts.is_file() {
            return refused("is not a plain file");
        }
        if facts.uid() != self.owner {
            return refused("belongs to another user than its folder");
        }
        if facts.nlink() != 1 {
            return refused("has a second name");
        }
        if facts.mode() & 0o077 != 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(StoreError::place("close to other users", &path))?;
        }
        Ok(true)
    }
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let place = Place::make(&folder).unwrap();
        let _lock = place.lock().unwrap();
        let database = place.make_database().unwrap();
        assert_eq!((mode(&folder), mode(&home.path().join("a")), mode(&database), mode(&folder.join(LOCK))), (0o700, 0o700, 0o600, 0o600));
        fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).unwrap();
        place.make_database().unwrap();
        assert_eq!(mode(&database), 0o600, "an open one is closed");
    }

    #[test]
    fn what_somebody_may_have_laid_there_is_refused() {
        for name in [DATABASE, LOCK, "belljar.db-wal", "belljar.db-shm", "belljar.db-journal"] {
            let home = tempfile::tempdir().unwrap();
            let place = Place::make(home.path()).unwrap();
            let open = || place.lock().and_then(|_| place.make_database()).map_err(|error| error.to_string());
            fs::write(home.path().join("victim"), "").unwrap();
            if name != DATABASE && name != LOCK {
                open().unwrap();
            }
            symlink("victim", home.path().join(name)).unwrap();
            assert!(open().unwrap_err().ends_with(&format!("{name}` is not a plain file")), "{name}");
            fs::remove_file(home.path().join(name)).unwrap();
            fs::hard_link(home.path().join("victim"), home.path().join(name)).unwrap();
            assert!(open().unwrap_err().ends_with(&format!("{name}` has a second name")), "{name}");
        }
    }

    #[test]
    fn a_journal_without_its_database_is_not_played() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("belljar.db-wal"), "x").unwrap();
        let error = Place::make(home.path()).unwrap().make_database().unwrap_err();
        assert!(error.to_string().contains("its database is not"), "{error}");
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Place::make(home.path()).unwrap_err();
        assert!(error.to_string().contains("every user") && error.hint().unwrap().contains("chmod o-w"), "{error}");
        fs::write(home.path().join("file"), "").unwrap();
        assert!(Place::make(&home.path().join("file")).is_err());
        assert!(matches!(Place::find(&home.path().join("none")).unwrap_err(), StoreError::NoRecord { .. }));
        if !rustix::process::geteuid().is_root() {
            assert!(Place::find(Path::new("/usr")).unwrap_err().to_string().contains("belongs to another user"));
        }
    }

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let home = tempfile::tempdir().unwrap();
        let place = Place::make(home.path()).unwrap();
        let lock = place.lock().unwrap();
        let error = place.lock().unwrap_err();
        assert!(error.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{error}");
        assert!(error.hint().unwrap().contains("stop process"));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| place.lock());
            drop(lock);
            next.join().unwrap().unwrap();
        });
    }
}
