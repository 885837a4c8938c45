//! `belljar run`: one execution in a fresh sandbox, of the server that runs on the data folder where there is one, else of our own.

mod remote;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use engine::run::MAX_CODE_BYTES;
use engine::{Artifact, Command, Control, Execution, ExecutionError, Language, Observer, Outcome, Output, Reply, RunRequest, Stream, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::args;
use crate::client::Server;
use crate::config::Configuration;
use crate::exit::{self, usage};
use crate::terminal::{self, Screen};

/// Runs.
pub(crate) fn run(arguments: &args::Run, configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let request = request(arguments, configuration)?;
    if !arguments.standalone
        && let Some(server) = Server::find(&configuration.data.value)?
    {
        return remote::run(&server, arguments, configuration, &request);
    }
    let control = Arc::new(Control::default());
    listen_for_interrupts(&control)?;
    let kill = Arc::clone(&control);
    let mut live = Live::new(
        arguments,
        Box::new(move || {
            // The second time kills.
            kill.interrupt();
            kill.interrupt();
        }),
    );
    let mut progress = super::progress::Shown::new();
    let command = Command::Run { request: Box::new(request), observer: &mut live, control: &control, progress: &mut |event| progress.show(event) };
    let reply = super::engine(configuration).dispatch(command)?;
    let Reply::Execution(execution) = reply else { anyhow::bail!("the engine gave no execution") };
    if arguments.json {
        terminal::json(&execution).context("cannot write to standard output")?;
    } else if !live.closed {
        let _ = live.stdout.finish().and_then(|()| live.stderr.finish());
        tell(&Told::from(execution.as_ref()), &arguments.out, &mut live);
    }
    Ok(exit::of(execution.outcome))
}

/// What is told of an execution when it is over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    outcome: Outcome,
    error: Option<ExecutionError>,
    limits_hit: Vec<String>,
    state_lost: bool,
    artifacts: Vec<ToldArtifact>,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldArtifact {
    path: String,
    size_bytes: u64,
    media_type: String,
    /// Where it was saved.
    url: Option<String>,
}

impl From<&Execution> for Told {
    fn from(execution: &Execution) -> Self {
        let told = |artifact: &Artifact| {
            let Artifact { path, size_bytes, media_type, url, .. } = artifact.clone();
            ToldArtifact { path, size_bytes, media_type, url }
        };
        Self {
            outcome: execution.outcome,
            error: execution.error.clone(),
            limits_hit: execution.limits_hit.iter().map(|&name| name.to_owned()).collect(),
            state_lost: execution.state_lost,
            artifacts: execution.artifacts.iter().map(told).collect(),
            outputs: execution.outputs.iter().filter(|output| output.is_picture()).cloned().collect(),
        }
    }
}

/// The facts of the execution object that have not been printed yet.
fn tell(execution: &Told, out: &Path, live: &mut Live) {
    if let Some(error) = &execution.error {
        let text = if error.traceback.is_empty() { format!("{}: {}\n", error.name, error.message) } else { format!("{}\n", error.traceback.trim_end()) };
        let _ = live.stderr.write(text.as_bytes()).and_then(|()| live.stderr.finish());
    }
    if execution.outcome != Outcome::Completed || !execution.limits_hit.is_empty() {
        let limits = if execution.limits_hit.is_empty() { String::new() } else { format!(" ({})", execution.limits_hit.join(", ")) };
        let state = if execution.state_lost { "; its state is lost" } else { "" };
        terminal::note(&format!("belljar: {}{limits}{state}", execution.outcome));
    }
    for artifact in &execution.artifacts {
        let (done, place) = artifact
            .url
            .as_deref()
            .map_or(("not saved, too large or with a name that the folder cannot take:", artifact.path.as_str()), |place| ("saved", place));
        terminal::note(&format!("{done} {place} ({}, {} bytes)", artifact.media_type, artifact.size_bytes));
    }
    for output in execution.outputs.iter().filter(|output| output.is_picture()) {
        terminal::note(&format!("saved {} ({})", out.join(&output.name).display(), output.media_type));
    }
}

fn request(arguments: &args::Run, configuration: &Configuration) -> anyhow::Result<RunRequest> {
    let (code, path) = code(arguments.code.as_deref())?;
    let language = match arguments.language {
        Some(args::Language::Python) => Language::Python,
        Some(args::Language::Shell) => Language::Shell,
        None if path.as_ref().is_some_and(|path| path.extension().is_some_and(|extension| extension == "sh")) => Language::Shell,
        None => Language::Python,
    };
    let what = path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    check_code(&code, language, &what)?;
    let mut limits = configuration.limits;
    if let Some(seconds) = arguments.timeout {
        limits.wall_seconds = seconds;
        limits.cpu_seconds = limits.cpu_seconds.max(seconds);
    }
    Ok(RunRequest {
        language,
        code,
        filename: path.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()),
        inputs: inputs(&arguments.input)?,
        fresh: false,
        files: files(&arguments.file)?,
        limits,
        environment: arguments.env.clone().unwrap_or_else(|| configuration.environment.value.clone()),
        process_spawning: configuration.process_spawning.value,
        out: Some(arguments.out.clone()),
    })
}

/// Reads the code, and says from which file.
fn code(file: Option<&Path>) -> anyhow::Result<(Vec<u8>, Option<PathBuf>)> {
    let path = file.filter(|path| *path != Path::new("-"));
    if file.is_none() && std::io::stdin().is_terminal() {
        return Err(usage("there is no code to run", "name a file, or pipe the code in: `belljar run script.py`, `echo 'print(1)' | belljar run -`"));
    }
    let mut code = Vec::new();
    let limit = u64::try_from(MAX_CODE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    match path {
        Some(path) => {
            let file = open(path)?;
            file.take(limit).read_to_end(&mut code).map_err(|error| usage(format!("cannot read `{}`: {error}", path.display()), "name a readable file"))?;
        }
        None => {
            let read = std::io::stdin().lock().take(limit).read_to_end(&mut code);
            read.map_err(|error| usage(format!("cannot read standard input: {error}"), "pipe the code in, or name a file"))?;
        }
    }
    Ok((code, path.map(Path::to_owned)))
}

fn check_code(code: &[u8], language: Language, what: &str) -> anyhow::Result<()> {
    if code.len() > MAX_CODE_BYTES {
        return Err(usage(format!("the code in `{what}` is over the limit of {MAX_CODE_BYTES} bytes"), "put data into files and pass them with --file"));
    }
    if code.iter().all(u8::is_ascii_whitespace) {
        return Err(usage(format!("the code in `{what}` is empty"), "pass some code to run"));
    }
    if let (Err(error), Language::Python) = (std::str::from_utf8(code), language) {
        return Err(usage(format!("the code in `{what}` is not UTF-8: byte {} is not valid", error.valid_up_to()), "save the file as UTF-8"));
    }
    if code.contains(&0) {
        return Err(usage(format!("the code in `{what}` contains a NUL byte"), "name a text file"));
    }
    Ok(())
}

/// Opens a regular file, or says what is wrong with it.
fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    let name = path.display();
    let kind = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => usage(format!("the file `{name}` does not exist"), "check the path"),
        _ => usage(format!("cannot read the file `{name}`: {error}"), "check its permissions"),
    })?;
    if kind.is_dir() {
        return Err(usage(format!("`{name}` is a folder, not a file"), "name the files in it, or pack it into an archive"));
    }
    std::fs::File::open(path).map_err(|error| usage(format!("cannot read the file `{name}`: {error}"), "check its permissions"))
}

fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut names = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        drop(open(path)?);
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| usage(format!("the name of `{}` is not UTF-8", path.display()), "rename it"))?;
        if !names.insert(name) {
            return Err(usage(format!("two files are named `{name}`"), "rename one: both would land at the same place"));
        }
        files.push((name.to_owned(), path.clone()));
    }
    Ok(files)
}

fn inputs(pairs: &[String]) -> anyhow::Result<Map<String, Json>> {
    let mut inputs = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(usage(format!("the input `{pair}` is not of the form KEY=JSON"), "write --input 'name=\"value\"' or --input n=3"));
        };
        let parsed = serde_json::from_str(value);
        let parsed =
            parsed.map_err(|error| usage(format!("the value of input `{key}` is not JSON: {error}"), format!("quote text: --input '{key}=\"text\"'")))?;
        if inputs.insert(key.to_owned(), parsed).is_some() {
            return Err(usage(format!("the input `{key}` is given twice"), "give it once"));
        }
    }
    Ok(inputs)
}

/// The first Ctrl-C interrupts the code, the second kills it, and while nothing runs yet it ends belljar.
fn listen_for_interrupts(control: &Arc<Control>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let control = Arc::clone(control);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if !control.interrupt() {
                #[expect(clippy::exit, reason = "no code runs, so there is nothing to wait for; what is half-built is cleared by the next build")]
                std::process::exit(i32::from(exit::FAILED));
            }
        }
    });
    Ok(())
}

/// Prints outputs as they come.
struct Live {
    stdout: Screen<std::io::Stdout>,
    stderr: Screen<std::io::Stderr>,
    quiet: bool,
    /// Nobody reads any more.
    closed: bool,
    kill: Box<dyn FnMut() + Send>,
}

impl Live {
    /// `kill` ends what runs.
    fn new(arguments: &args::Run, kill: Box<dyn FnMut() + Send>) -> Self {
        Self { stdout: Screen::stdout(arguments.raw), stderr: Screen::stderr(arguments.raw), quiet: arguments.json, closed: false, kill }
    }

    /// Whether nothing is printed.
    fn is_mute(&self) -> bool {
        self.quiet || self.closed
    }

    /// Where nobody reads any more, the run is of no use to anyone.
    fn check(&mut self, written: std::io::Result<()>) {
        if written.is_err() && !std::mem::replace(&mut self.closed, true) {
            (self.kill)();
        }
    }
}

impl Observer for Live {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) {
        if self.is_mute() {
            return;
        }
        let written = match stream {
            Stream::Stdout => self.stdout.write(bytes),
            Stream::Stderr => self.stderr.write(bytes),
        };
        self.check(written);
    }

    fn showed(&mut self, output: &Output) {
        if !self.is_mute() && output.media_type == "text/plain" {
            let written = self.stdout.write(format!("{}\n", output.data).as_bytes());
            self.check(written);
        }
    }

    fn result(&mut self, value: &Value) {
        if !self.is_mute() {
            let written = self.stdout.write(format!("{}\n", value.text).as_bytes());
            self.check(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: &anyhow::Error) -> String {
        error.to_string()
    }

    #[test]
    fn inputs_are_json_and_named_once() {
        let good = inputs(&["a=1".into(), "b={\"x\":[true]}".into(), "c=\"=\"".into()]).unwrap();
        assert_eq!(serde_json::to_string(&good).unwrap(), r#"{"a":1,"b":{"x":[true]},"c":"="}"#);
        assert!(message(&inputs(&["a".into()]).unwrap_err()).contains("`a` is not of the form KEY=JSON"));
        assert!(message(&inputs(&["=1".into()]).unwrap_err()).contains("KEY=JSON"));
        assert!(message(&inputs(&["a=text".into()]).unwrap_err()).contains("input `a` is not JSON"));
        assert!(message(&inputs(&["a=1".into(), "a=2".into()]).unwrap_err()).contains("given twice"));
    }

    #[test]
    fn code_is_checked_before_anything_starts() {
        assert!(message(&check_code(b" \n\t", Language::Python, "x.py").unwrap_err()).contains("`x.py` is empty"));
        assert!(message(&check_code(b"ok \xff", Language::Python, "x.py").unwrap_err()).contains("byte 3"));
        assert!(message(&check_code(b"a\0b", Language::Python, "x.py").unwrap_err()).contains("NUL"));
        assert!(message(&check_code(&vec![b'#'; MAX_CODE_BYTES + 1], Language::Python, "x.py").unwrap_err()).contains("over the limit"));
        assert!(check_code(&vec![b'#'; MAX_CODE_BYTES], Language::Python, "x.py").is_ok());
        assert!(check_code(b"echo \xff", Language::Shell, "x.sh").is_ok(), "a shell takes any bytes");
    }
}
