//! `--serve`: what sessions take over HTTP on loopback, with a server of its own, beside the host's Python and, on request, a Jupyter Kernel Gateway.
//!
//! The client is one of Rust that keeps its connection; what it takes is in every figure.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::host::Interpreter;
use super::rate::mebibytes;
use super::{Bench, host, jobs};

mod gateway;
mod server;

use gateway::Gateway;
use server::{Answer, Client, Server};

/// Parked sandboxes of the server's pool.
const READY: usize = 12;
/// Before a fresh session is measured while the pool refills, so many wait.
const STOCK: u64 = 6;
/// Calls of a row, besides the first.
const IN_A_ROW: usize = 5;
/// How long callers are counted, for each number of them.
const RATE: Duration = Duration::from_secs(6);
/// Callers at once.
const CALLERS: [(usize, &str); 3] = [(2, "serveRateTwo"), (8, "serveRateEight"), (32, "serveRateMany")];
/// What is sent and fetched in one piece.
const LARGE_BYTES: u64 = 1 << 30;

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let python = host::python(&bench.environment, scratch.path())?;
    let gateway = if bench.plan.gateway { Some(Gateway::start(bench)?) } else { None };
    if gateway.is_none() {
        for id in ["serveGatewayFresh", "serveGatewayLive"] {
            bench.records.explain(id, "not asked for: --gateway");
        }
    }
    let many = bench.plan.many.max(1);
    let server = Server::start(&bench.data, &bench.plan.environment, READY, many)?;
    rounds(bench, &server, &python, gateway)?;
    rates(bench, &server)?;
    large(bench, &server)?;
    crowd(bench, &server, many)?;
    server.end()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Fresh,
    /// While the pool makes up for another one.
    Refilling,
    /// After a pause: everybody on the way sleeps.
    Live,
    /// Several, one right behind the other.
    InARow,
    Host,
    GatewayFresh,
    GatewayLive,
}

/// One caller, one thing after the other.
fn rounds(bench: &mut Bench<'_>, server: &Server, python: &Interpreter, mut gateway: Option<Gateway>) -> anyhow::Result<()> {
    let client = server.client();
    let rounds = bench.plan.rounds;
    bench.begin("over HTTP", usize::try_from(rounds)?);
    client.execute("bench-live", "print(1)")?.printed("1\n")?;
    for round in 0..rounds {
        let mut steps = vec![Step::Fresh; 4];
        steps.extend([Step::Refilling; 3]);
        steps.extend([Step::Live; 5]);
        steps.extend([Step::InARow, Step::Host]);
        if gateway.is_some() {
            steps.extend([Step::GatewayFresh, Step::GatewayLive, Step::GatewayLive, Step::GatewayLive]);
        }
        bench.random.shuffle(&mut steps);
        for (number, step) in steps.into_iter().enumerate() {
            bench.stop.check()?;
            let id = format!("bench-{round}-{number}");
            // Nothing else of ours runs during a step, but where that is what is measured.
            server.until_parked(&client, if matches!(step, Step::Refilling) { STOCK } else { u64::try_from(READY)? }, &bench.stop)?;
            match step {
                Step::Fresh => fresh(bench, &client, &id, "serveFresh")?,
                Step::Refilling => {
                    let other = format!("{id}-other");
                    client.execute(&other, "1")?.completed()?;
                    fresh(bench, &client, &id, "serveRefilling")?;
                    client.delete(&other)?;
                }
                Step::Live => print(bench, &client, "servePrint")?,
                Step::InARow => {
                    client.execute("bench-live", "print(1)")?.printed("1\n")?;
                    (0..IN_A_ROW).try_for_each(|_| print(bench, &client, "servePrintRow"))?;
                }
                Step::Host => bench.records.add_time("serveHost", python.run(jobs::GROUPBY)?.total),
                Step::GatewayFresh | Step::GatewayLive => {
                    let Some(gateway) = &mut gateway else { continue };
                    let (id, how) = if matches!(step, Step::GatewayFresh) { ("serveGatewayFresh", "fresh") } else { ("serveGatewayLive", "live") };
                    let took = gateway.ask(how)?;
                    bench.records.add(id, took);
                }
            }
        }
        bench.progress.inc(1);
    }
    client.delete("bench-live")
}

/// A line in the session that lives.
fn print(bench: &mut Bench<'_>, client: &Client, series: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let answer = client.execute("bench-live", "print(1)")?;
    bench.records.add_time(series, start.elapsed());
    parts(bench, series, &answer);
    answer.printed("1\n")
}

/// A session that is made for one job.
fn fresh(bench: &mut Bench<'_>, client: &Client, id: &str, series: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let answer = client.execute(id, jobs::GROUPBY)?;
    let took = start.elapsed();
    bench.records.add_time(series, took);
    bench.records.add_time(format!("{series}Tail"), took);
    parts(bench, series, &answer);
    ensure!(answer.stdout()?.starts_with(jobs::GROUPBY_BEGINS), "the groupby printed something else: {:?}", answer.stdout());
    client.delete(id)
}

/// Where the server says that the time went.
fn parts(bench: &mut Bench<'_>, prefix: &str, answer: &Answer) {
    for (part, milliseconds) in &answer.parts {
        let name = match part.as_str() {
            "allocation" => "Allocation",
            "record" => "Record",
            "execution" => "Execution",
            _ => continue,
        };
        bench.records.add(format!("{prefix}{name}"), *milliseconds);
    }
}

/// Callers that each want one fresh session after the other.
fn rates(bench: &mut Bench<'_>, server: &Server) -> anyhow::Result<()> {
    let time = if bench.plan.quick { Duration::from_secs(1) } else { RATE };
    bench.begin("many callers", CALLERS.len());
    for (callers, id) in CALLERS {
        bench.stop.check()?;
        let start = Instant::now();
        let counts: anyhow::Result<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..callers).map(|caller| scope.spawn(move || sessions(server, &format!("bench-rate-{callers}-{caller}"), start, time))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a caller panicked"))).collect()
        });
        let count: usize = counts?.iter().sum();
        bench.records.add(id, count as f64 / start.elapsed().as_secs_f64());
        bench.progress.inc(1);
    }
    Ok(())
}

fn sessions(server: &Server, name: &str, start: Instant, time: Duration) -> anyhow::Result<usize> {
    let client = server.client();
    let mut count = 0;
    while start.elapsed() < time {
        let id = format!("{name}-{count}");
        let answer = client.execute(&id, jobs::GROUPBY)?;
        ensure!(answer.stdout()?.starts_with(jobs::GROUPBY_BEGINS), "the groupby printed something else: {:?}", answer.stdout());
        client.delete(&id)?;
        count += 1;
    }
    Ok(count)
}

/// One large file in and out, and what the server keeps of it meanwhile.
fn large(bench: &mut Bench<'_>, server: &Server) -> anyhow::Result<()> {
    let bytes = if bench.plan.quick { LARGE_BYTES / 16 } else { LARGE_BYTES };
    bench.begin("a large file", 2);
    let client = server.client();
    client.execute_in("large", "bench-large", "print(1)")?.printed("1\n")?;
    let before = server.resident_bytes()?;
    for (id, memory) in [("serveUp", "serveUpMemory"), ("serveDown", "serveDownMemory")] {
        let watch = server.watch();
        let start = Instant::now();
        if id == "serveUp" {
            client.upload("large", "bench-large", "large.bin", bytes)?;
        } else {
            let read = client.download("large", "bench-large", "large.bin")?;
            ensure!(read == bytes, "{read} of {bytes} bytes came back");
        }
        bench.records.add(id, mebibytes(bytes) / start.elapsed().as_secs_f64());
        bench.records.add(memory, mebibytes(watch.most().saturating_sub(before)));
        bench.progress.inc(1);
    }
    client.delete_in("large", "bench-large")
}

/// Many sessions that live and do nothing, and one that does something.
fn crowd(bench: &mut Bench<'_>, server: &Server, many: usize) -> anyhow::Result<()> {
    bench.begin("many sessions", many);
    let client = server.client();
    let mut alive = 0;
    for number in 0..many {
        bench.stop.check()?;
        client.execute(&format!("bench-idle-{number}"), "x = 1")?.completed()?;
        alive += 1;
        bench.progress.inc(1);
    }
    bench.records.add("serveCrowd", alive as f64);
    bench.records.add("serveCrowdMemory", mebibytes(server.resident_bytes()?));
    for _ in 0..bench.plan.count(200, 5) {
        let start = Instant::now();
        let answer = client.execute("bench-idle-0", "print(x)")?;
        bench.records.add_time("servePrintCrowd", start.elapsed());
        answer.printed("1\n")?;
    }
    Ok(())
}
