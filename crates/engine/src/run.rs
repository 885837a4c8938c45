//! One execution in a fresh sandbox: files in, code, outputs as they come, artifacts out, everything destroyed after.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sandbox::cgroup::Counters;
use sandbox::workspace::Entry;
use sandbox::{Backend, End, Execute, FromInit, Limits, Remote, Sandbox, SpawnOptions, Stream, TemplateId, ToInit, Work, WorkerStart, Workspace, worker};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::artifact::{self, Before};
use crate::error::{Error, ErrorKind};
use crate::execution::{Artifact, Execution, ExecutionError, Language, Outcome, Output, Value, is_binary, is_picture};
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
/// Frames of an execution's worker, whatever they hold: each costs time out here, and an empty one is no display.
const MAX_FRAMES: usize = 4 * MAX_DISPLAYS;
/// Media types of one display.
const MAX_FORMS: usize = 16;
/// Bytes of an upload sent at once.
pub(crate) const UPLOAD_BYTES: usize = 256 * 1024;
/// How long init may take to put a file in its place.
pub(crate) const UPLOAD_PATIENCE: Duration = Duration::from_secs(60);

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
    /// Python code gets a namespace of its own, and leaves that of the session as it was.
    pub fresh: bool,
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
            fresh: false,
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
    /// An upload that went on meanwhile is over. For those who begin uploads.
    #[doc(hidden)]
    fn uploaded(&mut self, _upload: u64, _result: Result<bool, i32>) {}
}

/// Interrupts a run from another thread.
#[derive(Debug, Default)]
pub struct Control {
    asked: AtomicU32,
    state: Mutex<ControlState>,
}

#[derive(Debug, Default)]
struct ControlState {
    remote: Option<Remote>,
    /// How often init was told.
    told: u32,
    began: bool,
}

impl Control {
    /// Interrupts what runs; asked a second time, kills it. Returns whether the run has begun: it then ends by itself,
    /// and cleans up after itself.
    pub fn interrupt(&self) -> bool {
        self.ask();
        self.pass_on()
    }

    /// Notes that an end is wanted, without waiting for anybody. What runs hears of it by [`Self::pass_on`].
    pub(crate) fn ask(&self) {
        let _ = self.asked.fetch_update(Ordering::AcqRel, Ordering::Acquire, |asked| Some(asked.saturating_add(1)));
    }

    /// Tells init what was asked for. Waits while others are sending, and while init, which shares the processor with the code, does not read.
    pub(crate) fn pass_on(&self) -> bool {
        let mut state = self.lock();
        state.tell(self.asked());
        state.began
    }

    fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) {
        self.lock().began = true;
    }

    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Acquire)
    }

    /// What runs can be interrupted from now on; what was asked before is passed on, once.
    fn attach(&self, remote: &Remote) {
        let mut state = self.lock();
        state.remote = Some(remote.clone());
        state.tell(self.asked());
    }

    fn detach(&self) {
        self.lock().remote = None;
    }
}

impl ControlState {
    fn tell(&mut self, asked: u32) {
        let Some(remote) = self.remote.as_ref().filter(|_| asked > self.told) else { return };
        // Gone means over, which is what was wanted.
        let _ = remote.send(if asked == 1 { &ToInit::Interrupt } else { &ToInit::KillExecution });
        self.told = asked;
    }
}

/// What collects while the code runs.
struct Collected<'a> {
    observer: &'a mut dyn Observer,
    number: u64,
    stdout: Kept,
    stderr: Kept,
    outputs: Vec<Output>,
    output_bytes: usize,
    frames: usize,
    value: Option<Value>,
    facts: Facts,
}

/// What an execution follows on: its number in the sandbox, and what was there before it.
#[derive(Debug, Default)]
pub(crate) struct Turn<'a> {
    /// Above that of every execution before.
    pub(crate) number: u64,
    /// The backend's name.
    pub(crate) isolation: &'static str,
    /// What the sandbox's group had counted.
    pub(crate) counted: Counters,
    /// The workspace as it was; `None`: to be looked up.
    pub(crate) before: Option<Before>,
    /// The execution's id, and the session's; `None`: new ones.
    pub(crate) ids: Option<(&'a str, &'a str)>,
    /// Folder for the whole of what was written, where that is kept.
    pub(crate) whole: Option<&'a Path>,
}

/// An execution, and what the next one follows on.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) execution: Execution,
    pub(crate) counters: Counters,
    pub(crate) before: Before,
    /// The sandbox itself has ended.
    pub(crate) gone: bool,
    /// A worker became ready while it ran, and is still there.
    pub(crate) worker_ready: bool,
    /// The whole of stdout and stderr, where they were long.
    pub(crate) whole: [Option<File>; 2],
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
    let options =
        SpawnOptions { limits: request.limits, worker, shell: true, process_spawning: request.process_spawning, cpu_total_seconds: None, background: false };
    if let Some(out) = &request.out {
        out::check(out)?;
    }
    control.begin();
    let mut sandbox = backend.spawn(template, &options)?;
    let turn = Turn { isolation: backend.name(), number: 1, ..Turn::default() };
    let ran = run_in(sandbox.as_mut(), turn, request, observer, control);
    sandbox.kill();
    let _ = sandbox.wait(KILL_PATIENCE);
    ran.map(|ran| ran.execution)
}

/// Runs in a sandbox.
pub(crate) fn run_in(sandbox: &mut dyn Sandbox, turn: Turn<'_>, request: &RunRequest, observer: &mut dyn Observer, control: &Control) -> Result<Ran, Error> {
    for (name, path) in &request.files {
        upload(sandbox, name, path)?;
    }
    let before = match turn.before {
        Some(before) if request.files.is_empty() => before,
        _ => Before::of(&list(sandbox)?),
    };
    let mut collected = Collected::new(observer, turn.number, turn.whole);
    let (started, clock) = (SystemTime::now(), Instant::now());
    let end = execute(sandbox, request, &mut collected, control)?;
    let elapsed = clock.elapsed();
    // Stopped by ourselves before it was ready, on a machine that has much to do, it was stopped and did not fail.
    if let Some(End::WorkerFailed) = end
        && control.asked() == 0
        && collected.facts.stop.is_none()
    {
        let hint = "build it again: `belljar env remove` and `belljar env build`, or raise the memory limit";
        return Err(Error::new(ErrorKind::Unavailable, format!("the interpreter of environment `{}` does not start", request.environment)).hint(hint));
    }
    let counters = sandbox.usage().counters.unwrap_or_default();
    let moved = |count: fn(Counters) -> u64| count(counters) > count(turn.counted);
    collected.facts.memory_kills = moved(|counters| counters.memory_kills);
    collected.facts.process_refusals = moved(|counters| counters.process_refusals);
    collected.facts.disk_full = sandbox.workspace().space().is_ok_and(|space| space.free_bytes < 4096 || space.free_inodes == 0);
    // The sandbox may be gone, its files with it.
    let mut listing = sandbox.workspace().list().unwrap_or_default();
    // Nothing changes any more while files are looked at and copied out. Freezing takes milliseconds: not where there is nothing new.
    let frozen = !before.news(&listing).0.is_empty() && sandbox.freeze(true);
    if frozen {
        listing = sandbox.workspace().list().unwrap_or_default();
    }
    let (news, _) = before.news(&listing);
    let artifacts = artifacts(sandbox.workspace(), news, &mut collected.outputs, request.out.as_deref(), request.limits.workspace_bytes);
    if frozen {
        let _ = sandbox.freeze(false);
    }
    let worker_ready = collected.facts.worker_ready && !outcome::loses_state(end);
    let (mut execution, whole) = conclude(turn.isolation, turn.ids, request, collected, end)?;
    execution.artifacts = artifacts?;
    execution.started_at = humantime::format_rfc3339_millis(started).to_string();
    execution.execution_time_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Ok(Ran { execution, counters, before: Before::of(&listing), gone: end.is_none(), worker_ready, whole })
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
    remote.send(&ToInit::FileBegin { upload: 0, path: name.as_bytes().to_vec(), mode: 0o644 })?;
    let mut buffer = vec![0; UPLOAD_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed(&error))?;
        if count == 0 {
            break;
        }
        remote.send(&ToInit::FileData { upload: 0, bytes: buffer.get(..count).unwrap_or_default().to_vec() })?;
    }
    remote.send(&ToInit::FileEnd { upload: 0 })?;
    let deadline = Instant::now() + UPLOAD_PATIENCE;
    loop {
        match sandbox.receive(Some(deadline))? {
            Some(FromInit::FileWritten { result, .. }) => return written(&path.display().to_string(), result).map(drop),
            Some(_) => {}
            None => return Err(Error::new(ErrorKind::Internal, format!("the file `{name}` was not taken in time"))),
        }
    }
}

/// Whether an uploaded file took the place of another, or why it is not there.
pub(crate) fn written(name: &str, result: Result<bool, i32>) -> Result<bool, Error> {
    result.map_err(|number| {
        let kind = match number {
            28 | 122 | 12 => {
                let message = format!("the file `{name}` does not fit into the workspace");
                return Error::new(ErrorKind::TooLarge, message)
                    .hint("remove files that are not needed any more, pass less, or raise the limit workspaceBytes");
            }
            24 => ErrorKind::Limit,
            _ => ErrorKind::Conflict,
        };
        let reason = match number {
            20 => "a file stands where a folder has to be".to_owned(),
            21 => "a folder of this name is there".to_owned(),
            18 | 40 => "a link stands in its way".to_owned(),
            13 => "its folder does not let anybody write".to_owned(),
            24 => "too many uploads at once".to_owned(),
            36 => "its name is too long".to_owned(),
            number => std::io::Error::from_raw_os_error(number).to_string(),
        };
        Error::new(kind, format!("the file `{name}` cannot be written in the workspace: {reason}"))
    })
}

/// An execution out of messages alone, for `fuzz/`.
#[cfg(feature = "fuzzing")]
pub(crate) fn collect(request: &RunRequest, messages: Vec<FromInit>, observer: &mut dyn Observer) -> Result<(Execution, usize), Error> {
    let mut collected = Collected::new(observer, 1, None);
    let mut taken = 0;
    for message in messages {
        if collected.too_much(&request.limits) {
            break;
        }
        collected.take(message);
        taken += 1;
    }
    conclude("namespace", None, request, collected, Some(End::Completed)).map(|(execution, _)| (execution, taken))
}

/// Sends the code and listens until it is over, stopping it where a limit says so. `None`: the sandbox itself has ended.
fn execute(sandbox: &mut dyn Sandbox, request: &RunRequest, collected: &mut Collected<'_>, control: &Control) -> Result<Option<End>, Error> {
    let remote = sandbox.remote();
    let work = match request.language {
        Language::Python => Work::Code(python_payload(request).into_bytes()),
        Language::Shell => Work::Shell(request.code.clone()),
    };
    if remote.send(&ToInit::Execute(Execute { execution: collected.number, work })).is_err() {
        return Ok(None);
    }
    control.attach(&remote);
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
            Ok(Received::Message(Some(FromInit::Done { end, execution }))) if execution == collected.number => break Some(end),
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
    control.detach();
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
    if let (true, Some(members)) = (request.fresh, payload.as_object_mut()) {
        members.insert("fresh".to_owned(), json!(true));
    }
    payload.to_string()
}

impl<'a> Collected<'a> {
    /// Nothing yet; `whole` is a folder for all of what is written.
    fn new(observer: &'a mut dyn Observer, number: u64, whole: Option<&Path>) -> Self {
        Self {
            observer,
            number,
            stdout: Kept::with_whole(KEEP_BYTES, whole),
            stderr: Kept::with_whole(KEEP_BYTES, whole),
            outputs: Vec::new(),
            output_bytes: 0,
            frames: 0,
            value: None,
            facts: Facts::default(),
        }
    }

    /// Takes one message. What cannot be read is the code's own doing and is dropped.
    fn take(&mut self, message: FromInit) {
        match message {
            FromInit::Output { execution, .. } | FromInit::Worker { execution, .. } if execution != self.number => {}
            // It died while nothing ran; this one finds another.
            FromInit::WorkerLost(_) => (self.facts.worker_lost, self.facts.worker_ready) = (true, false),
            FromInit::WorkerReady => self.facts.worker_ready = true,
            FromInit::FileWritten { upload, result } => self.observer.uploaded(upload, result),
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
                self.frames = self.frames.saturating_add(1);
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
        written > limits.output_bytes || self.output_bytes > DISPLAY_BYTES || self.outputs.len() > MAX_DISPLAYS || self.frames > MAX_FRAMES
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

/// Describes new and changed files, and copies them and what was shown into the output folder where there is one; files of more than
/// `room` bytes together, or with names that the folder cannot take, are listed, but not copied.
fn artifacts(workspace: &Workspace, news: Vec<&Entry>, outputs: &mut [Output], out: Option<&Path>, room: u64) -> Result<Vec<Artifact>, Error> {
    let mut target = out.map(Out::new);
    let mut artifacts = Vec::new();
    // Sparse files and hard links can claim far more than the workspace holds.
    let mut budget = room;
    for entry in news {
        let Some(left) = budget.checked_sub(entry.size) else {
            artifacts.push(artifact::listed(entry));
            continue;
        };
        let Some(file) = artifact::open(workspace, entry) else { continue };
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
            target.save(output)?;
        }
        let kept_out: Vec<String> = target.finish()?.iter().map(|name| folder.join(name).display().to_string()).collect();
        for artifact in artifacts.iter_mut().filter(|artifact| artifact.url.as_ref().is_some_and(|url| kept_out.contains(url))) {
            artifact.url = None;
        }
    }
    Ok(artifacts)
}

fn conclude(
    isolation: &'static str,
    ids: Option<(&str, &str)>,
    request: &RunRequest,
    collected: Collected<'_>,
    end: Option<End>,
) -> Result<(Execution, [Option<File>; 2]), Error> {
    let conclusion = outcome::conclude(end, &collected.facts);
    let ((stdout, stdout_truncated), (stderr, stderr_truncated)) = (collected.stdout.text(), collected.stderr.text());
    let printed = if stdout.trim().is_empty() || stdout_truncated { None } else { Some(serde_json::from_str::<Json>(&stdout).ok()) };
    let output = printed.unwrap_or_else(|| collected.value.as_ref().map(|value| value.json.clone()).filter(|json| !json.is_null()));
    let (id, session_id) = match ids {
        Some((id, session)) => (id.to_owned(), session.to_owned()),
        None => (new_id("exe")?, new_id("ses")?),
    };
    let execution = Execution {
        id,
        session_id,
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
    };
    Ok((execution, [collected.stdout.into_whole(), collected.stderr.into_whole()]))
}

/// An execution that its caller stopped before it began.
pub(crate) fn never_began(isolation: &'static str, (id, session_id): (&str, &str), limits: Limits) -> Execution {
    let error = ExecutionError { name: "Interrupted".to_owned(), message: "the caller stopped the code before it began".to_owned(), traceback: String::new() };
    Execution {
        id: id.to_owned(),
        session_id: session_id.to_owned(),
        outcome: Outcome::Interrupted,
        stdout: String::new(),
        stderr: String::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        result: None,
        error: Some(error),
        outputs: Vec::new(),
        artifacts: Vec::new(),
        output: None,
        output_schema: None,
        state_lost: false,
        exit_code: None,
        limits_hit: Vec::new(),
        isolation,
        execution_time_ms: 0,
        started_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        limits,
    }
}

/// 128 random bits behind a prefix.
pub(crate) fn new_id(prefix: &str) -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| Error::new(ErrorKind::Internal, "the system gives no random numbers"))?;
    Ok(bytes.iter().fold(format!("{prefix}_"), |id, byte| format!("{id}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Observer for Nobody {
        fn wrote(&mut self, _: Stream, _: &[u8]) {}
        fn showed(&mut self, _: &Output) {}
        fn result(&mut self, _: &Value) {}
    }

    #[test]
    fn frames_that_hold_nothing_are_too_much_too() {
        let mut nobody = Nobody;
        let mut collected = Collected::new(&mut nobody, 1, None);
        let limits = Limits::default();
        let empty = |payload: &[u8]| FromInit::Worker { execution: 1, kind: worker::DISPLAY, payload: payload.to_vec() };
        for _ in 0..MAX_FRAMES / 2 {
            collected.take(empty(b"{}"));
            collected.take(empty(b"no JSON"));
        }
        assert!(!collected.too_much(&limits) && collected.outputs.is_empty());
        collected.take(empty(b""));
        assert!(collected.too_much(&limits));
    }
}
