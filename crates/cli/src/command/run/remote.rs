//! A run in a session of the server that runs already: made for it, and ended after it.

mod collect;
mod stop;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::bail;
use engine::{Error, ErrorKind, Language, Observer, Outcome, Output, RunRequest, Stream, Value};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::stop::Stop;
use super::{Live, Told, tell};
use crate::args;
use crate::client::{self, Event, Server};
use crate::config::{Configuration, Origin};
use crate::exit::{self, usage};
use crate::terminal;

/// What to do where the server does not do it.
const INSTEAD: &str = "run it without the server: `--standalone`";

/// Runs.
pub(super) fn run(server: &Server, arguments: &args::Run, configuration: &Configuration, request: &RunRequest) -> anyhow::Result<ExitCode> {
    engine::out::check(&arguments.out)?;
    let body = body(arguments, configuration, request)?;
    let stop = Stop::listen(server)?;
    let session = Session::create(server, configuration, request).map_err(advised)?;
    stop.ends_with(session.link(""));
    let done = session.execute(&body, arguments, request, &stop).map_err(advised);
    session.end();
    done
}

/// The same error, with the way around the server.
fn advised(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(mut error) => {
            error.hint = Some(error.hint.map_or_else(|| INSTEAD.to_owned(), |hint| format!("{hint}, or {INSTEAD}")));
            error.into()
        }
        Err(error) => error,
    }
}

/// What the server is asked to run.
fn body(arguments: &args::Run, configuration: &Configuration, request: &RunRequest) -> anyhow::Result<Json> {
    let Ok(code) = std::str::from_utf8(&request.code) else {
        return Err(usage("the code is not UTF-8, and the server takes nothing else", INSTEAD));
    };
    let language = match request.language {
        Language::Python => "python",
        Language::Shell => "shell",
    };
    let mut body = json!({"language": language, "code": code, "inputs": request.inputs});
    let given = arguments.timeout.is_some() || configuration.limit_origin("wall_seconds") != Origin::Default;
    if let Some(body) = body.as_object_mut() {
        if given {
            body.insert("timeoutSeconds".to_owned(), json!(request.limits.wall_seconds));
        }
        if let Some(name) = &request.filename {
            body.insert("fileName".to_owned(), json!(name));
        }
    }
    Ok(body)
}

/// A session that was made for this run.
struct Session<'a> {
    server: &'a Server,
    /// Where it is addressed: a path, perhaps with a query.
    url: String,
}

impl<'a> Session<'a> {
    fn create(server: &'a Server, configuration: &Configuration, request: &RunRequest) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Made {
            url: String,
            pool: String,
        }
        let mut limits = configuration.configured_limits();
        // Told with the code: a session's own may not be longer than its pool's, an execution's may.
        limits.remove("wallSeconds");
        if let Some(seconds) = limits.get_mut("cpuSeconds") {
            *seconds = json!(request.limits.cpu_seconds);
        }
        let body = json!({"environment": request.environment, "limits": limits});
        let Made { url, pool } = server.call(Method::POST, "/v1/sessions", Some(&body))?;
        let session = Self { server, url };
        if configuration.process_spawning.origin != Origin::Default
            && let Err(error) = session.check_spawning(&pool, request.process_spawning)
        {
            session.end();
            return Err(error);
        }
        Ok(session)
    }

    /// Whether the pool lets Python start processes exactly where the configuration does.
    fn check_spawning(&self, pool: &str, wanted: bool) -> anyhow::Result<()> {
        let all: Json = self.server.call(Method::GET, "/v1/pools", None)?;
        let mut pools = all.get("pools").and_then(Json::as_array).into_iter().flatten();
        let found = pools.find(|found| found.get("name").and_then(Json::as_str) == Some(pool));
        let allowed = found.and_then(|found| found.get("processSpawning")).and_then(Json::as_bool);
        if allowed == Some(wanted) {
            return Ok(());
        }
        let verb = if wanted { "does not let" } else { "lets" };
        bail!(Error::new(ErrorKind::InvalidRequest, format!("the server's pool `{pool}` {verb} Python start processes, other than `process_spawning` says")))
    }

    /// The address of something below it.
    fn link(&self, below: &str) -> String {
        match self.url.split_once('?') {
            Some((base, query)) => format!("{base}{below}?{query}"),
            None => format!("{}{below}", self.url),
        }
    }

    fn execute(&self, body: &Json, arguments: &args::Run, request: &RunRequest, stop: &Arc<Stop>) -> anyhow::Result<ExitCode> {
        for (name, path) in &request.files {
            if stop.asked() {
                return Ok(ExitCode::from(exit::FAILED));
            }
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            self.server.put(&self.link(&format!("/files/{name}")), super::open(path)?)?;
        }
        if stop.asked() {
            return Ok(ExitCode::from(exit::FAILED));
        }
        let kill = Arc::clone(stop);
        let live = Live::new(arguments, Box::new(move || kill.kill()));
        let mut seen = Seen { session: self, stop, live, stdout: Printed::default(), stderr: Printed::default(), later: Vec::new(), end: None };
        self.follow(body, &mut seen)?;
        let Seen { mut live, end, .. } = seen;
        stop.over();
        let mut execution = end.unwrap_or_else(|| Err(client::broken("the server ended the answer before the execution").into()))?;
        self.collect(&mut execution, &arguments.out)?;
        let outcome = Outcome::deserialize(execution.get("outcome").unwrap_or(&Json::Null))?;
        if arguments.json {
            terminal::json(&execution)?;
        } else if !live.closed {
            let _ = live.stdout.finish().and_then(|()| live.stderr.finish());
            tell(&Told::deserialize(&execution)?, &arguments.out, &mut live);
        }
        Ok(exit::of(outcome))
    }

    /// Reads what happens as it comes, so that the server never waits for our reader, and shows it at that one's pace.
    fn follow(&self, body: &Json, seen: &mut Seen<'_>) -> anyhow::Result<()> {
        let (path, quiet) = (self.link("/executions"), seen.live.quiet);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                self.server.events(&path, body, |event| {
                    if let Some(news) = News::read(event, quiet).transpose() {
                        drop(sender.send(news));
                    }
                })
            });
            for news in receiver {
                seen.take(news?);
            }
            match reading.join() {
                Ok(read) if seen.end.is_none() => read,
                _ => Ok(()),
            }
        })?;
        seen.finish()
    }

    /// Ends it, with everything in it.
    fn end(&self) {
        if let Err(error) = self.server.call::<Json>(Method::DELETE, &self.link(""), None)
            && error.downcast_ref::<Error>().is_none_or(|error| error.kind != ErrorKind::NotFound)
        {
            terminal::note(&format!("belljar: the session was not ended, and will end by itself: {error:#}"));
        }
    }
}

/// How much of a stream has been shown.
#[derive(Debug, Default)]
struct Printed {
    bytes: u64,
    /// It has bytes that are no text, which events do not carry: the rest is fetched as it is when everything is over.
    held: bool,
}

impl Printed {
    /// The part of this text that can be shown now.
    fn now<'t>(&mut self, text: &'t str) -> &'t str {
        if self.held {
            return "";
        }
        let now = text.split(char::REPLACEMENT_CHARACTER).next().unwrap_or_default();
        self.held = now.len() < text.len();
        self.bytes = self.bytes.saturating_add(u64::try_from(now.len()).unwrap_or(u64::MAX));
        now
    }
}

/// What the server tells, on its way to the user.
struct Seen<'a> {
    session: &'a Session<'a>,
    stop: &'a Stop,
    live: Live,
    stdout: Printed,
    stderr: Printed,
    /// Shown on stdout, once the rest of that has been.
    later: Vec<Shown>,
    end: Option<Result<Json, anyhow::Error>>,
}

enum Shown {
    Output(Output),
    Value(Value),
}

/// What the server told.
enum News {
    Started(String),
    Text(Stream, String),
    Shown(Shown),
    End(Result<Json, anyhow::Error>),
}

impl News {
    /// Reads an event; `None` where nothing new stands in it, or nobody wants to see it.
    fn read(event: Event, quiet: bool) -> anyhow::Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Started {
            id: String,
        }
        #[derive(Deserialize)]
        struct Text {
            text: String,
        }
        let text = |stream| anyhow::Ok(Self::Text(stream, serde_json::from_str::<Text>(&event.data)?.text));
        Ok(Some(match event.name.as_str() {
            "started" => Self::Started(serde_json::from_str::<Started>(&event.data)?.id),
            "done" => Self::End(Ok(serde_json::from_str(&event.data)?)),
            "failed" => {
                let body: Json = serde_json::from_str(&event.data)?;
                let error = body.get("error").and_then(client::told);
                Self::End(Err(error.unwrap_or_else(|| client::broken("the server could not run it")).into()))
            }
            _ if quiet => return Ok(None),
            "stdout" => text(Stream::Stdout)?,
            "stderr" => text(Stream::Stderr)?,
            "display" => match serde_json::from_str::<Output>(&event.data)? {
                text if text.media_type == "text/plain" => Self::Shown(Shown::Output(text)),
                _ => return Ok(None),
            },
            "result" => Self::Shown(Shown::Value(serde_json::from_str(&event.data)?)),
            // Everything of these stands in the last one.
            _ => return Ok(None),
        }))
    }
}

impl Seen<'_> {
    fn take(&mut self, news: News) {
        match news {
            News::Started(id) => self.stop.began(self.session.link(&format!("/executions/{id}/interrupt"))),
            News::Text(Stream::Stdout, text) => self.live.wrote(Stream::Stdout, self.stdout.now(&text).as_bytes()),
            News::Text(Stream::Stderr, text) => self.live.wrote(Stream::Stderr, self.stderr.now(&text).as_bytes()),
            News::Shown(shown) => self.show(shown),
            News::End(end) => self.end = Some(end),
        }
    }

    fn show(&mut self, shown: Shown) {
        match shown {
            shown if self.stdout.held => self.later.push(shown),
            Shown::Output(output) => self.live.showed(&output),
            Shown::Value(value) => self.live.result(&value),
        }
    }

    /// Shows what was held back.
    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(Ok(execution)) = &self.end else { return Ok(()) };
        let id = execution.get("id").and_then(Json::as_str).unwrap_or_default().to_owned();
        for (stream, name) in [(Stream::Stdout, "stdout"), (Stream::Stderr, "stderr")] {
            let printed = if stream == Stream::Stdout { &self.stdout } else { &self.stderr };
            if printed.held && !self.live.is_mute() {
                let (path, from) = (self.session.link(&format!("/executions/{id}/{name}")), printed.bytes);
                self.session.server.fetch(&path, from, &mut Rest { live: &mut self.live, stream })?;
            }
        }
        self.stdout.held = false;
        for shown in std::mem::take(&mut self.later) {
            self.show(shown);
        }
        Ok(())
    }
}

/// Writes to the user's own streams.
struct Rest<'a> {
    live: &'a mut Live,
    stream: Stream,
}

impl std::io::Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.live.wrote(self.stream, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Session<'_> {
    /// Fetches artifacts and pictures into the output folder, all or nothing, and says in the execution where they are.
    fn collect(&self, execution: &mut Json, out: &Path) -> anyhow::Result<()> {
        collect::collect(self.server, execution, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_until_something_is_none() {
        let mut printed = Printed::default();
        assert_eq!((printed.now("ü1"), printed.now("")), ("ü1", ""));
        assert_eq!(printed.now("ab\u{fffd}c"), "ab");
        assert_eq!((printed.now("d"), printed.bytes, printed.held), ("", 5, true));
    }

    #[test]
    fn links_keep_the_query() {
        let home = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(home.path().join("server.sock")).unwrap();
        let server = Server::find(home.path()).unwrap().unwrap();
        let link = |url: &str| Session { server: &server, url: url.to_owned() }.link("/files/x");
        assert_eq!((link("/v1/sessions/s").as_str(), link("/v1/sessions/s?pool=p").as_str()), ("/v1/sessions/s/files/x", "/v1/sessions/s/files/x?pool=p"));
    }
}
