//! The code that is run, inside and outside alike.

/// The least there is to see.
pub(super) const PRINT: &str = "print(1)\n";

/// What [`GROUPBY`] prints begins so.
pub(super) const GROUPBY_BEGINS: &str = "k\n0    ";

/// A small table, as an agent would ask for it.
pub(super) const GROUPBY: &str = "\
import pandas as pd
df = pd.DataFrame({'k': [i % 7 for i in range(1000)], 'v': [i * 0.5 for i in range(1000)]})
print(df.groupby('k').v.sum())
";

/// Tells when it ran, by the clock that the host has too.
pub(super) const CLOCK: &str = "import time; print(time.time_ns())\n";

/// Work that tells how many seconds it took at best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Loop,
    Matmul,
    Groupby,
    Files,
}

impl Work {
    pub(super) const ALL: [Self; 4] = [Self::Loop, Self::Matmul, Self::Groupby, Self::Files];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Loop => "Loop",
            Self::Matmul => "Matmul",
            Self::Groupby => "Groupby",
            Self::Files => "Files",
        }
    }

    /// The code: does it `repeats` times and prints the best; files go below `folder`.
    pub(super) fn code(self, repeats: u32, folder: &str) -> String {
        let (prepare, work) = match self {
            Self::Loop => ("", "    total = 0\n    for i in range(1_000_000):\n        total += i & 7\n"),
            Self::Matmul => ("import numpy\na = numpy.random.default_rng(1).random((600, 600))\n", "    a @ a\n"),
            Self::Groupby => (
                "import numpy, pandas\nr = numpy.random.default_rng(1)\n\
                 df = pandas.DataFrame({'k': r.integers(0, 1000, 1_000_000), 'v': r.random(1_000_000)})\n",
                "    df.groupby('k').v.sum()\n",
            ),
            Self::Files => (
                "import os, tempfile\nplace = tempfile.TemporaryDirectory(dir=FOLDER)\nnames = [os.path.join(place.name, str(i)) for i in range(500)]\n",
                "    for name in names:\n        with open(name, 'wb') as file:\n            file.write(b'x' * 1000)\n    \
                 for name in names:\n        with open(name, 'rb') as file:\n            file.read()\n    \
                 for name in names:\n        os.unlink(name)\n",
            ),
        };
        let end = if self == Self::Files { "place.cleanup()\n" } else { "" };
        format!(
            "import time\nFOLDER = {folder:?}\n{prepare}def work():\n{work}\
             work()\nbest = None\nfor _ in range({repeats}):\n    start = time.perf_counter()\n    work()\n    \
             took = time.perf_counter() - start\n    best = took if best is None else min(best, took)\n{end}print(best)\n"
        )
    }
}
