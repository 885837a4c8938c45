//! A host without room, names, descriptors, memory, or a steady clock: the server says so, lives, and serves again when it is over.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value as Json, json};

use super::super::served::{Client, Server};
use super::{Faults, serves_again};
use crate::tied;

/// Calls that are made while something is short…
const CALLS: usize = 60;
/// …again so many times at most, until one is refused.
const ROUNDS: usize = 20;
/// Sessions that they are made in: more than are parked.
const SESSIONS: usize = 8;
/// A clock that goes wrong goes wrong by so much, in seconds.
const YEAR: i64 = 366 * 24 * 3600;
/// Adds to the clock on the wall what a file says. Its name is in the environment.
const SHIM: &str = r#"#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, out);
    const char *name = getenv("SOAK_CLOCK");
    FILE *file = id == CLOCK_REALTIME && name ? fopen(name, "r") : NULL;
    long by = 0;
    if (file) {
        if (fscanf(file, "%ld", &by) == 1) out->tv_sec += by;
        fclose(file);
    }
    return result;
}
"#;
/// Mounts a small file system at `$1`, with the environments of `$2` in it, and becomes the rest; seen by nobody else.
const SMALL: &str = r#"place=$1 from=$2 options=$3; shift 3
mount -t tmpfs -o "mode=700,$options" tmpfs "$place" || exit 1
for name in environments cache; do
  [ -d "$from/$name" ] || continue
  mkdir "$place/$name" && mount --bind "$from/$name" "$place/$name" || exit 1
done
exec "$@""#;

/// All of them; what this machine or user cannot do is told.
pub(super) fn run(belljar: &Path, data: &Path, faults: &mut Faults) -> anyhow::Result<()> {
    let told = [
        ("descriptors", descriptors(belljar, data)),
        ("a jumping clock", clock(belljar, data)),
        ("room on disk", small(belljar, data, "size=24m")),
        // Not even for the size that the record's journal should have.
        ("room on disk from the start", small(belljar, data, "size=2m")),
        ("names on disk", small(belljar, data, "size=256m,nr_inodes=400")),
        ("memory", memory(belljar, data)),
    ];
    for (what, came) in told {
        match came {
            Ok(Some(how)) => faults.shortages.push(format!("short of {what}: {how}")),
            Ok(None) => faults.shortages.push(format!("short of {what}: left out, it needs root or a tool that is not here")),
            Err(error) => faults.problems.push(format!("short of {what}: {error:#}")),
        }
    }
    Ok(())
}

/// What calls came to while something was short.
#[derive(Debug, Default)]
struct Came {
    served: BTreeSet<String>,
    refused: usize,
    broken: usize,
    message: String,
}

impl Came {
    fn add(&mut self, other: Self) {
        self.served.extend(other.served);
        (self.refused, self.broken) = (self.refused + other.refused, self.broken + other.broken);
        if !other.message.is_empty() {
            self.message = other.message;
        }
    }

    fn told(&self) -> String {
        let said = if self.message.is_empty() { String::new() } else { format!(" ({})", self.message) };
        format!("{} calls served, {} refused{said}, {} connections without an answer; served again after", self.served.len(), self.refused, self.broken)
    }
}

/// Calls, and accepts what is served or refused in so many words.
fn call(client: &Client, code: &str) -> anyhow::Result<Came> {
    let mut came = Came::default();
    for number in 0..CALLS {
        match client.post(&format!("/v1/sessions/short-{}/executions", number % SESSIONS), &json!({"code": code, "timeoutSeconds": 20})) {
            Ok((200, answer)) => drop(came.served.insert(answer.get("id").and_then(Json::as_str).unwrap_or_default().to_owned())),
            Ok((status, answer)) => {
                let word = |name: &str| answer.pointer(&format!("/error/{name}")).and_then(Json::as_str).unwrap_or_default().to_owned();
                ensure!(matches!(status, 404 | 429 | 503) && !word("message").is_empty(), "{status} {answer}");
                (came.refused, came.message) = (came.refused + 1, format!("{status} {}: {}", word("code"), word("message")));
            }
            // Where the server has nothing left to answer with.
            Err(_) => came.broken += 1,
        }
    }
    Ok(came)
}

/// Calls until something is refused: a shortage that nobody feels is none.
fn call_in_vain(client: &Client, code: &str) -> anyhow::Result<Came> {
    let mut came = Came::default();
    for _ in 0..ROUNDS {
        came.add(call(client, code)?);
        if came.refused + came.broken > 0 {
            return Ok(came);
        }
    }
    bail!("INVALID: {} calls were all served", came.served.len())
}

/// Whether what was answered is on record.
fn on_record(client: &Client, served: &BTreeSet<String>) -> anyhow::Result<()> {
    let page: Json = serde_json::from_slice(&client.get("/v1/admin/audit?kind=execution_intended&limit=10000&latest=true")?)?;
    let text = page.to_string();
    let lost: Vec<_> = served.iter().filter(|id| !text.contains(id.as_str())).collect();
    ensure!(lost.is_empty(), "acknowledged, and not on record: {lost:?}");
    Ok(())
}

/// The server may open three more than it has.
fn descriptors(belljar: &Path, data: &Path) -> anyhow::Result<Option<String>> {
    let mut server = Server::start(belljar, data)?;
    serves_again(&mut server, "nothing")?;
    let pid = server.pid().to_string();
    let set = |limit: usize| Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status().is_ok_and(|status| status.success());
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    if !set(open + 3) {
        return Ok(None);
    }
    let came = call_in_vain(&Client::new(&server.url), "print(1)")?;
    ensure!(server.child.try_wait()?.is_none(), "the server ended");
    ensure!(set(4096), "the limit cannot be raised again");
    serves_again(&mut server, "nothing")?;
    on_record(&Client::new(&server.url), &came.served)?;
    Ok(Some(came.told()))
}

/// The clock on the wall jumps a year ahead, and back behind where it was.
fn clock(belljar: &Path, data: &Path) -> anyhow::Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let (source, shim, by) = (folder.path().join("shim.c"), folder.path().join("shim.so"), folder.path().join("by"));
    fs::write(&source, SHIM)?;
    fs::write(&by, "0")?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let mut server = Server::start_by(|arguments| {
        let mut command = tied::command(belljar);
        command.args(arguments).arg(data).env("LD_PRELOAD", &shim).env("SOAK_CLOCK", &by);
        command
    })?;
    let client = Client::new(&server.url);
    let ask = |code: &str| -> anyhow::Result<String> {
        let (status, answer) = client.post("/v1/sessions/clock-session/executions", &json!({"code": code, "timeoutSeconds": 20}))?;
        ensure!(status == 200, "{status} {answer}");
        Ok(answer.get("stdout").and_then(Json::as_str).unwrap_or_default().to_owned())
    };
    ask("kept = 1")?;
    let mut years = BTreeSet::new();
    for jump in [YEAR, -YEAR, 0] {
        fs::write(&by, jump.to_string())?;
        ensure!(ask("print(kept)")? == "1\n", "the session was lost when the clock jumped by {jump} s");
        let page: Json = serde_json::from_slice(&client.get("/v1/admin/audit?kind=execution_intended&limit=10000&latest=true")?)?;
        let events = page.get("events").and_then(Json::as_array).into_iter().flatten();
        years.extend(events.filter_map(|event| Some(event.get("at")?.as_str()?.get(..4)?.to_owned())));
    }
    // The control: the jumps arrived.
    ensure!(years.len() > 2, "INVALID: the server's clock did not jump: {years:?}");
    ensure!(server.child.try_wait()?.is_none(), "the server ended");
    Ok(Some("a session and its record went on through a year ahead and a year back".to_owned()))
}

/// The data folder is on a file system that gets full.
fn small(belljar: &Path, data: &Path, options: &str) -> anyhow::Result<Option<String>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let place = tempfile::tempdir()?;
    let started = Server::start_by(|arguments| {
        let mut command = tied::command(Path::new("unshare"));
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", SMALL, "sh"]).arg(place.path()).arg(data).arg(options);
        command.arg(belljar).args(arguments).arg(place.path());
        command
    });
    let mut server = started?;
    serves_again(&mut server, "nothing")?;
    let client = Client::new(&server.url);
    let inside = PathBuf::from(format!("/proc/{}/root", server.pid())).join(place.path().strip_prefix("/").unwrap_or(place.path()));
    let names = options.contains("nr_inodes");
    let filled = fill(&inside, names)?;
    // The record needs no new names. Room it needs when what its journal has from the start is used up.
    let came = if names { call(&client, "print(1)")? } else { call_in_vain(&client, "print(1)")? };
    ensure!(server.child.try_wait()?.is_none(), "the server ended");
    ensure!(!client.get("/healthz")?.is_empty(), "it is not well");
    for path in filled {
        fs::remove_file(path)?;
    }
    serves_again(&mut server, "nothing")?;
    on_record(&client, &came.served)?;
    Ok(Some(came.told()))
}

/// Fills a folder's file system: by one file, or by as many as there may be.
fn fill(folder: &Path, names: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut filled = Vec::new();
    for number in 0.. {
        let path = folder.join(format!("filler-{number}"));
        let Ok(mut file) = File::create(&path) else { break };
        filled.push(path);
        if !names {
            while file.write(&[1; 4096]).is_ok_and(|count| count > 0) {}
            break;
        }
    }
    ensure!(!filled.is_empty(), "the file system cannot be filled");
    Ok(filled)
}

/// Server, launcher, templates and sandboxes together have little memory.
fn memory(belljar: &Path, data: &Path) -> anyhow::Result<Option<String>> {
    let group = PathBuf::from("/sys/fs/cgroup/memory").join(format!("belljar-short-{}", std::process::id()));
    if !rustix::process::geteuid().is_root() || fs::create_dir(&group).is_err() {
        return Ok(None);
    }
    let came = in_group(belljar, data, &group);
    // Groups of sandboxes below it are removed by the launcher's last act, a moment after the server's end.
    for _ in 0..100 {
        for below in fs::read_dir(&group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            for lower in fs::read_dir(below.path()).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                let _ = fs::remove_dir(lower.path());
            }
            let _ = fs::remove_dir(below.path());
        }
        if fs::remove_dir(&group).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    came.map(Some)
}

fn in_group(belljar: &Path, data: &Path, group: &Path) -> anyhow::Result<String> {
    let mut server = Server::start_by(|arguments: &[OsString]| {
        let script = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", group.display());
        let mut command = tied::command(Path::new("/bin/sh"));
        command.args(["-c", &script, "sh"]).arg(belljar).args(arguments).arg(data);
        command
    })?;
    serves_again(&mut server, "nothing")?;
    let usage = fs::read_to_string(group.join("memory.usage_in_bytes")).context("the group does not count")?;
    let limit = usage.trim().parse::<u64>()? + (96 << 20);
    fs::write(group.join("memory.limit_in_bytes"), limit.to_string())?;
    let came = std::thread::scope(|scope| {
        let caller = || call(&Client::new(&server.url), "x = b'x' * (200 << 20)");
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().map_err(|_| anyhow::anyhow!("a caller was lost"))?).collect::<anyhow::Result<Vec<_>>>()
    })?;
    ensure!(server.child.try_wait()?.is_none(), "the server ended");
    let refused = fs::read_to_string(group.join("memory.failcnt")).context("the group does not count what it refuses")?;
    ensure!(refused.trim() != "0", "INVALID: the group has refused no memory");
    fs::write(group.join("memory.limit_in_bytes"), "-1")?;
    serves_again(&mut server, "nothing")?;
    let mut all = Came::default();
    came.into_iter().for_each(|one| all.add(one));
    on_record(&Client::new(&server.url), &all.served)?;
    Ok(all.told())
}
