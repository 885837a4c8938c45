//! Every check, in the order in which they fail fastest.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value as Json;

use crate::{clients, containment, data, fuzz};

/// User and group of the second pass: nobody has this number.
pub(crate) const ORDINARY: &str = "61234";
/// A soak of about half a minute; the data folder follows.
const SHORT_SOAK: [&str; 6] = ["soak", "--sandboxes", "200", "--kills", "20", "--data"];
/// Of the server, for who may write to the data folder; and none, for who may not.
const SHORT_SERVED: [&str; 10] = ["--served", "200", "--server-kills", "5", "--faults", "8", "--neighbours", "1", "--only", "T100"];
const NOT_SERVED: [&str; 8] = ["--served", "0", "--server-kills", "0", "--faults", "0", "--neighbours", "0"];
/// It has watches of its own; one that still goes on after this time is a failure.
const SOAK_PATIENCE: Duration = Duration::from_secs(600);

/// Prints a line of progress.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs everything.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root()?;
    cargo(&root, &["build", "--workspace"])?;
    let target = target(&root)?;
    let belljar = target.join("debug/belljar");
    doctor(&root, &belljar)?;
    cargo(&root, &["fmt", "--all", "--check"])?;
    cargo(&root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let data = data::folder(&target)?;
    step("environment");
    check(Command::new(&belljar).args(["env", "build", "core", "--data"]).arg(&data))?;
    step("tests as this user");
    check(Command::new(cargo_program()).current_dir(&root).args(["test", "--workspace"]).env("BELLJAR_TEST_DATA", &data))?;
    runtime_tests(&root, &data)?;
    step("real clients");
    clients::run(&root, &belljar, &data)?;
    step("clients of the Model Context Protocol");
    clients::mcp::run(&root, &belljar, &data)?;
    step("the description, fuzzed");
    fuzz::service::run(&root, &belljar, &data)?;
    step("decoders, fuzzed");
    fuzz::short_decoders()?;
    step("short soak as this user");
    within(SOAK_PATIENCE, Command::new(belljar.with_file_name("xtask")).args(SHORT_SOAK).arg(&data).args(SHORT_SERVED))?;
    if rustix::process::geteuid().is_root() {
        step("tests as an ordinary user");
        ordinary(&root, &belljar, &data)?;
        step("containment on the tiers that the tests did not run on, short form");
        containment::others(&root, &data)?;
    }
    say("every check has passed");
    Ok(())
}

/// Only one step of those that need a server: the root of the sources, the program, the data folder.
pub(crate) fn only(run: impl FnOnce(&Path, &Path, &Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let root = root()?;
    cargo(&root, &["build", "--workspace"])?;
    let target = target(&root)?;
    run(&root, &target.join("debug/belljar"), &data::folder(&target)?)
}

/// The root of the sources.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?)
}

fn step(name: &str) {
    say(&format!("\n== {name}"));
}

fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    step(&format!("cargo {}", arguments.join(" ")));
    check(Command::new(cargo_program()).current_dir(root).args(arguments))
}

pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// As [`check`], but not for longer than this.
pub(crate) fn within(patience: Duration, command: &mut Command) -> anyhow::Result<()> {
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{command:?} ended with {status}");
            return Ok(());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} had not ended after {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn json(command: &mut Command) -> anyhow::Result<Json> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
}

pub(crate) fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = json(Command::new(cargo_program()).current_dir(root).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    metadata.get("target_directory").and_then(Json::as_str).map(PathBuf::from).context("cargo tells no target folder")
}

/// What this machine lacks is printed, and must be what its tier is known to lack: a check that is skipped cannot go unseen.
fn doctor(root: &Path, belljar: &Path) -> anyhow::Result<()> {
    step("belljar doctor");
    let report = json(Command::new(belljar).args(["doctor", "--json"]))?;
    let tier = report.get("tier").and_then(Json::as_str).context("doctor tells no tier")?;
    let missing: Vec<&str> = report.get("missing").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    say(&format!("tier {tier}; missing: {}", if missing.is_empty() { "nothing".to_owned() } else { missing.join(", ") }));
    let path = root.join("xtask/expected-missing.json");
    let expected: Json = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let Some(expected) = expected.get(tier).and_then(Json::as_array) else { bail!("`{}` does not know the tier `{tier}`", path.display()) };
    let expected: Vec<&str> = expected.iter().filter_map(Json::as_str).collect();
    ensure!(missing == expected, "this machine should lack {expected:?} as `{tier}`, but lacks {missing:?}");
    Ok(())
}

/// The driver's own tests, with the environment's packages.
fn runtime_tests(root: &Path, data: &Path) -> anyhow::Result<()> {
    step("tests of the Python runtime");
    let environments = fs::read_dir(data.join("environments"))?.flatten().map(|entry| entry.path());
    let environment = environments.into_iter().find(|path| path.join("environment.json").is_file()).context("core is not built")?;
    let packages = fs::read_dir(environment.join("env/lib"))?.flatten().map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir());
    let packages = packages.context("the environment has no packages")?;
    // The environment's own links lead to places inside a sandbox; out here its packages are lent to a virtual environment.
    let venv = data.join("runtime-tests");
    check(Command::new(interpreter(&environment)?).args(["-m", "venv", "--clear", "--without-pip"]).arg(&venv))?;
    let own = fs::read_dir(venv.join("lib"))?.flatten().map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir());
    fs::write(own.context("the virtual environment has no packages folder")?.join("core.pth"), packages.display().to_string())?;
    let mut command = Command::new(venv.join("bin/python"));
    command.current_dir(root.join("runtimes/python")).args(["-m", "unittest", "discover", "-t", ".", "-s", "tests"]);
    check(command.env("PYTHONDONTWRITEBYTECODE", "1").env("MPLCONFIGDIR", data.join("matplotlib")))
}

/// The environment's interpreter as the host sees it.
fn interpreter(environment: &Path) -> anyhow::Result<PathBuf> {
    let link = fs::read_link(environment.join("env/bin/python"))?;
    Ok(match link.strip_prefix("/opt/python") {
        Ok(inside) => environment.join("python").join(inside),
        Err(_) => link,
    })
}

/// Runs the tests that start sandboxes once more, as a user without an account and without rights.
fn ordinary(root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    let stage = std::env::temp_dir().join(format!("belljar-ordinary-{}", std::process::id()));
    let home = stage.join("home");
    fs::create_dir_all(&home)?;
    let done = ordinary_in(&stage, &home, root, belljar, data);
    fs::remove_dir_all(&stage)?;
    done
}

fn ordinary_in(stage: &Path, home: &Path, root: &Path, belljar: &Path, data: &Path) -> anyhow::Result<()> {
    fs::set_permissions(stage, fs::Permissions::from_mode(0o755))?;
    check(Command::new("chown").arg(format!("{ORDINARY}:{ORDINARY}")).arg(home))?;
    let program = stage.join("belljar");
    fs::copy(belljar, &program)?;
    for folder in ["examples", "tests/transcripts"] {
        check(Command::new("cp").arg("-r").arg(root.join(folder)).arg(stage))?;
    }
    check(Command::new("chmod").args(["-R", "a+rX"]).arg(stage.join("examples")).arg(stage.join("transcripts")))?;
    doctor(root, &as_ordinary_script(stage, &program)?)?;
    let tests = ["cli", "transcripts", "containment", "namespace", "pool"];
    for (name, binary) in test_binaries(root)? {
        if !tests.contains(&name.as_str()) {
            continue;
        }
        say(&format!("-- {name}"));
        // Beside the folders of the same names.
        let copy = stage.join(format!("{name}-tests"));
        fs::copy(&binary, &copy)?;
        let mut command = ordinary_command(&copy);
        command.current_dir(home).env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("BELLJAR_TEST_DATA", data).env("BELLJAR_TEST_BINARY", &program).env("BELLJAR_TEST_EXAMPLES", stage.join("examples"));
        command.env("BELLJAR_TEST_TRANSCRIPTS", stage.join("transcripts"));
        check(&mut command)?;
    }
    say("-- short soak");
    let soak = stage.join("xtask");
    fs::copy(belljar.with_file_name("xtask"), &soak)?;
    let mut command = ordinary_command(&soak);
    command.args(SHORT_SOAK).arg(data).args(NOT_SERVED).current_dir(home).env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    within(SOAK_PATIENCE, &mut command)
}

/// `setpriv` to the ordinary user, with an empty environment.
pub(crate) fn ordinary_command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups"]).arg(program).env_clear();
    command
}

/// A program that calls belljar as the ordinary user, so that doctor is asked in the same way for both.
fn as_ordinary_script(stage: &Path, program: &Path) -> anyhow::Result<PathBuf> {
    let script = stage.join("belljar-ordinary");
    let home = stage.join("home");
    let text =
        format!("#!/bin/sh\nexec setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups env HOME={} {} \"$@\"\n", home.display(), program.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// What cargo says of the programs of tests that it built.
pub(crate) fn test_messages(root: &Path) -> anyhow::Result<Vec<Json>> {
    let output = Command::new(cargo_program())
        .current_dir(root)
        .args(["test", "--workspace", "--no-run", "--message-format=json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests do not build");
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The integration test programs of the workspace: name and path.
fn test_binaries(root: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for message in test_messages(root)? {
        let test = message.pointer("/target/kind").and_then(Json::as_array).is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
        let (name, path) = (message.pointer("/target/name").and_then(Json::as_str), message.get("executable").and_then(Json::as_str));
        if let (true, Some(name), Some(path)) = (test, name, path) {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(found)
}
