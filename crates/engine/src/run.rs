//! One execution in a fresh sandbox: files in, code, outputs as they come, artifacts out, everything destroyed after.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sandbox::cgroup::Counters;
use sandbox::{Backend, End, Execute, FromInit, Limits, Remote, Sandbox, SpawnOptions, Stream, TemplateId, ToInit, Work, WorkerStart, worker};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::artifact::{self, Before};
use crate::error::{Error, ErrorKind};
use crate::execution::{Artifact, Execution, Language, Output, Value, is_binary, is_picture};
use crate::out::{self, Out};
use crate::outcome::{self, Facts, Stop};
use crate::output::{KEEP_BYTES, Kept};
use crate::schema;

/// Code may be this long, in bytes.
pub const MAX_CODE_BYTES: usize = 1024 * 1024;
/// After an interrupt, code has this long before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// After a kill, init has this long to report before the sandbox is ended with everything in it.
const KILL_PATIENCE: Duration = Duration::from_secs(3);
/// How long to listen before looking up whether the caller wants an end.
const LISTEN: Duration = Duration::from_millis(200);
/// A result or error may be this long, in bytes; the driver keeps well below. Parsed JSON takes a multiple of it.
const MAX_VALUE_BYTES: usize = 2 * 1024 * 1024;
/// Pictures and other displays of one execution together, in bytes; more ends it like too much text.
const DISPLAY_BYTES: usize = 64 * 1024 * 1024;
/// Displays of one execution.
const MAX_DISPLAYS: usize = 1000;
/// Media types of one display.
const MAX_FORMS: usize = 16;
/// Bytes of an upload sent at once.
const UPLOAD_BYTES: usize = 256 * 1024;

/// What to run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// In which language.
    pub language: Language,
    /// The code, UTF-8 for Python.
    pub code: Vec<u8>,
    /// The name that tracebacks show, e.g. `script.py`.
    pub filename: Option<String>,
    /// The variable `inputs`.
    pub inputs: Map<String, Json>,
    /// Files to put into the workspace: name there, path here.
    pub files: Vec<(String, PathBuf)>,
    /// Limits.
    pub limits: Limits,
    /// Name of the environment.
    pub environment: String,
    /// Python code may start processes.
    pub process_spawning: bool,
    /// Copy artifacts beneath this folder.
    pub out: Option<PathBuf>,
}

/// Run once in every new environment: what it leaves in its workspace becomes the environment's cache.
const WARM_UP: &str = r#"
import glob, importlib.util, os, shutil
if importlib.util.find_spec("matplotlib"):
    import matplotlib, matplotlib.font_manager
    os.mkdir("matplotlib")
    for path in glob.glob(os.path.join(matplotlib.get_cachedir(), "fontlist-*.json")):
        shutil.copy(path, "matplotlib")
"#;

impl RunRequest {
    /// The run that fills an environment's cache folder.
    pub(crate) fn warm_up(environment: &str, cache: PathBuf) -> Self {
        let limits = Limits { wall_seconds: 300, cpu_seconds: 300, memory_bytes: 2 << 30, ..Limits::default() };
        Self {
            language: Language::Python,
            code: WARM_UP.as_bytes().to_vec(),
            filename: None,
            inputs: Map::new(),
            files: Vec::new(),
            limits,
            environment: environment.to_owned(),
            process_spawning: false,
            out: Some(cache),
        }
    }
}

/// Sees outputs as they come. Everything is untrusted: the code chose it.
pub trait Observer {
    /// The code wrote.
    fn wrote(&mut self, stream: Stream, bytes: &[u8]);
    /// The code showed something.
    fn showed(&mut self, output: &Output);
    /// The value of the last expression.
    fn result(&mut self, value: &Value);
}

/// Interrupts a run from another thread.
#[derive(Debug, Default)]
pub struct Control(Mutex<ControlState>);

#[derive(Debug, Default)]
struct ControlState {
    remote: Option<Remote>,
    asked: u32,
    began: bool,
}

impl Control {
    /// Interrupts what runs; asked a second time, kills it. Returns whether the run has begun: it then ends by itself,
    /// and cleans up after itself.
    pub fn interrupt(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = state.asked.saturating_add(1);
        let message = if state.asked == 1 { ToInit::Interrupt } else { ToInit::KillExecution };
        if let Some(remote) = &state.remote {
            // Gone means over, which is what was wanted.
            let _ = remote.send(&message);
        }
        state.began
    }

    pub(crate) fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).began = true;
    }

    fn asked(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    fn attach(&self, remote: Option<Remote>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remote = remote;
    }
}

/// What collects while the code runs.
struct Collected<'a> {
    observer: &'a mut dyn Observer,
    stdout: Kept,
    stderr: Kept,
    outputs: Vec<Output>,
    output_bytes: usize,
    value: Option<Value>,
    facts: Facts,
}

/// Runs on a prepared template.
pub(crate) fn run(
    backend: &dyn Backend,
    template: TemplateId,
    request: &RunRequest,
    observer: &mut dyn Observer,
    control: &Control,
) -> Result<Execution, Error> {
    let worker = if request.language == Language::Python { WorkerStart::Exec } else { WorkerStart::None };
    let options = SpawnOptions { limits: request.limits, worker, shell: true, process_spawning: request.process_spawning, background: false };
    if let Some(out) = &request.out {
        out::check(out)?;
    }
    control.begin();
    let mut sandbox = backend.spawn(template, &options)?;
    let execution = run_in(sandbox.as_mut(), (backend.name(), Counters::default()), request, observer, control);
    sandbox.kill();
    let _ = sandbox.wait(KILL_PATIENCE);
    execution.map(|(execution, _)| execution)
}

/// Runs in a sandbox, whose group had counted `counted` before; what it has counted after comes along.
pub(crate) fn run_in(
    sandbox: &mut dyn Sandbox,
    (isolation, counted): (&'static str, Counters),
    request: &RunRequest,
    observer: &mut dyn Observer,
    control: &Control,
) -> Result<(Execution, Counters), Error> {
    for (name, path) in &request.files {
        upload(sandbox, name, path)?;
    }
    let before = if request.files.is_empty() { Before::default() } else { Before::of(&list(sandbox)?) };
    let mut collected = Collected {
        observer,
        stdout: Kept::new(KEEP_BYTES),
        stderr: Kept::new(KEEP_BYTES),
        outputs: Vec::new(),
        output_bytes: 0,
        value: None,
        facts: Facts::default(),
    };
    let (started, clock) = (SystemTime::now(), Instant::now());
    let end = execute(sandbox, request, &mut collected, control)?;
    let elapsed = clock.elapsed();
    if let Some(End::WorkerFailed) = end
        && control.asked() == 0
    {
        let hint = "build it again: `belljar env remove` and `belljar env build`, or raise the memory limit";
        return Err(Error::new(ErrorKind::Unavailable, format!("the interpreter of environment `{}` does not start", request.environment)).hint(hint));
    }
    let after = sandbox.usage().counters.unwrap_or_default();
    let moved = |count: fn(Counters) -> u64| count(after) > count(counted);
    collected.facts.memory_kills = moved(|counters| counters.memory_kills);
    collected.facts.process_refusals = moved(|counters| counters.process_refusals);
    collected.facts.disk_full = sandbox.workspace().space().is_ok_and(|space| space.free_bytes < 4096 || space.free_inodes == 0);
    // Nothing changes any more while files are looked at and copied out. Freezing takes milliseconds: not for an empty workspace.
    let empty = request.files.is_empty() && sandbox.workspace().list().is_ok_and(|listing| listing.entries.is_empty());
    let frozen = !empty && sandbox.freeze(true);
    let artifacts = artifacts(sandbox, &before, &mut collected.outputs, request.out.as_deref(), request.limits.workspace_bytes);
    if frozen {
        let _ = sandbox.freeze(false);
    }
    let mut execution = conclude(isolation, request, collected, end)?;
    execution.artifacts = artifacts?;
    execution.started_at = humantime::format_rfc3339_millis(started).to_string();
    execution.execution_time_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok((execution, after))
}

/// Has the driver run a small job of its own on the way that code takes, so that the first real one finds its memory in place: in the
/// worker, in init, and here. Nothing of it is kept.
pub(crate) fn rehearse(sandbox: &mut dyn Sandbox) -> Result<(), Error> {
    sandbox.remote().send(&ToInit::Execute(Execute { execution: 0, work: Work::Code(br#"{"rehearsal":true}"#.to_vec()) }))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match sandbox.receive(Some(deadline))? {
            Some(FromInit::Done { end: End::Completed, .. }) => return Ok(()),
            Some(FromInit::Done { end, .. }) => return Err(rehearsal_failed(&format!("{end:?}"))),
            Some(_) => {}
            None => return Err(rehearsal_failed("not in time")),
        }
    }
}

fn rehearsal_failed(how: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("a new sandbox did not get through its first job: {how}"))
        .hint("raise the pool's memory limit, or set `warm` to false")
}

fn list(sandbox: &dyn Sandbox) -> Result<sandbox::workspace::Listing, Error> {
    sandbox.workspace().list().map_err(|error| Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::Internal, "the workspace cannot be listed") })
}

/// Streams a file into the workspace; init writes it, so its pages are the sandbox's.
fn upload(sandbox: &mut dyn Sandbox, name: &str, path: &Path) -> Result<(), Error> {
    let failed = |error: &std::io::Error| Error::new(ErrorKind::InvalidRequest, format!("cannot read the file `{}`: {error}", path.display()));
    let mut file = File::open(path).map_err(|error| failed(&error))?;
    let remote = sandbox.remote();
    remote.send(&ToInit::FileBegin { name: name.to_owned(), mode: 0o644 })?;
    let mut buffer = vec![0; UPLOAD_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed(&error))?;
        if count == 0 {
            break;
        }
        remote.send(&ToInit::FileData(buffer.get(..count).unwrap_or_default().to_vec()))?;
    }
    remote.send(&ToInit::FileEnd)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match sandbox.receive(Some(deadline))? {
            Some(FromInit::FileWritten { result: Ok(()) }) => return Ok(()),
            Some(FromInit::FileWritten { result: Err(28) }) => {
                let message = format!("the file `{}` does not fit into the workspace", path.display());
                return Err(Error::new(ErrorKind::InvalidRequest, message).hint("raise the limit workspaceBytes, or pass less"));
            }
            Some(FromInit::FileWritten { result: Err(number) }) => {
                let reason = std::io::Error::from_raw_os_error(number);
                return Err(Error::new(ErrorKind::InvalidRequest, format!("the file `{name}` cannot be written in the workspace: {reason}")));
            }
            Some(_) => {}
            None => return Err(Error::new(ErrorKind::Internal, format!("the file `{name}` was not taken in time"))),
        }
    }
}

/// Sends the code and listens until it is over, stopping it where a limit says so. `None`: the sandbox itself has ended.
fn execute(sandbox: &mut dyn Sandbox, request: &RunRequest, collected: &mut Collected<'_>, control: &Control) -> Result<Option<End>, Error> {
    let remote = sandbox.remote();
    let work = match request.language {
        Language::Python => Work::Code(python_payload(request).into_bytes()),
        Language::Shell => Work::Shell(request.code.clone()),
    };
    control.attach(Some(remote.clone()));
    remote.send(&ToInit::Execute(Execute { execution: 1, work }))?;
    if control.asked() > 0 {
        let _ = remote.send(&ToInit::Interrupt);
    }
    let mut deadline = Instant::now() + Duration::from_secs(request.limits.wall_seconds);
    let mut phase = Phase::Running;
    let end = loop {
        let now = Instant::now();
        if phase != Phase::Killed && control.asked() > 1 {
            (phase, deadline) = (Phase::Killed, now + KILL_PATIENCE);
        }
        // Looked at every time: whoever never stops talking must not outlive its deadline.
        let received = if now >= deadline { Ok(Received::Late) } else { sandbox.receive(Some(deadline.min(now + LISTEN))).map(Received::Message) };
        match received {
            Ok(Received::Message(Some(FromInit::Done { end, .. }))) => break Some(end),
            Ok(Received::Message(Some(message))) => collected.take(message),
            Ok(Received::Message(None)) => {}
            Ok(Received::Late) => match phase {
                Phase::Running => {
                    collected.facts.stop = collected.facts.stop.or(Some(Stop::Time));
                    let _ = remote.send(&ToInit::Interrupt);
                    (phase, deadline) = (Phase::Interrupted, Instant::now() + GRACE);
                }
                Phase::Interrupted => {
                    let _ = remote.send(&ToInit::KillExecution);
                    (phase, deadline) = (Phase::Killed, Instant::now() + KILL_PATIENCE);
                }
                Phase::Killed => {
                    sandbox.kill();
                    break None;
                }
            },
            Err(sandbox::Error::Gone) => break None,
            Err(error) => return Err(error.into()),
        }
        if phase != Phase::Killed && collected.too_much(&request.limits) {
            collected.facts.stop = Some(Stop::Output);
            let _ = remote.send(&ToInit::KillExecution);
            (phase, deadline) = (Phase::Killed, Instant::now() + KILL_PATIENCE);
        }
    };
    control.attach(None);
    if control.asked() > 0 && collected.facts.stop.is_none() {
        collected.facts.stop = Some(Stop::Caller);
    }
    Ok(end)
}

/// What listening once came to.
enum Received {
    Message(Option<FromInit>),
    Late,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Interrupted,
    Killed,
}

fn python_payload(request: &RunRequest) -> String {
    let code = String::from_utf8_lossy(&request.code);
    // Files from Windows begin with a mark that Python takes in files only.
    let code = code.strip_prefix('\u{feff}').unwrap_or(&code);
    let mut payload = json!({"code": code, "inputs": request.inputs});
    if let (Some(filename), Some(members)) = (&request.filename, payload.as_object_mut()) {
        members.insert("filename".to_owned(), json!(filename));
    }
    payload.to_string()
}

impl Collected<'_> {
    /// Takes one message. What cannot be read is the code's own doing and is dropped.
    fn take(&mut self, message: FromInit) {
        match message {
            FromInit::Output { stream, bytes, .. } => {
                // What comes after the end was decided is drained, not kept.
                if self.facts.stop == Some(Stop::Output) {
                    return;
                }
                self.observer.wrote(stream, &bytes);
                match stream {
                    Stream::Stdout => self.stdout.push(&bytes),
                    Stream::Stderr => self.stderr.push(&bytes),
                }
            }
            FromInit::Worker { .. } if self.facts.stop == Some(Stop::Output) => {}
            FromInit::Worker { kind, payload, .. } => {
                self.output_bytes = self.output_bytes.saturating_add(payload.len());
                match kind {
                    worker::DISPLAY => self.display(&payload),
                    worker::RESULT => self.result(&payload),
                    worker::ERROR => self.facts.raised = Some(serde_json::from_slice(bounded(&payload)).unwrap_or_default()),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn too_much(&self, limits: &Limits) -> bool {
        let written = self.stdout.total().saturating_add(self.stderr.total());
        written > limits.output_bytes || self.output_bytes > DISPLAY_BYTES || self.outputs.len() > MAX_DISPLAYS
    }

    fn display(&mut self, payload: &[u8]) {
        if let Ok(shown) = serde_json::from_slice::<Shown>(payload) {
            self.show(&shown.data.0);
        }
    }

    fn result(&mut self, payload: &[u8]) {
        let Ok(shown) = serde_json::from_slice::<Shown>(payload) else { return };
        self.show(&shown.data.0);
        let text = shown.text.unwrap_or_default();
        let json = shown.json.and_then(|json| serde_json::from_str(std::str::from_utf8(bounded(json.get().as_bytes())).ok()?).ok());
        let value = Value { text, json: json.unwrap_or(Json::Null) };
        self.observer.result(&value);
        self.value = Some(value);
    }

    /// Keeps the forms of one display. The text form of a picture only names its class, and is left out.
    fn show(&mut self, data: &BTreeMap<String, Box<RawValue>>) {
        let picture = data.keys().any(|media_type| is_picture(media_type));
        for (media_type, content) in data.iter().filter(|(media_type, _)| !picture || *media_type != "text/plain") {
            let text = serde_json::from_str::<String>(content.get()).unwrap_or_else(|_| content.get().to_owned());
            let output =
                Output { name: self.name_of(media_type), media_type: media_type.clone(), data: if is_binary(media_type) { compact(&text) } else { text } };
            self.observer.showed(&output);
            self.outputs.push(output);
        }
    }

    /// `figure-1.png`, `output-2.html`
    fn name_of(&self, media_type: &str) -> String {
        let extension = match media_type {
            "image/svg+xml" => "svg",
            "image/jpeg" => "jpg",
            "text/html" => "html",
            "text/plain" => "txt",
            "text/markdown" => "md",
            "text/latex" => "tex",
            "application/vnd.plotly.v1+json" => "plotly.json",
            other => mime_guess::get_mime_extensions_str(other).and_then(|list| list.first()).copied().unwrap_or("bin"),
        };
        let kind = if media_type.starts_with("image/") { "figure" } else { "output" };
        format!("{kind}-{}.{extension}", self.outputs.len().saturating_add(1))
    }
}

/// A `display` or `result` frame. Contents stay as they were written: parsed, hostile JSON would take many times its size.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    data: Forms,
    text: Option<String>,
    json: Option<Box<RawValue>>,
}

/// Contents by media type, no more than [`MAX_FORMS`]: one more fails the frame before it costs anything.
#[derive(Default)]
struct Forms(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Forms {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Forms;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "an object of at most {MAX_FORMS} members")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Forms, A::Error> {
                let mut forms = BTreeMap::new();
                while let Some((media_type, content)) = map.next_entry()? {
                    if forms.len() >= MAX_FORMS {
                        return Err(serde::de::Error::custom("too many media types"));
                    }
                    forms.insert(media_type, content);
                }
                Ok(Forms(forms))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Nothing, where it is longer than a value may be.
fn bounded(bytes: &[u8]) -> &[u8] {
    if bytes.len() > MAX_VALUE_BYTES { &[] } else { bytes }
}

/// Base64 without the line breaks that some encoders put in.
fn compact(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// Collects new and changed files, and copies them and what was shown into the output folder where there is one; files of more than
/// `room` bytes together, or with names that the folder cannot take, are listed, but not copied.
fn artifacts(sandbox: &dyn Sandbox, before: &Before, outputs: &mut [Output], out: Option<&Path>, room: u64) -> Result<Vec<Artifact>, Error> {
    // The sandbox may be gone, its files with it.
    let listing = sandbox.workspace().list().unwrap_or_default();
    let (news, _) = before.news(&listing);
    let mut target = out.map(Out::new);
    let mut artifacts = Vec::new();
    // Sparse files and hard links can claim far more than the workspace holds.
    let mut budget = room;
    for entry in news {
        let Some(left) = budget.checked_sub(entry.size) else {
            artifacts.push(artifact::listed(entry));
            continue;
        };
        let Some(file) = artifact::open(sandbox.workspace(), entry) else { continue };
        budget = left;
        let staging = target.as_mut().map(Out::staging).transpose()?;
        let place = out.map_or_else(|| entry.path.clone(), |out| out.join(&entry.path));
        match artifact::collect(file, entry, staging) {
            Ok(mut artifact) => {
                if let Some(target) = &mut target {
                    target.add(&entry.path);
                    artifact.url = Some(place.display().to_string());
                }
                artifacts.push(artifact);
            }
            Err(error) if out::is_names_fault(&error) => artifacts.push(artifact::listed(entry)),
            Err(error) => return Err(out::failed(&place, &error)),
        }
    }
    if let (Some(mut target), Some(folder)) = (target, out) {
        for output in outputs.iter_mut().filter(|output| output.is_picture()) {
            save(&mut target, output, folder)?;
        }
        let kept_out: Vec<String> = target.finish()?.iter().map(|name| folder.join(name).display().to_string()).collect();
        for artifact in artifacts.iter_mut().filter(|artifact| artifact.url.as_ref().is_some_and(|url| kept_out.contains(url))) {
            artifact.url = None;
        }
    }
    Ok(artifacts)
}

/// Puts a picture into the output folder, under its name or one near it that is free.
fn save(target: &mut Out, output: &mut Output, folder: &Path) -> Result<(), Error> {
    use base64::Engine as _;
    let bytes = if output.is_binary() {
        // Not what it says it is: the code's own doing.
        let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(&output.data) else { return Ok(()) };
        bytes
    } else {
        output.data.clone().into_bytes()
    };
    let name = target.free_name(&output.name);
    let place = target.staging()?.join(&name);
    std::fs::write(&place, bytes).map_err(|error| out::failed(&folder.join(&name), &error))?;
    target.add(Path::new(&name));
    output.name = name;
    Ok(())
}

fn conclude(isolation: &'static str, request: &RunRequest, collected: Collected<'_>, end: Option<End>) -> Result<Execution, Error> {
    let conclusion = outcome::conclude(end, &collected.facts);
    let ((stdout, stdout_truncated), (stderr, stderr_truncated)) = (collected.stdout.text(), collected.stderr.text());
    let printed = if stdout.trim().is_empty() || stdout_truncated { None } else { Some(serde_json::from_str::<Json>(&stdout).ok()) };
    let output = printed.unwrap_or_else(|| collected.value.as_ref().map(|value| value.json.clone()).filter(|json| !json.is_null()));
    Ok(Execution {
        id: new_id("exe")?,
        session_id: new_id("ses")?,
        outcome: conclusion.outcome,
        stdout,
        stderr,
        stdout_truncated,
        stderr_truncated,
        result: collected.value,
        error: conclusion.error,
        outputs: collected.outputs,
        artifacts: Vec::new(),
        output_schema: output.as_ref().map(schema::infer),
        output,
        state_lost: conclusion.state_lost,
        exit_code: conclusion.exit_code,
        limits_hit: conclusion.limits_hit,
        isolation,
        execution_time_ms: 0,
        started_at: String::new(),
        limits: request.limits,
    })
}

/// 128 random bits behind a prefix.
fn new_id(prefix: &str) -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(ErrorKind::Internal, "the system gives no random numbers"))?;
    Ok(bytes.iter().fold(format!("{prefix}_"), |id, byte| format!("{id}{byte:02x}")))
}
