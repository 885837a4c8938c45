//! The data folder of the tests: one that an ordinary user can read too, so that both kinds of user run on the same environment.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Below `target` where others can reach it, else in the folder for temporary files.
pub(crate) fn folder(target: &Path) -> anyhow::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = if reachable(target) { target.join("test-data") } else { std::env::temp_dir().join(format!("belljar-test-data-{user}")) };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let facts = fs::symlink_metadata(&folder)?;
    ensure!(facts.is_dir() && facts.uid() == user, "`{}` belongs to somebody else: remove it", folder.display());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Whether every user can get to this folder.
fn reachable(folder: &Path) -> bool {
    folder.ancestors().filter(|path| path.exists()).all(|path| fs::metadata(path).is_ok_and(|facts| facts.mode() & 0o001 != 0))
}
