//! `belljar run`: each execution a run of its own, in a sandbox of its own or in a session of a server.

use std::ffi::OsString;

use crate::parse::{Execute, Transcript};
use crate::seen::Seen;
use crate::server::Server;
use crate::support::Scene;
use crate::surface::{Refused, Surface};

/// The command line.
pub(crate) struct CommandLine {
    scene: Scene,
    /// Files that are given to every run.
    given: Vec<String>,
    server: Option<Server>,
}

impl CommandLine {
    pub(crate) fn new(server: Option<Server>) -> Self {
        Self { scene: Scene::new(), given: Vec::new(), server }
    }
}

impl Surface for CommandLine {
    fn begin(&mut self, transcript: &Transcript) {
        self.scene = if transcript.limits.is_empty() { Scene::new() } else { Scene::limited(&transcript.limits.join("\n")) };
        self.given.clear();
    }

    fn execute(&mut self, _: &str, execute: &Execute) -> Seen {
        let language = if execute.is_shell { "shell" } else { "python" };
        let mut arguments: Vec<OsString> = ["run", "--json", "--language", language, "-"].map(OsString::from).into();
        match &self.server {
            Some(server) => arguments.extend(["--data".into(), server.data().into()]),
            None => arguments.push("--standalone".into()),
        }
        if let Some(seconds) = execute.timeout {
            arguments.extend(["--timeout".into(), seconds.to_string().into()]);
        }
        for (name, value) in &execute.inputs {
            arguments.extend(["--input".into(), format!("{name}={value}").into()]);
        }
        for name in &self.given {
            arguments.extend(["--file".into(), self.scene.path(name).into()]);
        }
        Seen::of_object(&self.scene.call(arguments, &execute.code).execution().0)
    }

    fn upload(&mut self, _: &str, path: &str, content: &[u8]) -> Result<(), Refused> {
        self.scene.write(path, content);
        self.given.retain(|given| given != path);
        self.given.push(path.to_owned());
        Ok(())
    }

    fn download(&mut self, _: &str, path: &str) -> Result<Vec<u8>, Refused> {
        std::fs::read(self.scene.path("belljar-out").join(path)).map_err(|_| Refused("not_found".to_owned()))
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, Refused> {
        panic!("transcripts that list files need sessions")
    }

    fn delete(&mut self, _: &str, _: &str) -> Result<(), Refused> {
        panic!("transcripts that delete files need sessions")
    }

    fn end(&mut self, _: &str) -> Result<(), Refused> {
        panic!("transcripts that end sessions need some")
    }
}
