//! The code that sandboxes are given while they are soaked.

use engine::{Execution, Language, Limits, Outcome, RunRequest};
use serde_json::Map;

/// A piece of code, and what has to come of it where nobody disturbs it.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    pub(crate) code: &'static str,
    /// Outcomes that are right; none: any.
    outcomes: &'static [Outcome],
    /// What has to stand on stdout.
    stdout: Option<&'static str>,
    /// What it may write before it is ended; 0: as usual.
    output_bytes: u64,
    /// How long it may take.
    wall_seconds: u64,
}

const PLAIN: Program =
    Program { name: "print", language: Language::Python, code: "print(1)", outcomes: &[Outcome::Completed], stdout: None, output_bytes: 0, wall_seconds: 40 };
/// What goes on until somebody ends it: within a few seconds, or the interrupt was lost.
const INTERRUPTED: Program = Program { outcomes: &[Outcome::Interrupted, Outcome::Killed], wall_seconds: 12, ..PLAIN };
const SHELL: Program = Program { language: Language::Shell, ..PLAIN };

/// Programs that end by themselves, with their weights.
pub(crate) const PROGRAMS: &[(u64, Program)] = &[
    (8, Program { stdout: Some("1\n"), ..PLAIN }),
    (
        4,
        Program {
            name: "groupby",
            code: "import pandas as pd\nframe = pd.DataFrame({'k': ['a', 'b'] * 500, 'v': range(1000)})\nprint(frame.groupby('k').v.sum()['b'])",
            stdout: Some("250000\n"),
            ..PLAIN
        },
    ),
    (2, Program { name: "raise", code: "1 / 0", outcomes: &[Outcome::Raised], ..PLAIN }),
    (
        4,
        Program {
            name: "shell with background children",
            code: "sleep 1000 & (setsid sleep 1000 &) ; (sleep 1000 & sleep 1000 &) & trap '' TERM HUP; echo started",
            stdout: Some("started\n"),
            ..SHELL
        },
    ),
    (2, Program { name: "shell with many processes", code: "for i in $(seq 60); do sleep 1000 & done 2>/dev/null; echo $i", outcomes: &[], ..SHELL }),
    (2, Program { name: "shell from Python", code: "!sleep 1000 & echo started", outcomes: &[], ..PLAIN }),
    (2, Program { name: "exit of the worker", code: "import os; os._exit(3)", outcomes: &[Outcome::Killed], ..PLAIN }),
    (2, Program { name: "segmentation fault", code: "import os; os.kill(os.getpid(), 11)", outcomes: &[Outcome::Killed], ..PLAIN }),
    (2, Program { name: "abort", code: "import os; os.abort()", outcomes: &[Outcome::Killed], ..PLAIN }),
    (
        2,
        Program {
            name: "large files",
            code: "for place in ('/mnt/data', '/tmp', '/dev/shm'):\n    with open(place + '/large', 'wb') as file:\n        file.write(bytes(12 << 20))\nprint(3)",
            stdout: Some("3\n"),
            ..PLAIN
        },
    ),
    (
        2,
        Program {
            name: "a full workspace",
            code: "try:\n    with open('full', 'wb') as file:\n        while True: file.write(bytes(1 << 20))\nexcept OSError as error:\n    print(error.errno)",
            outcomes: &[Outcome::Completed, Outcome::DiskLimit, Outcome::MemoryLimit],
            ..PLAIN
        },
    ),
    (
        2,
        Program {
            name: "many files",
            code: "import os\nfor number in range(40):\n    os.makedirs(f'a{number}/b/c')\n    open(f'a{number}/b/c/d', 'w').write('x')\nprint(40)",
            stdout: Some("40\n"),
            ..PLAIN
        },
    ),
    (1, Program { name: "too much memory", code: "data = b'x' * (1 << 30)", outcomes: &[Outcome::MemoryLimit, Outcome::Raised], ..PLAIN }),
    (1, Program { name: "too much output", code: "while True: print('x' * 1000)", outcomes: &[Outcome::OutputLimit], output_bytes: 200_000, ..PLAIN }),
];

/// Programs that go on until somebody ends them. None leaves a file to be closed by its finalizer: Python drops what is raised there.
pub(crate) const ENDLESS: &[(u64, Program)] = &[
    (3, Program { name: "endless sleep", code: "import time\ntime.sleep(1000)", ..INTERRUPTED }),
    (2, Program { name: "endless loop", code: "while True: pass", ..INTERRUPTED }),
    (2, Program { name: "endless shell", code: "sleep 1000 & sleep 1000", language: Language::Shell, ..INTERRUPTED }),
    (1, Program { name: "endless output", code: "import time\nwhile True: print('x', flush=True); time.sleep(0.001)", ..INTERRUPTED }),
    (
        1,
        Program {
            name: "endless files",
            code: "import time\nfor number in range(10 ** 9):\n    with open(str(number % 50), 'w') as file: file.write('x' * 5000)\n    time.sleep(0.001)",
            ..INTERRUPTED
        },
    ),
];

impl Program {
    /// The request for it.
    pub(crate) fn request(&self) -> RunRequest {
        let usual = Limits::default();
        let output_bytes = if self.output_bytes == 0 { usual.output_bytes } else { self.output_bytes };
        RunRequest {
            language: self.language,
            code: self.code.as_bytes().to_vec(),
            filename: None,
            inputs: Map::new(),
            files: Vec::new(),
            limits: Limits { wall_seconds: self.wall_seconds, output_bytes, ..usual },
            environment: "core".to_owned(),
            fresh: false,
            process_spawning: false,
            out: None,
        }
    }

    /// Whether this can have come of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&self, execution: &Execution) -> anyhow::Result<()> {
        let right = self.outcomes.is_empty() || self.outcomes.contains(&execution.outcome);
        let told = self.stdout.is_none_or(|stdout| execution.stdout == stdout);
        let short = |text: &str| text.chars().take(200).collect::<String>();
        let error = execution.error.as_ref().map(|error| format!("{}: {}", error.name, short(&error.message)));
        let say = || format!("{}, error {error:?}, stdout {:?}, stderr {:?}", execution.outcome, short(&execution.stdout), short(&execution.stderr));
        anyhow::ensure!(right && told, "`{}` came to: {}", self.name, say());
        Ok(())
    }
}
