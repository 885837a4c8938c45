//! Belljar killed by SIGKILL at any moment, or its launcher: nothing of it may be left.
//!
//! Three processes: the soak starts lanes, a lane starts one victim after the other, a victim runs an engine until it is killed.
//! A lane adopts the orphans of its victims (it is their subreaper), so whatever is left of one stands below the lane.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::mix::{Mix, Round};
use super::process::{self, Process};
use super::random::Random;
use super::residue;

/// What is left after this time is told, but no failure yet.
const SLOW: Duration = Duration::from_secs(1);
/// Nothing may be left after this time.
const GONE: Duration = Duration::from_secs(20);
/// A victim whose launcher was killed has to come to its own end within this time.
const END: Duration = Duration::from_secs(60);
/// Tells a victim that its launcher was killed; the number of the process inside follows.
const LAUNCHER_KILLED: &str = "killed: launcher ";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Belljar itself.
    Belljar,
    /// The launcher's process in belljar's own process namespace.
    OuterLauncher,
    /// The first process of the outer process namespace.
    InnerLauncher,
}

/// What one kill came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Killed {
    pub(crate) target: Target,
    /// The victim.
    pub(crate) pid: u32,
    /// It had run so long, in microseconds.
    pub(crate) after_us: u64,
    /// Processes below it at that moment.
    pub(crate) descendants: usize,
    /// Until none of them was left, in microseconds.
    pub(crate) gone_us: u64,
    /// Empty control groups that stay until the next belljar starts.
    pub(crate) groups: usize,
    /// Folders for artifacts that were being copied out.
    pub(crate) staging: usize,
    /// What was still there after a second, and where it waited.
    pub(crate) slow: Vec<String>,
    /// Everything that should not be.
    pub(crate) problems: Vec<String>,
}

/// Starts this program again, with a hidden command.
pub(crate) fn again(command: &str, seed: u64, data: &Path) -> Command {
    let mut again = Command::new("/proc/self/exe");
    again.args([command, "--seed", &seed.to_string(), "--data"]).arg(data);
    again
}

/// The hidden command of a lane: kills so many victims and prints a line for each.
pub(crate) fn lane(kills: u64, seed: u64, data: &Path) -> anyhow::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let folder = std::env::temp_dir().join(format!("belljar-soak-{}", std::process::id()));
    let mut random = Random::new(seed);
    for _ in 0..kills {
        fs::create_dir(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        let killed = one(&mut random, &folder, data)?;
        fs::remove_dir_all(&folder)?;
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&killed)?)?;
        // What is left now would be blamed on the next one.
        for process in process::below(std::process::id()) {
            process::kill(&process);
        }
        process::reap(&process::below(std::process::id()), None);
    }
    Ok(())
}

fn one(random: &mut Random, folder: &Path, data: &Path) -> anyhow::Result<Killed> {
    let target = match random.below(10) {
        0 => Target::OuterLauncher,
        1 => Target::InnerLauncher,
        _ => Target::Belljar,
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let told = folder.join("stderr");
    let mut command = again("soak-victim", random.number(), data);
    command.arg("--out").arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(fs::File::create(&told)?);
    let mut victim = command.spawn().context("cannot start a victim")?;
    let clock = Instant::now();
    std::thread::sleep(Duration::from_micros(random.below(1_500_000)));
    let mut killed =
        Killed { target, pid: victim.id(), after_us: 0, descendants: 0, gone_us: 0, groups: 0, staging: 0, slow: Vec::new(), problems: Vec::new() };
    let done = match target {
        Target::Belljar => kill_belljar(&mut victim, &mut killed, clock),
        Target::OuterLauncher | Target::InnerLauncher => kill_launcher(&mut victim, &mut killed, clock),
    };
    if let Err(error) = done {
        let text = fs::read_to_string(&told).unwrap_or_default();
        killed.problems.push(format!("{error:#}; it said: {}", text.trim()));
    }
    let _ = victim.kill();
    let _ = victim.wait();
    look_around(&mut killed, folder);
    if fs::read_to_string("/proc/self/mountinfo")? != mounts {
        killed.problems.push("the mounts of the host changed".to_owned());
    }
    Ok(killed)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn kill_belljar(victim: &mut Child, killed: &mut Killed, clock: Instant) -> anyhow::Result<()> {
    let family = process::below(victim.id());
    killed.descendants = family.len();
    ensure!(victim.try_wait()?.is_none(), "the victim ended by itself");
    victim.kill()?;
    let kill = Instant::now();
    killed.after_us = micros(clock.elapsed());
    victim.wait()?;
    let gone = until_gone(&family, &mut killed.slow, || process::below(std::process::id()));
    killed.gone_us = micros(kill.elapsed());
    gone
}

/// Kills one of the launcher's two processes. The victim goes on, gets errors, and ends when it is told to.
fn kill_launcher(victim: &mut Child, killed: &mut Killed, clock: Instant) -> anyhow::Result<()> {
    let deadline = Instant::now() + END;
    let (outer, inner) = loop {
        if let Some(found) = process::launchers(victim.id()) {
            break found;
        }
        ensure!(victim.try_wait()?.is_none(), "the victim ended by itself");
        ensure!(Instant::now() < deadline, "the victim starts no launcher");
        std::thread::sleep(Duration::from_millis(1));
    };
    let family = process::below(victim.id());
    killed.descendants = family.len();
    let aim = if killed.target == Target::OuterLauncher { outer } else { inner };
    let aim = process::find(aim).context("the launcher is gone before it is killed")?;
    ensure!(process::kill(&aim), "the launcher cannot be killed");
    let kill = Instant::now();
    killed.after_us = micros(clock.elapsed());
    // The outer process is the victim's child, which it collects at its end. Another child is another launcher: a start that fails
    // because its launcher is killed may be tried again.
    let own = victim.id();
    let rest = || {
        let again: Vec<Process> = process::below(own).into_iter().filter(|process| process.parent == own && process.pid != outer).collect();
        let again: Vec<u32> = again.iter().flat_map(|child| process::below(child.pid).into_iter().chain([child.clone()])).map(|process| process.pid).collect();
        let all = process::below(std::process::id()).into_iter();
        all.filter(|process| process.pid != own && !(process.pid == outer && process.ended) && !again.contains(&process.pid)).collect()
    };
    let gone = until_gone(&family.into_iter().filter(|process| process.pid != outer).collect::<Vec<_>>(), &mut killed.slow, rest);
    killed.gone_us = micros(kill.elapsed());
    gone?;
    let mut input = victim.stdin.take().context("the victim has an input")?;
    writeln!(input, "{LAUNCHER_KILLED}{inner}")?;
    drop(input);
    let deadline = Instant::now() + END;
    loop {
        match victim.try_wait()? {
            Some(status) if status.success() => break,
            Some(status) => bail!("the victim ended with {status} after its launcher was killed"),
            None if Instant::now() >= deadline => bail!("the victim hangs after its launcher was killed: {}", process::waits(own)),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    until_gone(&[], &mut killed.slow, || process::below(std::process::id()))
}

/// Waits until these processes have ended, and those that `rest` finds too.
fn until_gone(family: &[Process], slow: &mut Vec<String>, rest: impl Fn() -> Vec<Process>) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let below = rest();
        process::reap(&below, None);
        let alive = family.iter().filter(|process| process::find(process.pid).is_some_and(|now| now.start == process.start && !now.ended));
        let left: BTreeSet<u32> = below.iter().chain(alive).map(|process| process.pid).collect();
        if left.is_empty() {
            return Ok(());
        }
        let names = || left.iter().map(|pid| format!("{pid} `{}` {}", process::command(*pid), process::waits(*pid))).collect::<Vec<_>>();
        if begin.elapsed() >= GONE {
            bail!("left after {} s: {}", GONE.as_secs(), names().join("; "));
        }
        if begin.elapsed() >= SLOW && slow.is_empty() {
            *slow = names();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is left in other places than the list of processes.
fn look_around(killed: &mut Killed, folder: &Path) {
    let groups = residue::groups(&format!("belljar-{}-", killed.pid));
    killed.groups = groups.len();
    for group in groups {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if !processes.trim().is_empty() {
            killed.problems.push(format!("`{}` holds processes: {}", group.display(), processes.replace('\n', " ")));
        }
    }
    for place in fs::read_dir(folder).into_iter().flatten().flatten() {
        let inside = fs::read_dir(place.path()).into_iter().flatten().flatten();
        killed.staging += inside.filter(|entry| entry.file_name().to_string_lossy().starts_with(".belljar-")).count();
    }
}

/// The hidden command of a victim: starts and ends sandboxes until it is killed, or its input ends.
pub(crate) fn victim(seed: u64, data: &Path, out: &Path) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mix = Mix::new(data, out);
    let stop = AtomicBool::new(false);
    let launcher = AtomicU32::new(0);
    let told = std::thread::scope(|scope| {
        let mut rounds = random.split();
        let (mix, stop, launcher) = (&mix, &stop, &launcher);
        scope.spawn(move || {
            // The one that the engine has started and uses from then on.
            while !mix.is_up() && !stop.load(Ordering::Relaxed) {}
            launcher.store(process::launchers(std::process::id()).map_or(0, |(_, inner)| inner), Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                let round = Round { until: mix.started() + 40, threads: rounds.between(1, 3), disturbed: rounds.chance(30) };
                mix.round(&round, &mut rounds, stop);
            }
        });
        let mut told = String::new();
        let heard = std::io::stdin().lock().read_to_string(&mut told);
        stop.store(true, Ordering::Relaxed);
        heard.map(|_| told)
    })?;
    let killed = told.lines().find_map(|line| line.strip_prefix(LAUNCHER_KILLED)?.parse().ok());
    if killed.is_some_and(|inner: u32| inner == launcher.into_inner()) {
        ensure!(mix.comes_back(&mut random), "no other launcher took the place of one that was killed");
    }
    Ok(())
}

/// Reads what a lane prints.
fn parse(line: &str) -> anyhow::Result<Killed> {
    serde_json::from_str(line).with_context(|| format!("a lane said `{line}`"))
}

/// The lines of a lane, as they come.
pub(crate) fn follow(lane: &mut Child, mut take: impl FnMut(Killed)) -> anyhow::Result<()> {
    let output = lane.stdout.take().context("a lane has an output")?;
    for line in std::io::BufReader::new(output).lines() {
        take(parse(&line?)?);
    }
    let status = lane.wait()?;
    ensure!(status.success(), "a lane ended with {status}");
    Ok(())
}
