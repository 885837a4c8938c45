//! The folder that artifacts and pictures are copied to: all of them, or none.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::Folder;

use crate::error::{Error, ErrorKind};
use crate::execution::Output;

/// How the folders begin in which files are collected, and how old one is whose maker was killed before it is removed.
const STAGING: &str = ".belljar-";
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Files on their way into the output folder. Dropped without [`Out::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Out {
    folder: PathBuf,
    staging: Option<Staging>,
    made: Option<PathBuf>,
    names: HashSet<PathBuf>,
}

/// Where files are collected: within the output folder, so that they can be moved into place.
#[derive(Debug)]
struct Staging {
    target: Folder,
    folder: Folder,
    name: OsString,
}

impl Staging {
    fn new(target: Folder) -> io::Result<Self> {
        target.sweep(STAGING, FORGOTTEN);
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let name = OsString::from(bytes.iter().fold(STAGING.to_owned(), |name, byte| format!("{name}{byte:02x}")));
        Ok(Self { folder: target.create_private(&name)?, target, name })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = self.target.remove(&self.name);
    }
}

/// Whether a name that code chose is at fault, and not the folder: too long, or in the way of another.
#[must_use]
pub fn is_names_fault(error: &io::Error) -> bool {
    use io::ErrorKind;
    let kinds = [
        ErrorKind::InvalidFilename,
        ErrorKind::AlreadyExists,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::DirectoryNotEmpty,
        ErrorKind::InvalidInput,
    ];
    kinds.contains(&error.kind())
}

/// What to say when a file cannot be saved.
#[must_use]
pub fn failed(place: &Path, error: &io::Error) -> Error {
    let usage = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory | io::ErrorKind::ReadOnlyFilesystem);
    let kind = if usage { ErrorKind::InvalidRequest } else { ErrorKind::Unavailable };
    Error::new(kind, format!("cannot save `{}`: {error}", place.display())).hint("name a folder with room that you may write to with `--out`")
}

/// Checks, before anything runs, that the folder could be made and written to.
///
/// # Errors
/// It could not.
pub fn check(folder: &Path) -> Result<(), Error> {
    let mut place = folder;
    while !place.exists() {
        place = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    }
    if !place.is_dir() {
        return Err(failed(folder, &io::ErrorKind::NotADirectory.into()));
    }
    tempfile::tempfile_in(place).map(drop).map_err(|error| failed(folder, &error))
}

impl Out {
    /// Nothing is made until the first file comes.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), staging: None, made: None, names: HashSet::new() }
    }

    /// Where files are collected.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn staging(&mut self) -> Result<&Folder, Error> {
        if self.staging.is_none() {
            let first_new = self.folder.ancestors().filter(|path| !path.as_os_str().is_empty() && !path.exists()).last().map(Path::to_owned);
            fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, &error))?;
            self.made = first_new;
            let staging = Folder::open(&self.folder).and_then(Staging::new).map_err(|error| failed(&self.folder, &error))?;
            self.staging = Some(staging);
        }
        self.staging.as_ref().map(|staging| &staging.folder).ok_or_else(|| failed(&self.folder, &io::ErrorKind::NotFound.into()))
    }

    /// A name near `wanted` that no other file of this run has.
    fn free_name(&self, wanted: &str) -> String {
        let (stem, extension) = wanted.split_once('.').unwrap_or((wanted, "bin"));
        let mut name = wanted.to_owned();
        let mut number = 1;
        while self.names.contains(Path::new(&name)) {
            name = format!("{stem}-{number}.{extension}");
            number += 1;
        }
        name
    }

    /// Says that a file with this name stands in the staging folder.
    pub fn add(&mut self, name: &Path) {
        self.names.insert(name.to_owned());
    }

    /// Creates the file for an artifact where files are collected. Its path may consist of plain names only.
    ///
    /// # Errors
    /// A path that leads elsewhere, or a file that cannot be made.
    pub fn create(staging: &Folder, path: &Path) -> io::Result<File> {
        staging.create(path)
    }

    /// Puts a picture among the files, under its name or one near it that is free.
    ///
    /// # Errors
    /// The folder cannot take it.
    pub fn save(&mut self, output: &mut Output) -> Result<(), Error> {
        use base64::Engine as _;
        let bytes = if output.is_binary() {
            // Not what it says it is: the code's own doing.
            let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(&output.data) else { return Ok(()) };
            bytes
        } else {
            output.data.clone().into_bytes()
        };
        let name = self.free_name(&output.name);
        let written = Self::create(self.staging()?, Path::new(&name)).and_then(|mut file| file.write_all(&bytes));
        written.map_err(|error| failed(&self.folder.join(&name), &error))?;
        self.add(Path::new(&name));
        output.name = name;
        Ok(())
    }

    /// Moves everything into place; what stood there under the same name is replaced. Gives the names that the folder could not take.
    ///
    /// # Errors
    /// What the folder could not take for another reason than a name.
    pub fn finish(mut self) -> Result<Vec<PathBuf>, Error> {
        let mut kept_out = Vec::new();
        if let Some(staging) = &self.staging {
            for name in &self.names {
                match staging.target.take(&staging.folder, name) {
                    Ok(()) => {}
                    Err(error) if is_names_fault(&error) => kept_out.push(name.clone()),
                    Err(error) => return Err(failed(&self.folder.join(name), &error)),
                }
            }
        }
        self.made = None;
        Ok(kept_out)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.staging = None;
        if let Some(made) = &self.made {
            // As far as nobody else has put anything there.
            let _ = self.folder.ancestors().take_while(|folder| folder.starts_with(made)).try_for_each(fs::remove_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_arrive_together_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let mut out = Out::new(&folder);
        write(&mut out, "x.txt", "1");
        assert_eq!(out.free_name("x.txt"), "x-1.txt");
        drop(out);
        assert!(!home.path().join("a").exists(), "nothing is left of a run that failed");
        let mut out = Out::new(&folder);
        write(&mut out, "x.txt", "2");
        out.finish().unwrap();
        assert_eq!(fs::read_to_string(folder.join("x.txt")).unwrap(), "2");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the staging folder is gone");
        let mut out = Out::new(&folder);
        write(&mut out, "x.txt/below", "3");
        assert_eq!(out.finish().unwrap(), [Path::new("x.txt/below")], "a file is in the way of a folder");
    }

    fn write(out: &mut Out, name: &str, text: &str) {
        Out::create(out.staging().unwrap(), Path::new(name)).unwrap().write_all(text.as_bytes()).unwrap();
        out.add(Path::new(name));
    }

    #[test]
    fn an_artifact_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = Out::new(folder.path());
        for path in ["../x", "/etc/x", "a/../../x"] {
            assert!(Out::create(out.staging().unwrap(), Path::new(path)).is_err(), "{path}");
        }
        assert!(Out::create(out.staging().unwrap(), Path::new("a/b.txt")).is_ok());
        let picture = |name: &str| Output { name: name.to_owned(), media_type: "image/svg+xml".to_owned(), data: "<svg/>".to_owned() };
        assert!(out.save(&mut picture("../x.svg")).is_err() && out.save(&mut picture("x.svg")).is_ok());
    }

    #[test]
    fn links_that_others_planted_are_not_followed() {
        let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), home.path().join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), home.path().join("link")).unwrap();
        let mut out = Out::new(home.path());
        write(&mut out, "folder/x", "1");
        write(&mut out, "link", "2");
        assert_eq!(out.finish().unwrap(), [Path::new("folder/x")]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(home.path().join("link")).unwrap(), "2");
        assert!(!home.path().join("link").is_symlink());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_a_later_one() {
        let home = tempfile::tempdir().unwrap();
        let left = home.path().join(".belljar-0123");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "1").unwrap();
        let mut out = Out::new(home.path());
        out.staging().unwrap();
        assert!(left.exists(), "it may have been made just now");
        drop(out);
        File::open(&left).unwrap().set_modified(std::time::SystemTime::now() - 2 * FORGOTTEN).unwrap();
        let mut out = Out::new(home.path());
        out.staging().unwrap();
        assert!(!left.exists());
        drop(out);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_is_told_before_anything_runs() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        assert_eq!(check(&home.path().join("file")).unwrap_err().kind, ErrorKind::InvalidRequest);
        assert_eq!(check(&home.path().join("file/below")).unwrap_err().kind, ErrorKind::InvalidRequest);
        assert!(check(Path::new("/proc/nowhere")).is_err());
        check(&home.path().join("new/folder")).unwrap();
        assert!(!home.path().join("new").exists());
    }
}
