//! The help of every command, word for word: what is written there is what users build on.

use std::process::Command;

use crate::support;

const GOLDEN: &str = include_str!("help.golden.txt");

const COMMANDS: &[&[&str]] = &[
    &[],
    &["run"],
    &["env"],
    &["env", "build"],
    &["env", "list"],
    &["env", "show"],
    &["env", "remove"],
    &["doctor"],
    &["bench"],
    &["serve"],
    &["mcp"],
    &["keys"],
    &["keys", "create"],
    &["keys", "list"],
    &["keys", "revoke"],
    &["audit"],
    &["audit", "query"],
    &["config"],
    &["config", "show"],
    &["config", "check"],
];

#[test]
fn help_is_as_published() {
    let mut seen = String::new();
    for command in COMMANDS {
        let output = Command::new(support::binary()).args(*command).arg("--help").env_clear().output().unwrap();
        assert!(output.status.success(), "{command:?}");
        seen += &format!("$ belljar {} --help\n{}\n", command.join(" "), String::from_utf8(output.stdout).unwrap());
    }
    assert!(seen == GOLDEN, "if this is meant, write it into help.golden.txt:\n{seen}");
}
