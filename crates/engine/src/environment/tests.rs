//! Environments as a whole: built with a package of one file, by two at once, after a crash, without a network, for another user.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// One pure-Python package, so that a build takes a second.
const REQUIREMENTS: &str = "six==1.17.0\n";

/// A data folder that every user can reach, as an installed service has it.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The developer's own settings of index and certificates are needed; what the test sets comes on top.
fn bare_host(changes: &[(&str, &str)]) -> Host {
    Host::new(std::env::vars_os().chain(changes.iter().map(|(name, value)| (name.into(), value.into()))))
}

/// The same with a uv on `PATH` that all tests share, so that not each of them has to install one.
fn host(changes: &[(&str, &str)]) -> Host {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    let program = SHARED.get_or_init(|| uv(&bare_host(&[]), &std::env::current_exe().unwrap().with_file_name("environment-tests")));
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(program.parent().unwrap().to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).unwrap();
    let mut all: Vec<(&str, &str)> = vec![("PATH", path.to_str().unwrap())];
    all.extend(changes);
    bare_host(&all)
}

/// The uv that a build in `data` would use.
fn uv(host: &Host, data: &Path) -> PathBuf {
    fs::create_dir_all(data.join("logs")).unwrap();
    let python = interpreter::choose(host, None, None).unwrap();
    let lock = File::create(data.join("lock")).unwrap();
    let running = tool::Running { name: "tiny", data, log: data.join("logs/uv.log"), lock: &lock };
    tool::Uv::get(host, &python, &running).unwrap().command().get_program().into()
}

#[test]
fn uv_is_installed_where_there_is_none() {
    let data = data();
    let nothing = bare_host(&[("PATH", "/usr/bin:/bin")]);
    if Path::new("/usr/bin/uv").exists() || Path::new("/bin/uv").exists() {
        assert!(!uv(&nothing, data.path()).starts_with(data.path()));
        return;
    }
    let program = uv(&nothing, data.path());
    assert!(program.starts_with(data.path().join("tools")), "{}", program.display());
    assert!(Command::new(&program).arg("--version").output().unwrap().status.success());
    assert_eq!(uv(&nothing, data.path()), program);
}

fn requirements(data: &Path, text: &str) -> Options {
    let path = data.join("wanted.txt");
    fs::write(&path, text).unwrap();
    Options { requirements: Some(path), python: None }
}

fn build(store: &Store, options: &Options) -> Result<Environment, EnvironmentError> {
    store.ensure("tiny", options, &mut |_| {}, &mut |_| Ok(()))
}

fn left_over(store: &Store) -> Vec<String> {
    let names = fs::read_dir(store.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".building-") || name.starts_with(".removing-")).collect()
}

#[test]
fn names_become_folders_so_they_are_plain() {
    for good in ["core", "a", "0x", "my-env-2", &"a".repeat(64)] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "Core", "a_b", "a.b", "../x", "a/b", "a b", "ä", &"a".repeat(65)] {
        assert!(matches!(check_name(bad), Err(EnvironmentError::InvalidName { .. })), "{bad}");
    }
}

#[test]
fn an_absent_data_folder_is_an_empty_store() {
    let data = data();
    let store = Store::open(&data.path().join("none"), Host::default());
    assert_eq!(store.find("core").unwrap(), None);
    assert!(store.list().is_empty());
    assert!(matches!(store.find("tiny"), Err(EnvironmentError::Unknown { .. })));
    assert!(matches!(store.remove("core"), Err(EnvironmentError::Unknown { .. })));
    assert!(!data.path().join("none").exists());
}

#[test]
fn unknown_and_built_in_names_are_told_apart() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let unknown = build(&store, &Options::default()).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no environment `tiny`");
    assert!(unknown.hint().unwrap().contains("--requirements FILE"));
    let options = requirements(data.path(), REQUIREMENTS);
    let error = store.ensure("core", &options, &mut |_| {}, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, EnvironmentError::BuiltIn { .. }));
}

#[test]
fn two_builders_build_once() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let options = requirements(data.path(), REQUIREMENTS);
    let finished = AtomicUsize::new(0);
    let one = || {
        store.ensure("tiny", &options, &mut |_| {}, &mut |environment| {
            finished.fetch_add(1, Ordering::SeqCst);
            assert!(environment.root.file_name().unwrap().to_string_lossy().starts_with(".building-tiny."));
            fs::write(environment.cache_dir().join("warm"), "x").unwrap();
            Ok(())
        })
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one().unwrap(), other.join().unwrap().unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(finished.into_inner(), 1);
    assert_eq!(first.packages, [("six".to_owned(), "1.17.0".to_owned())]);
    assert_eq!(first.root.file_name().unwrap().to_str().unwrap(), format!("tiny-{}", first.digest));
    assert_eq!(fs::read_to_string(first.cache_dir().join("warm")).unwrap(), "x");
    assert_eq!(left_over(&store), [""; 0]);
    assert_eq!(store.find("tiny").unwrap().as_ref(), Some(&first));
    assert_eq!(build(&store, &Options::default()).unwrap(), first);

    let lease = first.hold().unwrap();
    assert!(matches!(store.remove("tiny"), Err(EnvironmentError::InUse { .. })));
    drop(lease);
    store.remove("tiny").unwrap();
    assert!(!first.root.exists() && first.hold().is_err());
    assert!(matches!(store.find("tiny"), Err(EnvironmentError::Unknown { .. })));
}

#[test]
fn a_killed_builder_leaves_nothing_in_the_way() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let dead = store.folder().join(".building-tiny.dead");
    fs::create_dir_all(dead.join("env/lib")).unwrap();
    let of_another = store.folder().join(".building-tiny-2.alive");
    fs::create_dir_all(&of_another).unwrap();
    // A folder at the final place that is not whole, as a copy of the data folder might leave it.
    let options = requirements(data.path(), REQUIREMENTS);
    let built = build(&store, &options).unwrap();
    fs::remove_file(built.root.join(MANIFEST)).unwrap();
    assert_eq!(store.find("tiny").unwrap(), None);
    assert_eq!(build(&store, &options).unwrap(), built);
    assert_eq!(left_over(&store), [".building-tiny-2.alive"]);
}

#[test]
fn a_failed_finish_leaves_no_environment() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let options = requirements(data.path(), REQUIREMENTS);
    let error = store
        .ensure("tiny", &options, &mut |_| {}, &mut |environment| Err(EnvironmentError::Finish { name: environment.name.clone(), reason: "no".to_owned() }));
    assert_eq!(error.unwrap_err().to_string(), "environment `tiny` could not be finished: no");
    assert_eq!(left_over(&store), [""; 0]);
    assert_eq!(store.find("tiny").unwrap(), None);
}

#[test]
fn without_a_network_the_error_says_so() {
    let data = data();
    let offline = host(&[("UV_DEFAULT_INDEX", "http://127.0.0.1:9/"), ("UV_HTTP_RETRIES", "0"), ("UV_FIND_LINKS", "")]);
    let store = Store::open(data.path(), offline);
    let error = build(&store, &requirements(data.path(), REQUIREMENTS)).unwrap_err();
    let EnvironmentError::NoNetwork { name, log, .. } = &error else { panic!("{error:?}") };
    assert_eq!(name, "tiny");
    assert!(fs::read_to_string(log).unwrap().contains("127.0.0.1:9"));
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    assert!(error.hint().unwrap().contains("check the network"));
    assert_eq!(left_over(&store), [""; 0]);
}

#[test]
fn what_has_no_wheel_or_does_not_exist_is_unsatisfiable() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let error = build(&store, &requirements(data.path(), "six==99\n")).unwrap_err();
    let EnvironmentError::Unsatisfiable { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("six==99"), "{reason}");
    assert!(!store.user_lock_path("tiny").exists());
}

#[test]
fn a_package_that_is_not_the_locked_one_is_refused() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let python = interpreter::choose(&store.host, None, None).unwrap();
    let wrong = format!("six==1.17.0 \\\n    --hash=sha256:{}\n", "0".repeat(64));
    fs::create_dir_all(store.folder()).unwrap();
    fs::write(store.user_lock_path("tiny"), lock::UserLock::new(&wrong, REQUIREMENTS, &python.minor).text).unwrap();
    let error = build(&store, &Options::default()).unwrap_err();
    assert!(matches!(error, EnvironmentError::HashMismatch { .. }), "{error:?}");
    assert_eq!(left_over(&store), [""; 0]);
}

#[test]
fn a_file_in_place_of_the_data_folder_is_an_error_with_its_name() {
    let data = data();
    let path = data.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Store::open(&path, host(&[])).ensure("core", &Options::default(), &mut |_| {}, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("file/environments`"), "{error}");
}

/// Runs Python in the environment with the host's files replaced by the two folders: as the sandbox will show them, and, where the
/// test is root, as a user who can read nothing of the builder's.
fn inside(environment: &Environment, code: &str) -> std::process::Output {
    let mounts = "mount -t tmpfs none /opt && mkdir /opt/env /opt/python && mount --bind \"$1\" /opt/env \
        && { test ! -d \"$2\" || mount --bind \"$2\" /opt/python; } \
        && exec env -i LD_LIBRARY_PATH=\"$3\" /opt/env/bin/python -I -c \"$4\"";
    let libraries = std::env::join_paths(&environment.library_path).unwrap();
    let mut command = if is_root() { Command::new("setpriv") } else { Command::new("unshare") };
    if is_root() {
        command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "unshare"]);
    }
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mounts, "sh"]).arg(environment.env_dir());
    command.arg(environment.root.join("python")).arg(libraries).arg(code).current_dir("/").stdin(Stdio::null());
    command.output().unwrap()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn another_user_can_use_it_without_reading_the_builders_home() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let environment = build(&store, &requirements(data.path(), REQUIREMENTS)).unwrap();
    let code = "import sys, six, ssl, sqlite3, lzma, bz2, ctypes, zoneinfo, multiprocessing, json.decoder\n\
        assert sys.prefix == '/opt/env', sys.prefix\n\
        paths = [line.split()[-1] for line in open('/proc/self/maps') if '/' in line] + sys.path + [sys._base_executable]\n\
        strange = [path for path in paths if not path.startswith(('/opt/', '/usr/', '/lib', '/dev/'))]\n\
        assert not strange, strange\n\
        print(six.__file__, six.add_move.__code__.co_filename)\n";
    let output = inside(&environment, code);
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let six = format!("{}/six.py", environment.site_packages_inside());
    assert_eq!(said.trim(), format!("{six} {six}"), "{wrong}");
    assert!(output.status.success());
}

#[test]
fn files_are_for_everybody_to_read_and_nobody_to_write() {
    let data = data();
    let store = Store::open(data.path(), host(&[]));
    let environment = build(&store, &requirements(data.path(), REQUIREMENTS)).unwrap();
    let mut folders = vec![environment.root.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o755, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                files += 1;
                assert_eq!(metadata.permissions().mode() & 0o666, 0o444, "{}", entry.path().display());
            }
        }
    }
    assert!(files > 10);
    let settings = fs::read_to_string(environment.env_dir().join("pyvenv.cfg")).unwrap();
    assert!(!settings.contains(data.path().to_str().unwrap()), "{settings}");
}

#[test]
fn a_data_folder_that_others_can_fill_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let user = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let mode = |mode| fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    assert!(is_trusted(&data, user, true));
    assert!(is_trusted(Path::new("/tmp"), user, false) && !is_trusted(Path::new("/tmp"), user, true), "shared, but sticky");
    for (shared, sticky_above) in [(0o757, false), (0o1777, true)] {
        mode(shared);
        assert_eq!((is_trusted(&data, user, true), is_trusted(&data, user, false)), (false, sticky_above), "{shared:o}");
        let store = Store::open(&data, Host::default());
        assert!(matches!(store.find("core"), Err(EnvironmentError::Untrusted { .. })));
    }
    mode(0o755);
    assert!(!is_trusted(&data, user + 1, true) || user == 0, "another user's folder");
}
