//! What is kept of a stream: bounded, whole where it is short, head and tail where it is long.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (keep, pieces) = input;
    let keep = usize::from(keep) + 8;
    let all: Vec<u8> = pieces.concat();
    let (text, truncated) = engine::fuzzing::kept(&pieces, keep);
    assert_eq!(truncated, all.len() > keep / 2 * 2);
    if truncated {
        assert!(text.len() <= 3 * keep + 100, "bytes that are no text take three each");
        if std::str::from_utf8(&all).is_ok() && !String::from_utf8_lossy(&all).contains('\u{fffd}') {
            assert!(!text.contains('\u{fffd}'), "no character is cut");
        }
    } else {
        assert_eq!(text, String::from_utf8_lossy(&all));
    }
});
