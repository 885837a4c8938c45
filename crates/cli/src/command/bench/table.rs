//! Every series that is measured: its name in JSON, its words in the table, what it is compared with, and the goal for it.

use crate::args::BenchRow as Row;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Seconds,
    PerSecond,
    Mebibytes,
    Sandboxes,
    SessionsPerSecond,
    MebibytesPerSecond,
    Sessions,
}

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::PerSecond => "sandboxes/s",
            Self::Mebibytes => "MiB",
            Self::Sandboxes => "sandboxes",
            Self::SessionsPerSecond => "sessions/s",
            Self::MebibytesPerSecond => "MiB/s",
            Self::Sessions => "sessions",
        }
    }
}

/// Which figure of a series is compared with others and with its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    P50,
    P99,
    Mean,
    Min,
}

impl Figure {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Mean => "mean",
            Self::Min => "min",
        }
    }
}

/// What a series shall reach on a machine with two CPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Its ratio to what it is compared with.
    RatioAtMost(f64),
    /// As many as were asked for.
    All,
}

/// One series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) row: Row,
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) unit: Unit,
    pub(super) figure: Figure,
    /// The series that its ratio is to.
    pub(super) baseline: Option<&'static str>,
    pub(super) goal: Option<Goal>,
}

const fn time(row: Row, id: &'static str, what: &'static str) -> Entry {
    Entry { row, id, what, unit: Unit::Milliseconds, figure: Figure::P50, baseline: None, goal: None }
}

const fn figure(row: Row, id: &'static str, what: &'static str, unit: Unit) -> Entry {
    Entry { unit, ..time(row, id, what) }
}

const fn tail(row: Row, id: &'static str, what: &'static str) -> Entry {
    Entry { figure: Figure::P99, ..time(row, id, what) }
}

const fn memory(id: &'static str, what: &'static str) -> Entry {
    Entry { figure: Figure::Mean, ..figure(Row::Memory, id, what, Unit::Mebibytes) }
}

const fn compute(id: &'static str, what: &'static str) -> Entry {
    Entry { figure: Figure::Min, ..time(Row::Compute, id, what) }
}

impl Entry {
    const fn to(self, baseline: &'static str) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    const fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// All series, in the order in which they are told.
pub(super) const TABLE: &[Entry] = &[
    time(Row::Parked, "parkedPrintFirstByte", "parked: first byte of print(1)").to("pythonPrintFirstByte").goal(Goal::AtMost(0.5)),
    time(Row::Parked, "parkedPrint", "parked: result of print(1)").to("pythonPrint"),
    time(Row::Parked, "parkedGroupby", "parked: small groupby").to("pythonGroupby").goal(Goal::AtMost(3.0)),
    time(Row::Cold, "coldPrintFirstByte", "parked, not warmed: first byte of print(1)").to("pythonPrintFirstByte"),
    time(Row::Cold, "coldPrint", "parked, not warmed: result of print(1)").to("pythonPrint"),
    time(Row::Cold, "coldGroupby", "parked, not warmed: small groupby").to("pythonGroupby"),
    time(Row::Demand, "demandPrintFirstByte", "fork on demand: first byte of print(1)").to("pythonPrintFirstByte").goal(Goal::AtMost(10.0)),
    time(Row::Demand, "demandPrint", "fork on demand: result of print(1)").to("pythonPrint"),
    time(Row::Demand, "demandGroupby", "fork on demand: small groupby").to("pythonGroupby"),
    time(Row::Once, "oncePrintFirstByte", "one-shot run: first byte of print(1)").to("pythonPrintFirstByte"),
    time(Row::Once, "oncePrint", "one-shot run: print(1), until all is gone").to("pythonPrint"),
    time(Row::Once, "onceGroupby", "one-shot run: small groupby, until all is gone").to("pythonGroupby"),
    time(Row::Python, "pythonPrintFirstByte", "python -c: first byte of print(1)"),
    time(Row::Python, "pythonPrint", "python -c: print(1), until its end"),
    time(Row::Python, "pythonGroupby", "python -c: import pandas and the groupby"),
    time(Row::Bwrap, "bwrapPrintFirstByte", "bwrap python -c: first byte of print(1)").to("pythonPrintFirstByte"),
    time(Row::Bwrap, "bwrapPrint", "bwrap python -c: print(1), until its end").to("pythonPrint"),
    time(Row::Bwrap, "bwrapGroupby", "bwrap python -c: import pandas and the groupby").to("pythonGroupby"),
    time(Row::Detail, "detailParkedTake", "parked, in parts: take it"),
    time(Row::Detail, "detailParkedSend", "parked, in parts: send the code"),
    time(Row::Detail, "detailParkedToCode", "parked, in parts: sent, until the code runs"),
    time(Row::Detail, "detailParkedBack", "parked, in parts: printed, until the byte is here"),
    time(Row::Detail, "detailParkedEnd", "parked, in parts: byte here, until the end is known"),
    time(Row::Detail, "detailParkedCount", "parked, in parts: read counters and files, once"),
    time(Row::Detail, "detailDemandTake", "fork on demand, in parts: isolated, interpreter asked for"),
    time(Row::Detail, "detailDemandReady", "fork on demand, in parts: until the interpreter is ready"),
    time(Row::Detail, "detailDemandToCode", "fork on demand, in parts: sent, until the code runs"),
    time(Row::Detail, "detailDemandBack", "fork on demand, in parts: printed, until the byte is here"),
    time(Row::Detail, "detailDemandEnd", "fork on demand, in parts: byte here, until the end is known"),
    time(Row::Kill, "killParkedProcesses", "kill a parked one: until no process is left"),
    time(Row::Kill, "killParked", "kill a parked one: until nothing is left"),
    time(Row::Kill, "killUsedProcesses", "kill a used one: until no process is left"),
    time(Row::Kill, "killUsed", "kill a used one: until nothing is left"),
    compute("computeLoopInside", "compute inside: Python loop").to("computeLoopOutside").goal(Goal::RatioAtMost(1.02)),
    compute("computeMatmulInside", "compute inside: matmul 600, 1 thread").to("computeMatmulOutside").goal(Goal::RatioAtMost(1.02)),
    compute("computeGroupbyInside", "compute inside: groupby of 1e6 rows").to("computeGroupbyOutside").goal(Goal::RatioAtMost(1.02)),
    compute("computeFilesInside", "compute inside: 500 small files").to("computeFilesOutside").goal(Goal::RatioAtMost(1.02)),
    compute("computeLoopOutside", "compute outside: Python loop"),
    compute("computeMatmulOutside", "compute outside: matmul 600, 1 thread"),
    compute("computeGroupbyOutside", "compute outside: groupby of 1e6 rows"),
    compute("computeFilesOutside", "compute outside: 500 small files on tmpfs"),
    figure(Row::Rate, "rateBlankOne", "made and destroyed, blank, 1 caller", Unit::PerSecond),
    figure(Row::Rate, "rateBlankTwo", "made and destroyed, blank, 2 callers", Unit::PerSecond).goal(Goal::AtLeast(150.0)),
    figure(Row::Rate, "rateBlankRefill", "refill sustains, blank", Unit::PerSecond).goal(Goal::AtLeast(150.0)),
    figure(Row::Rate, "rateWarmedOne", "made and destroyed, warmed, 1 caller", Unit::PerSecond),
    figure(Row::Rate, "rateWarmedTwo", "made and destroyed, warmed, 2 callers", Unit::PerSecond).goal(Goal::AtLeast(80.0)),
    figure(Row::Rate, "rateWarmedRefill", "refill sustains, warmed", Unit::PerSecond).goal(Goal::AtLeast(80.0)),
    memory("memoryBlank", "private memory of a parked one, blank").goal(Goal::AtMost(4.0)),
    memory("memoryBlankShare", "proportional share (Pss), blank"),
    memory("memoryWarmed", "private memory of a parked one, warmed").goal(Goal::AtMost(8.0)),
    memory("memoryWarmedShare", "proportional share (Pss), warmed"),
    time(Row::Refill, "refillYieldsGroupby", "parked groupby while refilling, yields").to("refillPlainGroupby"),
    time(Row::Refill, "refillPlainGroupby", "parked groupby while refilling, does not yield"),
    figure(Row::Many, "manyParked", "parked at once", Unit::Sandboxes).goal(Goal::All),
    figure(Row::Many, "manyFill", "many parked: time to fill the pool", Unit::Seconds),
    figure(Row::Many, "manyMemory", "many parked: memory of the host, in all", Unit::Mebibytes),
    figure(Row::Many, "manyMemoryEach", "many parked: memory of the host, each", Unit::Mebibytes),
    time(Row::Many, "manyGroupby", "many parked: small groupby beside them").to("pythonGroupby"),
    figure(Row::Many, "manyTeardown", "many parked: time to end them all", Unit::Seconds),
    time(Row::Serve, "serveFresh", "served: fresh session, small groupby").to("serveHost").goal(Goal::AtMost(5.0)),
    tail(Row::Serve, "serveFreshTail", "served: the same, its slowest").goal(Goal::AtMost(20.0)),
    time(Row::Serve, "serveRefilling", "served: the same while the pool refills").to("serveHost"),
    tail(Row::Serve, "serveRefillingTail", "served: the same while the pool refills, its slowest").goal(Goal::AtMost(20.0)),
    time(Row::Serve, "serveFreshAllocation", "served, in parts: fresh session: take a sandbox"),
    time(Row::Serve, "serveFreshRecord", "served, in parts: fresh session: put it on record"),
    time(Row::Serve, "serveFreshExecution", "served, in parts: fresh session: the code"),
    time(Row::Serve, "servePrint", "served: print(1) in a live session, after a pause").goal(Goal::AtMost(1.0)),
    time(Row::Serve, "servePrintRecord", "served, in parts: print(1): put it on record"),
    time(Row::Serve, "servePrintExecution", "served, in parts: print(1): the code"),
    time(Row::Serve, "servePrintRow", "served: print(1) in a live session, right behind another one").goal(Goal::AtMost(1.0)),
    time(Row::Serve, "servePrintRowRecord", "served, in parts: right behind another one: put it on record"),
    time(Row::Serve, "servePrintRowExecution", "served, in parts: right behind another one: the code"),
    time(Row::Serve, "serveHost", "python -c: import pandas and the groupby"),
    time(Row::Serve, "serveGatewayFresh", "Jupyter Kernel Gateway: fresh kernel, small groupby").to("serveHost"),
    time(Row::Serve, "serveGatewayLive", "Jupyter Kernel Gateway: print(1) in a live kernel"),
    figure(Row::Serve, "serveRateTwo", "served: fresh sessions, 2 callers", Unit::SessionsPerSecond),
    figure(Row::Serve, "serveRateEight", "served: fresh sessions, 8 callers", Unit::SessionsPerSecond),
    figure(Row::Serve, "serveRateMany", "served: fresh sessions, 32 callers", Unit::SessionsPerSecond),
    figure(Row::Serve, "serveUp", "served: 1 GiB up", Unit::MebibytesPerSecond),
    figure(Row::Serve, "serveUpMemory", "served: 1 GiB up: growth of the server's memory", Unit::Mebibytes).goal(Goal::AtMost(32.0)),
    figure(Row::Serve, "serveDown", "served: 1 GiB down", Unit::MebibytesPerSecond),
    figure(Row::Serve, "serveDownMemory", "served: 1 GiB down: growth of the server's memory", Unit::Mebibytes).goal(Goal::AtMost(32.0)),
    figure(Row::Serve, "serveCrowd", "served: idle live sessions at once", Unit::Sessions).goal(Goal::All),
    figure(Row::Serve, "serveCrowdMemory", "served: the server's own memory then", Unit::Mebibytes),
    time(Row::Serve, "servePrintCrowd", "served: print(1) beside them").to("servePrint").goal(Goal::RatioAtMost(1.2)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_baselines_are_there() {
        let ids: std::collections::BTreeSet<&str> = TABLE.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), TABLE.len());
        for entry in TABLE {
            assert!(entry.baseline.is_none_or(|baseline| ids.contains(baseline)), "{}", entry.id);
            let compared = matches!(entry.goal, Some(Goal::RatioAtMost(_)));
            assert!(!compared || entry.baseline.is_some(), "{}", entry.id);
        }
    }
}
