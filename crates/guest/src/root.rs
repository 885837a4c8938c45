//! Builds, in the launcher's mount namespace, the read-only file tree that sandboxes start from.

use std::ffi::CString;

use protocol::message::{Bind, Failure, Root};
use rustix::fs::Mode;
use rustix::mount::MountFlags;

use crate::launcher::{HOST, failed};
use crate::sys;

/// Where the root with this number stands.
#[must_use]
pub fn stage(root: u32) -> String {
    format!("/stage/{root}")
}

/// Builds a root: a small tmpfs with folders, files and links, the binds on it, and everything read-only.
///
/// # Errors
/// The step that failed, with its object.
pub fn build(root: &Root) -> Result<(), Failure> {
    let stage = stage(root.root);
    failed("create", &stage, std::fs::create_dir_all(&stage))?;
    failed("mount tmpfs on", &stage, rustix::mount::mount("tmpfs", &stage, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"size=16m,mode=0755"))?;
    for directory in &root.directories {
        failed("create", directory, std::fs::create_dir_all(format!("{stage}{directory}")))?;
    }
    for (path, content) in &root.files {
        let place = format!("{stage}{path}");
        failed("write", path, std::fs::write(&place, content))?;
        failed("write", path, rustix::fs::chmod(&place, Mode::from_raw_mode(0o444)))?;
    }
    for (path, target) in &root.links {
        failed("link", path, std::os::unix::fs::symlink(target, format!("{stage}{path}")))?;
    }
    for bind in &root.binds {
        bind_one(&stage, bind)?;
    }
    read_only(&stage, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID)
}

fn bind_one(stage: &str, bind: &Bind) -> Result<(), Failure> {
    let (source, target) = (format!("{HOST}{}", bind.source), format!("{stage}{}", bind.target));
    let folder = failed("read", &bind.source, std::fs::metadata(&source))?.is_dir();
    if folder {
        failed("create", &bind.target, std::fs::create_dir_all(&target))?;
    } else {
        failed("create", &bind.target, std::fs::File::create(&target))?;
    }
    failed("bind", &bind.source, rustix::mount::mount_bind_recursive(&source, &target))?;
    // A device node works only on a mount without `nodev`; every other bind gets it.
    let devices = if bind.device { 0 } else { libc::MOUNT_ATTR_NODEV };
    read_only(&target, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | devices)
}

fn read_only(path: &str, attributes: u64) -> Result<(), Failure> {
    let place = failed("name", path, CString::new(path))?;
    failed("make read-only", path, sys::mount_setattr_recursive(&place, attributes))
}
