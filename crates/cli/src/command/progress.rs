//! Shows the build of an environment on stderr: a spinner on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use engine::environment::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// An event in words, for who sees no screen.
pub(crate) fn words(event: &Progress<'_>) -> Option<String> {
    match event {
        Progress::Waiting { name } => Some(format!("waiting for another build of `{name}`")),
        Progress::Started(step) => Some(step.to_string()),
        Progress::Downloading { package, size } => Some(format!("downloading {package} ({size})")),
        _ => None,
    }
}

/// What is on the screen.
pub(crate) struct Shown {
    bar: Option<ProgressBar>,
    terminal: bool,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self { bar: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, event: Progress<'_>) {
        match event {
            Progress::Waiting { .. } | Progress::Started(_) => self.line(&words(&event).unwrap_or_default()),
            Progress::Downloading { .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(words(&event).unwrap_or_default());
                }
            }
            Progress::Finished(step, time) => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                if time >= Duration::from_millis(100) {
                    terminal::note(&format!("{step}: {:.1} s", time.as_secs_f64()));
                }
            }
            _ => {}
        }
    }

    fn line(&mut self, text: &str) {
        if !self.terminal {
            return;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bar = Some(bar);
    }
}
