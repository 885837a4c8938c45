//! What is read of `/proc` and of control groups, inside and outside: processes choose their names, and paths hold anything.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = sandbox::fuzzing::host_files(&text);
    let _ = guest::watchdog::parse_status(bytes);
    let _ = guest::watchdog::parse_confinement(&text, true);
    if let Some(process) = guest::watchdog::parse_stat(bytes) {
        // Whatever name it takes, it is the same process.
        let open = bytes.iter().position(|byte| *byte == b'(').expect("it was read");
        let close = bytes.iter().rposition(|byte| *byte == b')').expect("it was read");
        for name in [&b"x"[..], b") Z 1 1 1 1 1 1 1 1 1 1 1 9 9 9 9", b"(", b"))"] {
            let renamed = [&bytes[..=open], name, &bytes[close..]].concat();
            assert_eq!(guest::watchdog::parse_stat(&renamed).as_ref(), Some(&process));
        }
    }
});
