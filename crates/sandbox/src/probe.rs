//! Facts about this host for `belljar doctor`.
