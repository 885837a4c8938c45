//! A Jupyter Kernel Gateway beside the server, installed by the bench when it is asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::super::{Bench, jobs};

/// What asks it, in its own language.
const CLIENT: &str = include_str!("gateway.py");
/// Its packages.
const PACKAGES: [&str; 3] = ["jupyter_kernel_gateway==3.0.1", "ipykernel", "pandas"];
/// How long it may take to be ready.
const START: Duration = Duration::from_secs(60);

/// The gateway and the client that asks it.
pub(super) struct Gateway {
    gateway: Child,
    client: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Gateway {
    /// Installs it below the data folder, where it is not there, and starts it.
    pub(super) fn start(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let folder = bench.data.join("bench-gateway");
        let python = folder.join("bin/python");
        if !folder.join("installed").is_file() {
            bench.progress.set_message("installing the Jupyter Kernel Gateway");
            check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            check(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
            std::fs::write(folder.join("installed"), PACKAGES.join("\n"))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let gateway = Command::new(&python)
            .args(["-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1", "--JupyterWebsocketPersonality.list_kernels=True"])
            .arg(format!("--KernelGatewayApp.port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the Jupyter Kernel Gateway")?;
        let mut gateway = Ended(Some(gateway));
        let base = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + START;
        while ureq::get(format!("{base}/api")).call().is_err() {
            bench.stop.check()?;
            ensure!(Instant::now() < deadline, "the Jupyter Kernel Gateway does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut client = Command::new(&python)
            .args(["-c", CLIENT, &base, jobs::GROUPBY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the client of the Jupyter Kernel Gateway")?;
        let (asked, told) = (client.stdin.take().context("no stdin")?, client.stdout.take().context("no stdout")?);
        let gateway = gateway.0.take().context("no gateway")?;
        Ok(Self { gateway, client, asked, told: BufReader::new(told) })
    }

    /// Has it do one thing, and gives the milliseconds that took.
    pub(super) fn ask(&mut self, how: &str) -> anyhow::Result<f64> {
        writeln!(self.asked, "{how}")?;
        let mut line = String::new();
        if self.told.read_line(&mut line)? == 0 {
            bail!("the client of the Jupyter Kernel Gateway has ended");
        }
        line.trim().parse().with_context(|| format!("the client of the Jupyter Kernel Gateway said {line:?}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        end(&mut self.client);
        end(&mut self.gateway);
    }
}

/// Ends a process on the way of an error.
struct Ended(Option<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.as_mut().map(end).unwrap_or_default();
    }
}

/// Asks first: the gateway ends its kernels then.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
