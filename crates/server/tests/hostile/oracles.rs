//! The controls of what stands outside: each oracle notices what it is there to notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::client::Answer;
use crate::scene::{Canary, descriptors, is_typed, resident, turn, who_follows_links_is_lured};

/// Whether this stops where a test would.
fn stops(check: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(check)).is_err()
}

#[test]
fn a_canary_notices_what_is_done_to_it() {
    let touched = [
        |canary: &Canary| fs::write(canary.file(), "x").unwrap(),
        |canary: &Canary| fs::write(canary.folder().join("new"), "x").unwrap(),
        |canary: &Canary| fs::set_permissions(canary.file(), fs::Permissions::from_mode(0o600)).unwrap(),
        |canary: &Canary| fs::remove_file(canary.file()).unwrap(),
    ];
    for touch in touched {
        let canary = Canary::place();
        canary.is_untouched();
        touch(&canary);
        assert!(stops(|| canary.is_untouched()), "INVALID");
    }
    who_follows_links_is_lured();
}

#[test]
fn memory_and_descriptors_are_seen() {
    let _turn = turn();
    let before = resident();
    let held = std::hint::black_box(vec![1_u8; 512 << 20]);
    assert!(resident() > before + (200 << 20), "INVALID: {before}, now {}", resident());
    drop(held);
    let before = descriptors();
    let held: Vec<_> = (0..400).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    assert!(descriptors() > before + 200, "INVALID: {before}, now {}", descriptors());
    drop(held);
}

#[test]
fn an_answer_that_is_none_is_seen() {
    let answer = |status, body: &str| Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), whole: true };
    let error = r#"{"error":{"code":"x","message":"y"}}"#;
    for good in [answer(200, "x"), answer(404, error), answer(416, "")] {
        is_typed(&good, "good");
    }
    for bad in [answer(500, error), answer(503, ""), answer(400, "{}"), answer(404, "<html>"), answer(101, "")] {
        assert!(stops(|| is_typed(&bad, "bad")), "INVALID: {}", bad.status);
    }
}
