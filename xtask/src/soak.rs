//! Sandboxes started and killed by the thousand, in every way and at any moment, and belljar itself killed: whatever is left is a failure.
//!
//! One engine starts sandboxes in rounds; between rounds nothing may be there that was not there before the first. Then belljar and
//! its launcher are killed again and again ([`kill`]). At the end everything has to be as before the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::ci::say;

mod faults;
mod kill;
mod mix;
mod neighbours;
mod process;
mod program;
mod random;
mod report;
mod residue;
mod served;

use kill::Killed;
use mix::{Mix, Round};
use random::Random;
use report::{Report, Resident};
use residue::{Machine, Residue};

/// How long what ends may take to be gone.
const SETTLE: Duration = Duration::from_secs(30);
/// A lane that says nothing for so long hangs.
const LANE: Duration = Duration::from_secs(240);
/// Victims that are killed at the same time.
const LANES: u64 = 2;
/// More problems than this are not looked for.
const ENOUGH: usize = 20;

/// What is asked for.
#[derive(Debug, Clone)]
struct Options {
    sandboxes: u64,
    kills: u64,
    /// Sessions over HTTP, and kills of the server under load.
    served: u64,
    server_kills: u64,
    /// Kills of the server's parts and of itself, and then shortages of the host; 0: none of it.
    faults: u64,
    /// Seconds for each thing that a hostile session does beside a quiet one; 0: none of it.
    neighbours: u64,
    /// Only those of this number, or with this in their title.
    only: Option<String>,
    seed: u64,
    data: PathBuf,
    json: Option<PathBuf>,
    /// Of a victim.
    out: PathBuf,
}

/// How the command is called.
pub(crate) const USAGE: &str = "cargo xtask soak [--sandboxes N] [--kills N] [--served N] [--server-kills N] [--faults N] [--neighbours SECONDS] [--only DEED] [--seed N] [--data FOLDER] [--json FILE]";

impl Options {
    fn parse(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self {
            sandboxes: 10_000,
            kills: 1000,
            served: 10_000,
            server_kills: 100,
            faults: 1000,
            neighbours: 8,
            only: None,
            seed: fresh_seed()?,
            data: PathBuf::new(),
            json: None,
            out: PathBuf::new(),
        };
        options.data = std::env::var_os("BELLJAR_TEST_DATA").map(PathBuf::from).unwrap_or_default();
        for pair in arguments.chunks(2) {
            let &[name, value] = pair else { bail!("`{}` wants a value; usage: {USAGE}", pair.join(" ")) };
            let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number"));
            match name {
                "--sandboxes" => options.sandboxes = number()?,
                "--kills" => options.kills = number()?,
                "--served" => options.served = number()?,
                "--server-kills" => options.server_kills = number()?,
                "--faults" => options.faults = number()?,
                "--neighbours" => options.neighbours = number()?,
                "--only" => options.only = Some(value.to_owned()),
                "--seed" => options.seed = number()?,
                "--data" => options.data = PathBuf::from(value),
                "--json" => options.json = Some(PathBuf::from(value)),
                "--out" => options.out = PathBuf::from(value),
                _ => bail!("`{name}` is unknown; usage: {USAGE}"),
            }
        }
        Ok(options)
    }
}

fn fresh_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes) >> 16)
}

/// The command, and its two hidden ones.
pub(crate) fn run(command: &str, arguments: &[&str], default_data: impl FnOnce() -> anyhow::Result<PathBuf>) -> anyhow::Result<()> {
    let mut options = Options::parse(arguments)?;
    if options.data.as_os_str().is_empty() {
        options.data = default_data()?;
    }
    match command {
        "soak-lane" => kill::lane(options.kills, options.seed, &options.data),
        "soak-victim" => kill::victim(options.seed, &options.data, &options.out),
        _ => soak(&options),
    }
}

fn soak(options: &Options) -> anyhow::Result<()> {
    say(&format!("soak: {} sandboxes, {} kills, --seed {}", options.sandboxes, options.kills, options.seed));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut report = Report { seed: options.seed, ..Report::default() };
    let mut random = Random::new(options.seed);
    if options.served + options.server_kills > 0 {
        let served = served::run(&belljar()?, &options.data, (options.served, options.server_kills), random.number())?;
        say(&served.text());
        ensure!(served.problems.is_empty(), "the soak found problems; --seed {} makes the same choices again:\n{}", options.seed, served.problems.join("\n"));
    }
    if options.faults > 0 {
        let faults = faults::run(&belljar()?, &options.data, options.faults, random.number())?;
        say(&faults.text());
        ensure!(faults.problems.is_empty(), "the faults found problems; --seed {} makes the same choices again:\n{}", options.seed, faults.problems.join("\n"));
    }
    if options.neighbours > 0 {
        let told = neighbours::run(&belljar()?, &options.data, options.neighbours, options.only.as_deref())?;
        say(&told.text());
        ensure!(told.problems.is_empty(), "beside neighbours there were problems:\n{}", told.problems.join("\n"));
    }
    if options.sandboxes + options.kills == 0 {
        return Ok(());
    }
    // What servers that were killed have left to this process is collected first: it would be missed later.
    process::collect(SETTLE);
    let (before, machine) = (Residue::look(&options.data), Machine::look());
    report.machine_before = machine;
    sandboxes(options, &mut random, &mut report).context("sandboxes")?;
    settled(&mut report, options, &before, "after the sandboxes");
    if options.kills > 0 {
        kills(options, &mut random, &mut report)?;
        settled(&mut report, options, &before, "after the kills");
        swept(options, &mut report)?;
    }
    let (after, _) = settled(&mut report, options, &before, "at the end");
    report.before = before.counts();
    report.after = after.counts();
    report.machine_after = settled_machine(machine, options);
    report.judge();
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report.json())?).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    report.print()?;
    ensure!(report.problems.is_empty(), "the soak found {} problems; --seed {} makes the same choices again", report.problems.len(), options.seed);
    Ok(())
}

/// The program beside this one.
fn belljar() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("belljar");
    ensure!(program.is_file(), "there is no `{}`: build it first", program.display());
    Ok(program)
}

/// Waits until everything is as before, and notes what is not.
fn settled(report: &mut Report, options: &Options, before: &Residue, when: &str) -> (Residue, Duration) {
    let clock = Instant::now();
    let (now, differences) = Residue::settle(&options.data, before, SETTLE);
    for difference in differences {
        report.problem(format!("{when}: {difference}"));
    }
    (now, clock.elapsed())
}

/// The kernel frees namespaces and groups later, in its own time.
fn settled_machine(before: Machine, options: &Options) -> Machine {
    let deadline = Instant::now() + SETTLE;
    loop {
        let now = Machine::look();
        if !now.leaks(&before, options.sandboxes + options.kills) || Instant::now() >= deadline {
            return now;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A thread that ends the soak when something hangs: what hangs cannot be waited for.
fn watch(mix: &Arc<Mix>, seed: u64) -> anyhow::Result<mpsc::Sender<()>> {
    let (over, ended) = mpsc::channel();
    let mix = Arc::clone(mix);
    let look = move || {
        while matches!(ended.recv_timeout(Duration::from_secs(2)), Err(mpsc::RecvTimeoutError::Timeout)) {
            let hanging = mix.hanging();
            if !hanging.is_empty() {
                say(&format!("error: these hang (--seed {seed}): {}", hanging.join("; ")));
                for process in process::below(std::process::id()) {
                    say(&format!("  below: {} {} {}", process.pid, process::command(process.pid), process::waits(process.pid)));
                }
                say(&format!("  here: {}", process::waits(std::process::id())));
                #[expect(clippy::exit, reason = "threads that hang cannot be joined")]
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new().name("soak-watch".to_owned()).spawn(look)?;
    Ok(over)
}

/// The first part: one engine, rounds of sandboxes, nothing left in between.
fn sandboxes(options: &Options, random: &mut Random, report: &mut Report) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("belljar-soak-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let mix = Arc::new(Mix::new(&options.data, &folder));
    mix.warm_up(random).context("warm-up")?;
    let over = watch(&mix, options.seed)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut idle = Residue::look(&options.data);
    report.idle = idle.counts();
    let (clock, size) = (Instant::now(), (options.sandboxes / 100).clamp(20, 200));
    let mut told = 0;
    while mix.started() < options.sandboxes && report.problems.len() < ENOUGH {
        let until = (mix.started() + size).min(options.sandboxes);
        let round = Round { until, threads: random.between(1, 4), disturbed: random.chance(40) };
        mix.round(&round, random, &AtomicBool::new(false));
        mix.end_round(until);
        mix.take_problems().into_iter().for_each(|problem| report.problem(problem));
        let (now, settling) = settled(report, options, &idle, &format!("after {until} sandboxes"));
        report.longest_settling = report.longest_settling.max(settling);
        // What was told once is not told again.
        idle = now;
        report.rounds += 1;
        report.resident.push(Resident::look(until));
        if until * 20 / options.sandboxes > told {
            told = until * 20 / options.sandboxes;
            let rate = report::rate(until, clock.elapsed());
            say(&format!("{until} sandboxes, {rate:.1}/s, {} killed from outside, {} problems", mix.victims(), report.problems.len()));
        }
    }
    (report.sandboxes, report.sandbox_time) = (mix.started(), clock.elapsed());
    (report.ways, report.victims) = (mix.counts(), mix.victims());
    drop(over);
    let clock = Instant::now();
    // The watching thread lets go of it first.
    let engine = loop {
        match Arc::strong_count(&mix) {
            1 => break Arc::into_inner(mix),
            _ if clock.elapsed() > SETTLE => bail!("the watching thread does not end"),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    drop(engine);
    report.longest_settling = report.longest_settling.max(clock.elapsed());
    let copied: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name()).collect();
    if !copied.is_empty() {
        report.problem(format!("the folder for artifacts holds {copied:?}"));
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The second part: lanes that kill.
fn kills(options: &Options, random: &mut Random, report: &mut Report) -> anyhow::Result<()> {
    let clock = Instant::now();
    let (say_one, heard) = mpsc::channel::<anyhow::Result<Killed>>();
    for lane in 0..LANES {
        let share = options.kills / LANES + u64::from(lane < options.kills % LANES);
        let mut command = kill::again("soak-lane", random.number() >> 16, &options.data);
        command.args(["--kills", &share.to_string()]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().context("cannot start a lane")?;
        let say_one = say_one.clone();
        std::thread::spawn(move || {
            let done = kill::follow(&mut child, |killed| drop(say_one.send(Ok(killed))));
            if let Err(error) = done {
                let _ = say_one.send(Err(error));
            }
        });
    }
    drop(say_one);
    loop {
        match heard.recv_timeout(LANE) {
            Ok(killed) => report.kills.push(killed.context("kills")?),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("a lane says nothing for {} s", LANE.as_secs()),
        }
        let count = report.kills.len() as u64;
        if count.is_multiple_of((options.kills / 20).max(1)) {
            let failed = report.kills.iter().filter(|killed| !killed.problems.is_empty()).count();
            say(&format!("{count} kills in {:.0} s, {failed} with problems", clock.elapsed().as_secs_f64()));
        }
    }
    report.kill_time = clock.elapsed();
    Ok(())
}

/// Groups that a killed belljar left empty are removed by the next one that starts.
fn swept(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let out = std::env::temp_dir();
    let mix = Mix::new(&options.data, &out);
    mix.warm_up(&mut Random::new(options.seed)).context("the start after the kills")?;
    drop(mix);
    let pids: Vec<u32> = report.kills.iter().map(|killed| killed.pid).collect();
    for pid in pids {
        for group in residue::groups(&format!("belljar-{pid}-")) {
            report.problem(format!("control groups: `{}` stays after the next start", group.display()));
        }
    }
    Ok(())
}

/// Counts by name.
type Counts = BTreeMap<&'static str, mix::Count>;
