//! Sessions: what stays from one execution to the next, what each end of an execution leaves of it, and who gets which.
//!
//! `BELLJAR_TEST_DATA` names the folder with the environment `core`, which is built there when it is missing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test stops where its assumption ends")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use engine::environment::{Host, Progress};
use engine::record::{Concluded, Intent, Note, RecordError, Recorder};
use engine::session::{Caller, Create, ExecuteRequest, Finished, LimitsRequest, Progressed, Session, SessionPoolSettings, Sessions, parse_path};
use engine::{Controls, Engine, ErrorKind, Imports, Language, Observer, Outcome, Output, PoolSettings, Settings, Stream, Value};
use serde_json::Map;

/// Keeps what is recorded, and fails when told to.
#[derive(Default)]
struct Memory {
    lines: Mutex<Vec<String>>,
    broken: std::sync::atomic::AtomicBool,
}

impl Memory {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Recorder for Memory {
    fn intend(&self, intent: &Intent) -> Result<(), RecordError> {
        if self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(RecordError("the disk is full".to_owned()));
        }
        self.lines.lock().unwrap().push(format!("intend {} {} {}", intent.principal, intent.session, intent.code_bytes));
        Ok(())
    }

    fn conclude(&self, concluded: &Concluded) {
        self.lines.lock().unwrap().push(format!("conclude {:?}", concluded.outcome));
    }

    fn note(&self, note: &Note) {
        self.lines.lock().unwrap().push(format!("{} {} {}", note.kind, note.session, note.detail));
    }
}

struct Scene {
    sessions: Arc<Sessions>,
    record: Arc<Memory>,
    runtime: tokio::runtime::Runtime,
    _engine: Engine,
    _turn: MutexGuard<'static, ()>,
}

fn settings() -> SessionPoolSettings {
    let imports = Imports::Modules { modules: Vec::new(), warm_up: String::new() };
    SessionPoolSettings {
        name: "default".to_owned(),
        environment: "core".to_owned(),
        sandboxes: PoolSettings { ready: 1, imports, ..PoolSettings::default() },
        max_sessions: 8,
        idle_timeout: Duration::from_secs(300),
        max_lifetime: Duration::from_secs(3600),
        allocation_wait: Duration::from_millis(300),
        create_on_use: true,
        region: None,
    }
}

fn scene(pools: Vec<SessionPoolSettings>) -> Scene {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = std::env::var_os("BELLJAR_TEST_DATA").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("data"), PathBuf::from);
    let engine = Engine::new(Settings { data, host: Host::new(std::env::vars_os()), controls: Controls::default() });
    let record = Arc::new(Memory::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let recorder = Arc::clone(&record) as Arc<dyn Recorder>;
    let sessions = {
        let _entered = runtime.enter();
        Sessions::start(&engine, pools, recorder, &mut |step: Progress<'_>| eprintln!("{step:?}")).expect("sessions")
    };
    Scene { sessions, record, runtime, _engine: engine, _turn: turn }
}

fn caller(principal: &str) -> Caller {
    Caller { principal: principal.into(), max_sessions: None, max_executions: None }
}

fn python(code: &str) -> ExecuteRequest {
    ExecuteRequest { language: Language::Python, code: code.into(), filename: None, inputs: Map::new(), fresh: false, timeout: None, surface: "test" }
}

fn shell(code: &str) -> ExecuteRequest {
    ExecuteRequest { language: Language::Shell, ..python(code) }
}

fn seconds(request: ExecuteRequest, seconds: u64) -> ExecuteRequest {
    ExecuteRequest { timeout: Some(Duration::from_secs(seconds)), ..request }
}

impl Scene {
    fn open(&self, id: &str) -> Arc<Session> {
        self.open_with(id, &LimitsRequest::default())
    }

    fn open_with(&self, id: &str, limits: &LimitsRequest) -> Arc<Session> {
        self.runtime.block_on(self.sessions.open(&caller("a"), "default", Some(id), Create::IfMissing, limits)).expect("a session").session
    }

    fn run(&self, session: &Arc<Session>, request: ExecuteRequest) -> Arc<Finished> {
        self.runtime.block_on(async { session.start(&caller("a"), request, None).expect("started").finished().await.expect("finished") })
    }

    fn text(&self, session: &Arc<Session>, code: &str) -> String {
        let finished = self.run(session, python(code));
        assert_eq!(finished.execution.outcome, Outcome::Completed, "{:?}", finished.execution);
        finished.execution.stdout.clone()
    }

    fn put(&self, session: &Arc<Session>, path: &str, content: &[u8]) -> bool {
        self.runtime.block_on(async {
            let mut upload = session.upload(&parse_path(path.as_bytes()).unwrap(), None).await.expect("begun");
            upload.write(content).await.expect("written");
            upload.finish().await.expect("finished").replaced
        })
    }

    fn get(&self, session: &Arc<Session>, path: &str) -> Vec<u8> {
        let (mut file, _) = self.runtime.block_on(session.open_file(Path::new(path))).expect("a file");
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        content
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.runtime.block_on(self.sessions.shutdown(Duration::ZERO));
    }
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn variables_files_and_the_working_folder_stay_and_nothing_crosses_sessions() {
    let scene = scene(vec![settings()]);
    let (one, two) = (scene.open("session-one"), scene.open("session-two"));
    scene.text(&one, "import os, math\nx = 41\nopen('kept.txt', 'w').write('hello')\nos.mkdir('sub'); os.chdir('sub')");
    assert_eq!(scene.text(&one, "print(x + 1, os.getcwd(), math.pi > 3)"), "42 /mnt/data/sub True\n");
    assert_eq!(scene.run(&one, shell("cat kept.txt")).execution.stdout, "hello");
    assert_eq!(scene.text(&two, "print('x' in globals(), __import__('os').listdir('/mnt/data'))"), "False []\n");
    assert!(Arc::ptr_eq(&one, &scene.open("session-one")), "an id leads to the same session");
    let stranger = scene.runtime.block_on(scene.sessions.open(&caller("b"), "default", Some("session-one"), Create::IfMissing, &LimitsRequest::default()));
    let stranger = stranger.unwrap().session;
    assert_eq!(scene.text(&stranger, "print('x' in globals())"), "False\n", "an id of somebody else is another session");
    assert_eq!(scene.sessions.list(&caller("b"), None).len(), 1);
    assert_eq!(
        scene.sessions.find(&caller("c"), None, "session-one").unwrap_err().message,
        scene.sessions.find(&caller("c"), None, "session-0ne").unwrap_err().message.replace("0ne", "one")
    );
    let artifacts = scene.run(&one, python("open('new.csv', 'w').write('1')\nopen('/mnt/data/kept.txt', 'a').write('!')")).execution.artifacts.clone();
    assert_eq!(artifacts.iter().map(|artifact| artifact.path.as_str()).collect::<Vec<_>>(), ["kept.txt", "sub/new.csv"]);
    assert!(scene.run(&one, python("1")).execution.artifacts.is_empty(), "what was told is no news");
}

#[test]
fn a_search_is_on_record_once_however_many_files_there_are() {
    let scene = scene(vec![settings()]);
    let session = scene.open("searched");
    scene.text(&session, "for number in range(50): open(str(number), 'w').write('x')");
    scene.runtime.block_on(async {
        session.begin_search(Path::new("")).await.unwrap();
        for number in 0..50 {
            session.open_searched(Path::new(&number.to_string())).await.unwrap();
        }
        session.open_file(Path::new("7")).await.unwrap();
    });
    let read: Vec<String> = scene.record.lines().into_iter().filter(|line| line.starts_with("file_read")).collect();
    assert_eq!(read, ["file_read searched **", "file_read searched 7"]);
}

#[test]
fn executions_of_a_session_keep_their_order_and_sessions_run_side_by_side() {
    let scene = scene(vec![settings()]);
    let (one, two) = (scene.open("ordered-1"), scene.open("ordered-2"));
    scene.text(&one, "seen = []");
    let finished: Vec<_> = scene.runtime.block_on(async {
        let started: Vec<_> = (0..20).map(|number| one.start(&caller("a"), python(&format!("seen.append({number})")), None).unwrap()).collect();
        let mut all = Vec::new();
        for one in started {
            all.push(one.finished().await.unwrap());
        }
        all
    });
    assert!(finished.iter().all(|finished| finished.execution.outcome == Outcome::Completed));
    assert_eq!(scene.text(&one, "print(seen == list(range(20)))"), "True\n");
    let both = Instant::now();
    scene.runtime.block_on(async {
        let waits = [&one, &two].map(|session| session.start(&caller("a"), python("import time; time.sleep(1)"), None).unwrap());
        for wait in waits {
            wait.finished().await.unwrap();
        }
    });
    assert!(both.elapsed() < Duration::from_millis(1900), "two sessions wait at the same time");
    let refused = scene.runtime.block_on(async {
        let held = one.start(&caller("a"), python("import time; time.sleep(1)"), None).unwrap();
        let refused = (0..60).filter_map(|_| one.start(&caller("a"), python("1"), None).err()).next_back();
        held.finished().await.unwrap();
        refused
    });
    assert_eq!(refused.map(|error| (error.kind, error.retry_after.is_some())), Some((ErrorKind::Limit, true)));
}

#[test]
fn an_interrupt_keeps_the_state_and_one_that_waits_never_begins() {
    let scene = scene(vec![settings()]);
    let session = scene.open("interrupted");
    scene.text(&session, "x = 1");
    let (running, waiting) = scene.runtime.block_on(async {
        let running = session.start(&caller("a"), python("print('begun', flush=True)\nwhile True: pass"), None).unwrap();
        let waiting = session.start(&caller("a"), python("x = 2"), None).unwrap();
        session.interrupt(&waiting.id).unwrap();
        while !matches!(session.execution(&running.id).unwrap().progress, Progressed::Running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        session.interrupt(&running.id).unwrap();
        (running.finished().await.unwrap(), waiting.finished().await.unwrap())
    });
    assert_eq!((running.execution.outcome, running.execution.state_lost), (Outcome::Interrupted, false));
    assert_eq!(waiting.execution.outcome, Outcome::Interrupted);
    assert_eq!(scene.text(&session, "print(x)"), "1\n");
    session.interrupt(&running.execution.id).unwrap();
    assert_eq!(session.interrupt("exe_0").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(scene.text(&session, "print(x)"), "1\n", "an interrupt that comes late changes nothing");
}

#[test]
fn every_end_is_told_and_the_session_goes_on_where_it_can() {
    let scene = scene(vec![settings()]);
    let session = scene.open("ends");
    scene.text(&session, "x = 5");
    let timed_out = scene.run(&session, seconds(python("import time\nwhile True: time.sleep(0.1)"), 1));
    assert_eq!((timed_out.execution.outcome, timed_out.execution.state_lost), (Outcome::TimedOut, false));
    assert_eq!(scene.text(&session, "print(x)"), "5\n");
    let crashed = scene.run(&session, python("import os; os.abort()"));
    assert_eq!((crashed.execution.outcome, crashed.execution.state_lost), (Outcome::Killed, true));
    let after = scene.run(&session, python("print('x' in globals())"));
    assert_eq!((after.execution.stdout.as_str(), after.execution.state_lost), ("False\n", false));
    let raised = scene.run(&session, python("y = 1\n1/0"));
    assert_eq!(raised.execution.error.as_ref().unwrap().name, "ZeroDivisionError");
    let bomb = scene.run(&session, seconds(shell(":(){ :|:& };:; wait"), 5));
    assert!(matches!(bomb.execution.outcome, Outcome::ProcessLimit | Outcome::TimedOut | Outcome::Completed), "{:?}", bomb.execution);
    let full = scene.run(&session, python("open('big', 'wb').write(b'x' * (300 << 20))"));
    assert_eq!((full.execution.outcome, full.execution.state_lost), (Outcome::DiskLimit, false));
    assert_eq!(scene.text(&session, "import os; os.remove('big'); print(y)"), "1\n");
    let memory = scene.run(&session, python("z = bytearray(2 << 30)"));
    assert_eq!(memory.execution.outcome, Outcome::MemoryLimit, "{:?}", memory.execution);
    assert_eq!(scene.text(&session, "print('again')"), "again\n");
    let lost = scene.run(&session, python("import os, threading\nw = 1\nthreading.Timer(0.1, os._exit, (3,)).start()"));
    assert_eq!(lost.execution.outcome, Outcome::Completed);
    std::thread::sleep(Duration::from_millis(500));
    let told = scene.run(&session, python("print('w' in globals())"));
    assert_eq!((told.execution.stdout.as_str(), told.execution.state_lost), ("False\n", true), "a loss between two executions is told by the next");
    let begun = Instant::now();
    assert_eq!(scene.text(&session, "print(1)"), "1\n");
    assert!(begun.elapsed() < Duration::from_secs(15), "nobody waits for an interpreter that is there already");
}

#[test]
fn time_on_the_processor_is_counted_for_each_execution_alone() {
    let scene = scene(vec![settings()]);
    let session = scene.open_with("cpu-time", &LimitsRequest { cpu_seconds: Some(2), ..LimitsRequest::default() });
    let busy = "import time\nend = time.process_time() + 1.3\nwhile time.process_time() < end: pass\nprint('done')";
    for _ in 0..6 {
        assert_eq!(scene.text(&session, busy), "done\n");
    }
    let over = scene.run(&session, seconds(python("while True: pass"), 60));
    assert_eq!((over.execution.outcome, over.execution.limits_hit.as_slice()), (Outcome::TimedOut, ["cpuSeconds"].as_slice()));
}

#[test]
fn what_ends_with_the_session_is_told() {
    let scene = scene(vec![settings()]);
    let session = scene.open("ended-here");
    let (running, waiting) = scene.runtime.block_on(async {
        let running = session.start(&caller("a"), python("import time; time.sleep(60)"), None).unwrap();
        let waiting = session.start(&caller("a"), python("1"), None).unwrap();
        while !matches!(session.execution(&running.id).unwrap().progress, Progressed::Running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        scene.sessions.close(&session).await;
        (running.finished().await, waiting.finished().await)
    });
    let running = running.unwrap();
    assert_eq!((running.execution.outcome, running.execution.state_lost), (Outcome::Killed, true));
    assert!(running.execution.error.as_ref().unwrap().message.contains("its caller ended it"), "{:?}", running.execution.error);
    assert_eq!(waiting.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(session.start(&caller("a"), python("1"), None).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(scene.sessions.find(&caller("a"), None, "ended-here").unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(scene.runtime.block_on(session.files(Path::new(""), false)).unwrap_err().kind, ErrorKind::NotFound);
    let again = scene.open("ended-here");
    assert!(again.info().guid != session.info().guid);
    // Signal 9 to everything: init is out of reach, and the session goes on.
    let swept = scene.run(&again, shell("kill -9 -1; echo still"));
    assert!(swept.execution.outcome != Outcome::Interrupted);
    assert_eq!(scene.text(&again, "print('alive')"), "alive\n");
}

#[test]
fn uploads_appear_whole_whatever_runs_meanwhile() {
    let scene = scene(vec![settings()]);
    let session = scene.open("uploads");
    assert!(!scene.put(&session, "in/a.txt", b"one"));
    assert!(scene.put(&session, "/mnt/data/in/a.txt", b"two"));
    assert_eq!((scene.get(&session, "in/a.txt"), scene.text(&session, "print(open('in/a.txt').read())")), (b"two".to_vec(), "two\n".to_owned()));
    let large = vec![7_u8; 5 << 20];
    let seen = scene.runtime.block_on(async {
        let code = "import os, time\nwhile not os.path.exists('late.bin'): time.sleep(0.01)\nprint(os.path.getsize('late.bin'), os.stat('late.bin').st_uid)";
        let running = session.start(&caller("a"), python(code), None).unwrap();
        let mut upload = session.upload(Path::new("late.bin"), Some(5 << 20)).await.unwrap();
        upload.write(&large).await.unwrap();
        assert!(!upload.finish().await.unwrap().replaced);
        running.finished().await.unwrap()
    });
    assert_eq!((seen.execution.outcome, seen.execution.stdout.as_str()), (Outcome::Completed, "5242880 1000\n"));
    assert!(scene.run(&session, python("1")).execution.artifacts.is_empty(), "what the caller wrote is no artifact");
    scene.runtime.block_on(async {
        let mut dropped = session.upload(Path::new("dropped"), None).await.unwrap();
        dropped.write(&large).await.unwrap();
        drop(dropped);
        assert_eq!(session.upload(Path::new("too-large"), Some(1 << 40)).await.err().unwrap().kind, ErrorKind::TooLarge);
        let mut filling = session.upload(Path::new("filling"), None).await.unwrap();
        let mut failed = None;
        for _ in 0..100 {
            failed = filling.write(&large).await.err();
            if failed.is_some() {
                break;
            }
        }
        assert_eq!(failed.unwrap().kind, ErrorKind::TooLarge);
        drop(filling);
        // What there was of it goes soon after.
        while session.upload(Path::new("probe"), Some(100 << 20)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut blocked = session.upload(Path::new("in"), None).await.unwrap();
        blocked.write(b"x").await.unwrap();
        assert_eq!(blocked.finish().await.unwrap_err().kind, ErrorKind::Conflict, "a folder is not replaced by a file");
    });
    let names = |session: &Arc<Session>| {
        let files = scene.runtime.block_on(session.files(Path::new(""), true)).unwrap();
        files.entries.iter().map(|entry| entry.path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&session), ["in", "in/a.txt", "late.bin"]);
    scene.runtime.block_on(session.remove(Path::new("in"))).unwrap();
    assert_eq!(scene.runtime.block_on(session.remove(Path::new("in"))).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(names(&session), ["late.bin"]);
    scene.text(&session, "import os\nos.symlink('/etc/passwd', 'link'); os.mkfifo('pipe')");
    for (name, kind) in [("link", ErrorKind::Conflict), ("pipe", ErrorKind::Conflict), ("missing", ErrorKind::NotFound)] {
        assert_eq!(scene.runtime.block_on(session.open_file(Path::new(name))).unwrap_err().kind, kind, "{name}");
    }
}

#[test]
fn places_are_bounded_and_free_again() {
    let scene = scene(vec![SessionPoolSettings { max_sessions: 2, ..settings() }]);
    let (one, _two) = (scene.open("place-1"), scene.open("place-2"));
    let open = |who: &Caller, id: &str, create| scene.runtime.block_on(scene.sessions.open(who, "default", Some(id), create, &LimitsRequest::default()));
    let clock = Instant::now();
    let refused = open(&caller("a"), "place-3", Create::IfMissing).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (ErrorKind::Limit, true));
    assert!(clock.elapsed() >= Duration::from_millis(300), "a place may get free meanwhile");
    assert_eq!(open(&caller("a"), "place-1", Create::New).unwrap_err().kind, ErrorKind::Conflict);
    scene.runtime.block_on(scene.sessions.close(&one));
    assert!(open(&caller("a"), "place-3", Create::New).unwrap().created);
    let poor = Caller { max_sessions: Some(1), ..caller("b") };
    assert_eq!(open(&poor, "place-4", Create::New).unwrap_err().kind, ErrorKind::Limit);
    assert_eq!(
        scene.runtime.block_on(scene.sessions.open(&caller("a"), "other", None, Create::New, &LimitsRequest::default())).unwrap_err().kind,
        ErrorKind::NotFound
    );
    let closed = SessionPoolSettings { create_on_use: false, ..settings() };
    drop(scene);
    let scene = self::scene(vec![closed]);
    let refused = scene.runtime.block_on(scene.sessions.open(&caller("a"), "default", Some("unknown"), Create::IfMissing, &LimitsRequest::default()));
    assert_eq!(refused.unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn callers_of_one_id_at_the_same_time_get_one_session() {
    let scene = scene(vec![settings()]);
    let guids: std::collections::HashSet<String> = scene.runtime.block_on(async {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let sessions = Arc::clone(&scene.sessions);
                tokio::spawn(async move { sessions.open(&caller("a"), "default", Some("same-id"), Create::IfMissing, &LimitsRequest::default()).await })
            })
            .collect();
        let mut guids = std::collections::HashSet::new();
        for task in tasks {
            guids.insert(task.await.unwrap().unwrap().session.info().guid);
        }
        guids
    });
    assert_eq!(guids.len(), 1);
}

#[test]
fn nobody_called_and_too_old() {
    let scene = scene(vec![
        SessionPoolSettings { idle_timeout: Duration::from_secs(1), ..settings() },
        SessionPoolSettings { name: "short".to_owned(), max_lifetime: Duration::from_secs(2), ..settings() },
    ]);
    let idle = scene.open("idle-one");
    // Running is not idle, however long.
    assert_eq!(scene.text(&idle, "import time; time.sleep(1.5); print(1)"), "1\n");
    assert!(eventually(|| scene.sessions.list(&caller("a"), None).is_empty()), "an idle session ends");
    let old = scene.runtime.block_on(scene.sessions.open(&caller("a"), "short", None, Create::New, &LimitsRequest::default())).unwrap().session;
    let finished = scene.run(&old, python("import time; time.sleep(60)"));
    assert_eq!(finished.execution.outcome, Outcome::Killed, "age ends it whatever it does");
    assert!(scene.record.lines().iter().any(|line| line.starts_with("session_ended") && line.contains("age")), "{:?}", scene.record.lines());
}

#[test]
fn nothing_runs_that_is_not_on_record() {
    let scene = scene(vec![settings()]);
    let session = scene.open("recorded");
    scene.text(&session, "x = 1");
    scene.record.broken.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = scene.runtime.block_on(async { session.start(&caller("a"), python("x = 2"), None).unwrap().finished().await });
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unavailable);
    scene.record.broken.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scene.text(&session, "print(x)"), "1\n");
    // An end is put on record when it has been told.
    assert!(eventually(|| scene.record.lines().len() == 5));
    let lines = scene.record.lines();
    let expected = ["session_created recorded ", "intend a recorded 5", "conclude Some(Completed)", "intend a recorded 8", "conclude Some(Completed)"];
    assert_eq!(lines, expected);
}

#[test]
fn long_output_is_cut_and_there_in_full() {
    let scene = scene(vec![settings()]);
    let session = scene.open("long-output");
    let finished = scene.run(&session, python("for n in range(300_000): print(n)"));
    assert!(finished.execution.stdout_truncated && finished.execution.stdout.len() < (1 << 20) + 100);
    let mut whole = String::new();
    session.written(&finished.execution.id, Stream::Stdout).unwrap().read_to_string(&mut whole).unwrap();
    assert_eq!(whole, (0..300_000).map(|n| format!("{n}\n")).collect::<String>());
    let short = scene.run(&session, python("print('short')"));
    let mut whole = String::new();
    session.written(&short.execution.id, Stream::Stdout).unwrap().read_to_string(&mut whole).unwrap();
    assert_eq!(whole, "short\n");
}

#[test]
fn bad_requests_are_refused_by_name() {
    let scene = scene(vec![settings()]);
    let session = scene.open("bad-input");
    let _entered = scene.runtime.enter();
    let start = |request| session.start(&caller("a"), request, None).unwrap_err();
    assert!(start(python(" \n")).message.contains("empty"));
    assert!(start(python("a\0b")).message.contains("NUL"));
    assert_eq!(start(ExecuteRequest { code: vec![b'#'; (1 << 20) + 1], ..python("") }).kind, ErrorKind::TooLarge);
    assert!(start(ExecuteRequest { code: b"\xff".to_vec(), ..python("") }).message.contains("UTF-8"));
    for timeout in [0, 901] {
        assert!(start(seconds(python("1"), timeout)).message.contains("out of range"));
    }
    let too_much = LimitsRequest { memory_bytes: Some(u64::MAX), ..LimitsRequest::default() };
    let refused = scene.runtime.block_on(scene.sessions.open(&caller("a"), "default", None, Create::New, &too_much)).unwrap_err();
    assert!(refused.message.contains("memoryBytes"), "{refused}");
}

#[test]
fn outputs_come_as_they_are_made_and_the_end_gives_a_grace() {
    struct Told(std::sync::mpsc::Sender<(SystemTime, Vec<u8>)>);
    impl Observer for Told {
        fn wrote(&mut self, _: Stream, bytes: &[u8]) {
            let _ = self.0.send((SystemTime::now(), bytes.to_vec()));
        }
        fn showed(&mut self, _: &Output) {}
        fn result(&mut self, _: &Value) {}
    }
    let scene = scene(vec![settings()]);
    let session = scene.open("streamed");
    let (sender, heard) = std::sync::mpsc::channel();
    let started = {
        let _entered = scene.runtime.enter();
        session.start(&caller("a"), python("import time\nprint(1, flush=True)\ntime.sleep(1)\nprint(2)"), Some(Box::new(Told(sender)))).unwrap()
    };
    assert_eq!(heard.recv_timeout(Duration::from_secs(20)).unwrap().1, b"1\n");
    let sessions = Arc::clone(&scene.sessions);
    let ended = scene.runtime.spawn(async move { sessions.shutdown(Duration::from_secs(10)).await });
    let finished = scene.runtime.block_on(started.finished()).unwrap();
    assert_eq!((finished.execution.outcome, finished.execution.stdout.as_str()), (Outcome::Completed, "1\n2\n"), "what runs may end");
    scene.runtime.block_on(ended).unwrap();
    let late = scene.runtime.block_on(scene.sessions.open(&caller("a"), "default", None, Create::New, &LimitsRequest::default()));
    assert_eq!(late.unwrap_err().kind, ErrorKind::Unavailable);
}
