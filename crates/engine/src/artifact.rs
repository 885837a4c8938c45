//! Finds new and changed files of a workspace, and copies them out.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::Path;

use sandbox::workspace::{Entry, Kind, Listing};
use sandbox::{Folder, Workspace};
use sha2::{Digest, Sha256};

use crate::execution::Artifact;
use crate::out::Out;

/// Files above this are not read for their digest until somebody asks for them.
const DIGEST_BYTES: u64 = 16 * 1024 * 1024;
/// Artifacts that one execution reports at most.
pub(crate) const MAX_ARTIFACTS: usize = 1000;

/// What the workspace looked like before the code ran. A session keeps it from one execution to the next, and code chooses how many files there are
/// and how long their paths: so of each only a number is kept, under a key that code cannot know.
#[derive(Debug, Default)]
pub(crate) struct Before {
    key: RandomState,
    seen: HashSet<u64>,
}

impl Before {
    pub(crate) fn of(listing: &Listing) -> Self {
        let key = RandomState::new();
        let seen = listing.entries.iter().filter(|entry| entry.kind == Kind::File).map(|entry| key.hash_one((&entry.path, entry.size, entry.stamp))).collect();
        Self { key, seen }
    }

    /// Whether this entry is a file that is new or not as it was.
    fn is_news(&self, entry: &Entry) -> bool {
        entry.kind == Kind::File && !self.seen.contains(&self.key.hash_one((&entry.path, entry.size, entry.stamp)))
    }

    /// New and changed files, and whether something was left out.
    pub(crate) fn news<'a>(&self, listing: &'a Listing) -> (Vec<&'a Entry>, bool) {
        let all: Vec<&Entry> = listing.entries.iter().filter(|entry| self.is_news(entry)).collect();
        let more = all.len() > MAX_ARTIFACTS;
        (all.into_iter().take(MAX_ARTIFACTS).collect(), more || listing.incomplete)
    }
}

/// Opens a file for [`collect`]. Gone or no file any more: code inside changed its mind, and there is nothing to collect.
pub(crate) fn open(workspace: &Workspace, entry: &Entry) -> Option<File> {
    workspace.open(&entry.path).ok()
}

/// Copies one file out, beneath `folder` where there is one, and describes it. Never more than `entry.size` bytes: code may still write.
pub(crate) fn collect(file: File, entry: &Entry, folder: Option<&Folder>) -> io::Result<Artifact> {
    let mut target = folder.map(|folder| Out::create(folder, &entry.path)).transpose()?;
    let digest = if target.is_some() || entry.size <= DIGEST_BYTES {
        let mut file = file.take(entry.size);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.update(bytes);
            if let Some(target) = &mut target {
                target.write_all(bytes)?;
            }
        }
        Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    } else {
        None
    };
    Ok(Artifact { sha256: digest.filter(|_| entry.size <= DIGEST_BYTES), ..listed(entry) })
}

/// A file that is told of, but neither read nor copied.
pub(crate) fn listed(entry: &Entry) -> Artifact {
    let path = entry.path.to_string_lossy().into_owned();
    Artifact { path, raw_path: entry.path.clone(), size_bytes: entry.size, media_type: media_type(&entry.path), sha256: None, url: None }
}

/// The media type that a name suggests.
pub(crate) fn media_type(path: &Path) -> String {
    mime_guess::from_path(path).first_or_octet_stream().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind, size: u64, inode: u64) -> Entry {
        Entry { path: path.into(), kind, size, stamp: (inode, 0, 0) }
    }

    #[test]
    fn what_is_kept_of_many_files_is_little() {
        let entries = (0..100_000).map(|number| entry(&format!("{number:0>160}"), Kind::File, 1, number)).collect();
        let listing = Listing { entries, incomplete: false };
        let before = Before::of(&listing);
        assert!(before.news(&listing).0.is_empty());
        assert!(before.seen.capacity() * (size_of::<u64>() + 1) < 4 << 20, "{}", before.seen.capacity());
    }

    #[test]
    fn only_new_and_changed_files_are_news() {
        let listing = |entries| Listing { entries, incomplete: false };
        let before = Before::of(&listing(vec![entry("same", Kind::File, 1, 1), entry("grown", Kind::File, 1, 2), entry("replaced", Kind::File, 1, 3)]));
        let now = listing(vec![
            entry("same", Kind::File, 1, 1),
            entry("grown", Kind::File, 2, 2),
            entry("replaced", Kind::File, 1, 9),
            entry("new", Kind::File, 0, 4),
            entry("folder", Kind::Folder, 0, 5),
            entry("pipe", Kind::Other, 0, 6),
        ]);
        let (news, more) = before.news(&now);
        assert_eq!(news.iter().map(|entry| entry.path.to_str().unwrap()).collect::<Vec<_>>(), ["grown", "replaced", "new"]);
        assert!(!more);
    }
}
