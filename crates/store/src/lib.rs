//! The only place that knows SQL: the append-only record of what ran, and API keys, in one SQLite file below the data folder.
#![forbid(unsafe_code)]
