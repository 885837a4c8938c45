//! The read-only file tree of a sandbox: the host's `/usr`, the environment, and a small `/etc` and `/dev` of our own.

use std::fs;
use std::path::Path;

use protocol::message::{Bind, Root};

use crate::backend::{Error, Template};

const DIRECTORIES: &[&str] = &["/mnt/data", "/tmp", "/home/sandbox", "/dev/shm", "/proc", "/run", "/var", "/etc/ssl", "/etc/fonts", "/opt/runtime"];

const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
    ("/etc/group", "sandbox:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/hostname", "sandbox\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("/etc/resolv.conf", "# no network\n"),
    ("/etc/fonts/fonts.conf", FONTS),
];

/// The host's fonts, whether or not it has fontconfig itself: libraries complain without this file.
const FONTS: &str = "<?xml version=\"1.0\"?>
<!DOCTYPE fontconfig SYSTEM \"urn:fontconfig:fonts.dtd\">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>/usr/local/share/fonts</dir>
  <cachedir>/tmp/.fontconfig</cachedir>
</fontconfig>
";

const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/etc/localtime", "/usr/share/zoneinfo/UTC"),
    ("/etc/os-release", "../usr/lib/os-release"),
    ("/var/tmp", "/tmp"),
];

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// Parts of the host's `/etc` that programs of `/usr` cannot do without; nothing in them is private.
const ETC: &[&str] = &["/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/certs"];

/// Parts of the host's root that are links into `/usr` on merged systems and folders elsewhere.
const SYSTEM: &[&str] = &["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Puts the tree together.
pub(super) fn of(number: u32, template: &Template) -> Result<Root, Error> {
    let mut root = Root {
        root: number,
        directories: DIRECTORIES.iter().map(|path| (*path).to_owned()).collect(),
        files: FILES.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect(),
        links: LINKS.iter().map(|(path, target)| ((*path).to_owned(), (*target).to_owned())).collect(),
        binds: Vec::new(),
    };
    root.files.extend(template.driver.iter().map(|(name, content)| (format!("/opt/runtime/{name}"), content.clone())));
    root.binds.push(bind(Path::new("/usr"), "/usr")?);
    for path in SYSTEM {
        match fs::read_link(path) {
            Ok(target) => root.links.push(((*path).to_owned(), target.display().to_string())),
            Err(_) if Path::new(path).is_dir() => root.binds.push(bind(Path::new(path), path)?),
            Err(_) => {}
        }
    }
    for path in ETC.iter().filter(|path| Path::new(path).exists()) {
        root.binds.push(bind(Path::new(path), path)?);
    }
    for device in DEVICES {
        let path = format!("/dev/{device}");
        root.binds.push(Bind { source: path.clone(), target: path, device: true });
    }
    for (source, target) in [(&template.environment, "/opt/env"), (&template.interpreter, "/opt/python"), (&template.cache, "/opt/cache")] {
        if let Some(source) = source {
            root.binds.push(bind(source, target)?);
        }
    }
    Ok(root)
}

/// Resolves the source on the host: the launcher sees the host's tree at another place, where absolute links would go astray.
fn bind(source: &Path, target: &str) -> Result<Bind, Error> {
    let real = fs::canonicalize(source).map_err(|error| Error::start("find", &source.display().to_string(), &error))?;
    Ok(Bind { source: real.display().to_string(), target: target.to_owned(), device: false })
}

/// Links from the home folder to prepared caches: matplotlib wants a writable folder, and finds its font list in it.
pub(super) fn cache_links(template: &Template) -> Vec<(String, String)> {
    let folder = template.cache.as_deref().map(|cache| cache.join("matplotlib"));
    let entries = folder.as_deref().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| (format!("home/.config/matplotlib/{name}"), format!("/opt/cache/matplotlib/{name}")))
        .collect()
}
