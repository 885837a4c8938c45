//! The look at what comes in, against the parser behind it: what passes has one meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use server::fuzzing::framing;

fuzz_target!(|bytes: &[u8]| {
    let one_by_one = framing(bytes, 1);
    for step in [2, 7, usize::MAX] {
        assert_eq!(framing(bytes, step).ambiguous, one_by_one.ambiguous, "in pieces of {step}");
    }
    // The first head, as hyper's parser reads it.
    let Some(&end) = one_by_one.heads.first() else { return };
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    // What it refuses ends in 400.
    let Ok(parsed) = request.parse(bytes) else { return };
    assert_eq!(parsed, httparse::Status::Complete(end), "both see the same end of the head");
    let values = |wanted: &str| request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(wanted)).map(|header| header.value).collect::<Vec<_>>();
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1 && values("host").len() <= 1);
    assert!(lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit)));
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked")));
    assert!(request.path.is_some_and(|path| path.starts_with('/') || path == "*"));
    // Behind a head that tells of no body, the next request begins; behind one that tells of some bytes, it begins after these.
    if codings.is_empty() {
        let length = lengths.first().map_or(0, |length| std::str::from_utf8(length).ok().and_then(|text| text.parse().ok()).expect("a number"));
        let next = end.saturating_add(length);
        if let Some(rest) = bytes.get(next..) {
            let alone = framing(rest, 1);
            assert_eq!(one_by_one.ambiguous, alone.ambiguous.map(|at| at + next), "the next is read on its own");
            assert_eq!(one_by_one.heads[1..].to_vec(), alone.heads.iter().map(|at| at + next).collect::<Vec<_>>());
        }
    }
});
