//! Where this was measured.

use std::fs;
use std::time::Duration;

use sandbox::{Backend, cgroup};
use serde::Serialize;

use super::processes;

/// The machine, and what sandboxes have on it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) cpu_model: String,
    /// CPUs that this process may use.
    pub(super) cpus: usize,
    pub(super) memory_bytes: u64,
    /// Over 1, 5 and 15 minutes, at the start.
    pub(super) load_at_start: Vec<f64>,
    /// The same, at the end.
    pub(super) load_at_end: Vec<f64>,
    /// `root`, whose sandboxes have host users of their own, or `ordinary`.
    pub(super) user: &'static str,
    /// `v1`, `v2` or `none`.
    pub(super) cgroups: &'static str,
    /// Why there are none.
    pub(super) cgroups_reason: Option<String>,
    /// What happened beside the bench.
    pub(super) phases: Vec<Phase>,
    #[serde(skip)]
    since: CpuTime,
}

/// A part of the bench.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    /// `latency`, `rate`, `refill` or `many`.
    pub(super) name: &'static str,
    pub(super) seconds: f64,
    /// What other processes took of all CPU time meanwhile. Much of it: the figures are worse than this machine's.
    pub(super) others_cpu_percent: f64,
    /// What the machine that this one runs on took of it.
    pub(super) stolen_cpu_percent: f64,
}

/// CPU time so far, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct CpuTime {
    all: u64,
    stolen: u64,
    /// Of processes that are not ours.
    others: u64,
}

impl Machine {
    pub(super) fn look(backend: &dyn Backend) -> Self {
        let (cgroups, reason) = match backend.cgroups() {
            cgroup::Version::V1 => ("v1", None),
            cgroup::Version::V2 => ("v2", None),
            cgroup::Version::None(reason) => ("none", Some(reason.clone())),
        };
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu_model: after_colon(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: cpus(),
            memory_bytes: kibibytes(&read("/proc/meminfo"), "MemTotal"),
            load_at_start: load(),
            load_at_end: Vec::new(),
            user: if backend.own_users() { "root" } else { "ordinary" },
            cgroups,
            cgroups_reason: reason,
            phases: Vec::new(),
            since: CpuTime::now(),
        }
    }

    /// Notes what happened beside a phase that took so long and ends now.
    pub(super) fn phase(&mut self, name: &'static str, took: Duration) {
        let now = CpuTime::now();
        let ticks = |of: fn(&CpuTime) -> u64| of(&now).saturating_sub(of(&self.since)) as f64;
        let percent = |of| (ticks(of) / ticks(|time| time.all).max(1.0) * 1000.0).round() / 10.0;
        let (others_cpu_percent, stolen_cpu_percent) = (percent(|time| time.others), percent(|time| time.stolen));
        self.phases.push(Phase { name, seconds: took.as_secs_f64(), others_cpu_percent, stolen_cpu_percent });
        self.since = now;
    }
}

impl CpuTime {
    fn now() -> Self {
        // user nice system idle iowait irq softirq steal; what guests take is part of the first two.
        let stat = read("/proc/stat");
        let cpu: Vec<u64> =
            stat.lines().next().into_iter().flat_map(|line| line.split_ascii_whitespace().skip(1)).map_while(|ticks| ticks.parse().ok()).collect();
        Self { all: cpu.iter().take(8).sum(), stolen: cpu.get(7).copied().unwrap_or_default(), others: processes::others_ticks() }
    }
}

/// CPUs that this process may use.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Load averages over 1, 5 and 15 minutes.
pub(super) fn load() -> Vec<f64> {
    read("/proc/loadavg").split(' ').take(3).filter_map(|number| number.parse().ok()).collect()
}

/// Memory of the host that is in use, in bytes: what is there without what is available.
pub(super) fn used_bytes() -> u64 {
    let text = read("/proc/meminfo");
    kibibytes(&text, "MemTotal").saturating_sub(kibibytes(&text, "MemAvailable"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn after_colon(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line of `/proc/meminfo`, in bytes.
fn kibibytes(text: &str, name: &str) -> u64 {
    let value = after_colon(text, &format!("{name}:")).unwrap_or_default();
    value.trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert_eq!(after_colon("a : b\nmodel name\t: A CPU @ 2.0\n", "model name"), Some("A CPU @ 2.0".to_owned()));
        assert_eq!(kibibytes("MemTotal:       24 kB\n", "MemTotal"), 24 * 1024);
        let time = CpuTime::now();
        assert!(time.all > time.others && time.all > time.stolen);
        assert!(used_bytes() > 0 && load().len() == 3 && cpus() > 0);
    }
}
