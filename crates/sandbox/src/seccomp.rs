//! Compiles the system-call lists in `seccomp/*.toml` into the programs that the kernel runs.
//!
//! A program kills calls of a foreign architecture and of the x32 ABI, finds the number in a balanced tree, and compares the low 32
//! bits of arguments, which is all that the kernel reads of the arguments filtered here (`int`, `unsigned int`, or flags cut to 32
//! bits). Numbers come from per-architecture tables.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

/// Architectures that lists are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, without x32.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// The architecture of this program.
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// `AUDIT_ARCH_*`.
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call by name, `None` where this architecture does not have it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok().map(|call| call.id()),
            Self::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok().map(|call| call.id()),
        };
        number.and_then(|number| u32::try_from(number).ok())
    }
}

/// Why a list cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeccompError {
    /// The file is not of the expected form.
    #[error("seccomp list is not valid: {0}")]
    Form(String),
    /// No architecture knows the call.
    #[error("seccomp list names the unknown system call `{0}`")]
    Unknown(String),
    /// A condition is not of the expected form.
    #[error("seccomp list has the bad condition `{0}`")]
    Condition(String),
    /// An errno name is not known here.
    #[error("seccomp list has the unknown errno `{0}`")]
    Errno(String),
    /// A call stands twice in one list.
    #[error("seccomp list names `{0}` twice")]
    Twice(String),
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// The process ends with SIGSYS.
    Kill,
}

impl Action {
    const fn encoded(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(number) => 0x0005_0000 | number as u32,
            Self::Kill => 0x8000_0000,
        }
    }
}

const ENOSYS: Action = Action::Errno(38);
const EPERM: Action = Action::Errno(1);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    allow: Vec<Line>,
    #[serde(default)]
    deny: Vec<Line>,
    #[serde(default)]
    narrow: Vec<Line>,
    #[serde(default)]
    always: Vec<Line>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    why: String,
    #[serde(default)]
    when: Vec<String>,
    errno: Option<String>,
}

/// What a program does with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Alternatives; empty: any arguments.
    when: Vec<Vec<Comparison>>,
    matched: Action,
    otherwise: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Comparison {
    argument: u32,
    mask: u32,
    operator: Operator,
    value: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtMost,
}

/// One instruction of the kernel's classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A compiled program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    rules: BTreeMap<u32, Rule>,
    default: Action,
    arch: Arch,
}

const PROCESS: &str = include_str!("../seccomp/process.toml");
const WORKER: &str = include_str!("../seccomp/worker.toml");
const INIT: &str = include_str!("../seccomp/init.toml");
const TEMPLATE: &str = include_str!("../seccomp/template.toml");

/// The program of shell commands, and of a worker until its driver runs.
///
/// # Errors
/// Where the embedded list is not valid.
pub fn process(arch: Arch) -> Result<Program, SeccompError> {
    let list = parse(PROCESS)?;
    Program::new(arch, ENOSYS, rules(arch, &[&list])?)
}

/// The program that a worker's driver adds before user code runs; with `spawning` the worker keeps fork and exec.
///
/// # Errors
/// Where the embedded list is not valid.
pub fn worker(arch: Arch, spawning: bool) -> Result<Program, SeccompError> {
    let mut list = parse(WORKER)?;
    if spawning {
        list.deny.clear();
        list.narrow.clear();
    }
    Program::new(arch, Action::Allow, rules(arch, &[&list])?)
}

/// The program of init, inherited by everything in the sandbox.
///
/// # Errors
/// Where an embedded list is not valid.
pub fn init(arch: Arch) -> Result<Program, SeccompError> {
    beyond_process(arch, INIT)
}

/// The program of a template's process, inherited by the workers it forks.
///
/// # Errors
/// Where an embedded list is not valid.
pub fn template(arch: Arch) -> Result<Program, SeccompError> {
    beyond_process(arch, TEMPLATE)
}

/// The list of all processes with the lines of another one added, or in their place.
fn beyond_process(arch: Arch, other: &str) -> Result<Program, SeccompError> {
    let (mut process, other) = (parse(PROCESS)?, parse(other)?);
    let replaced = |line: &Line| other.allow.iter().any(|other| other.name == line.name);
    process.allow.retain(|line| !replaced(line));
    process.deny.retain(|line| !replaced(line));
    Program::new(arch, ENOSYS, rules(arch, &[&process, &other])?)
}

fn parse(text: &str) -> Result<List, SeccompError> {
    let list: List = toml::from_str(text).map_err(|error| SeccompError::Form(error.to_string()))?;
    let lines = list.allow.iter().chain(&list.deny).chain(&list.narrow).chain(&list.always);
    match lines.into_iter().find(|line| line.why.is_empty()) {
        Some(line) => Err(SeccompError::Form(format!("`{}` has no reason", line.name))),
        None => Ok(list),
    }
}

fn rules(arch: Arch, lists: &[&List]) -> Result<BTreeMap<u32, Rule>, SeccompError> {
    let mut rules = BTreeMap::new();
    for list in lists {
        let allowed = list.allow.iter().chain(&list.narrow).chain(&list.always).map(|line| (line, Action::Allow));
        for (line, matched) in allowed.chain(list.deny.iter().map(|line| (line, EPERM))) {
            let Some(number) = arch.number(&line.name) else {
                if [Arch::X86_64, Arch::Aarch64].iter().all(|other| other.number(&line.name).is_none()) {
                    return Err(SeccompError::Unknown(line.name.clone()));
                }
                continue;
            };
            let errno = line.errno.as_deref().map(errno).transpose()?.map_or(EPERM, Action::Errno);
            let when = line.when.iter().map(|text| parse_alternative(text)).collect::<Result<_, _>>()?;
            let rule = Rule { when, matched: if matched == Action::Allow { Action::Allow } else { errno }, otherwise: errno };
            if rules.insert(number, rule).is_some() {
                return Err(SeccompError::Twice(line.name.clone()));
            }
        }
    }
    Ok(rules)
}

fn errno(name: &str) -> Result<u16, SeccompError> {
    match name {
        "EPERM" => Ok(1),
        "ENOMEM" => Ok(12),
        "EINVAL" => Ok(22),
        "ENOTTY" => Ok(25),
        "ENOSYS" => Ok(38),
        "EOPNOTSUPP" => Ok(95),
        "EAFNOSUPPORT" => Ok(97),
        _ => Err(SeccompError::Errno(name.to_owned())),
    }
}

fn parse_alternative(text: &str) -> Result<Vec<Comparison>, SeccompError> {
    text.split("&&").map(parse_comparison).collect::<Option<_>>().ok_or_else(|| SeccompError::Condition(text.to_owned()))
}

/// `aN [& MASK] OPERATOR VALUE`
fn parse_comparison(text: &str) -> Option<Comparison> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, mask, operator, value) = match *words.as_slice() {
        [name, operator, value] => (name, u32::MAX, operator, value),
        [name, "&", mask, operator, value] => (name, parse_number(mask)?, operator, value),
        _ => return None,
    };
    let argument: u32 = name.strip_prefix('a')?.parse().ok().filter(|argument| *argument < 6)?;
    let operator = match operator {
        "==" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<=" => Operator::AtMost,
        _ => return None,
    };
    Some(Comparison { argument, mask, operator, value: parse_number(value)? })
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
const X32_BIT: u32 = 0x4000_0000;

const fn step(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn give(action: Action) -> Instruction {
    step(RETURN, action.encoded())
}

impl Program {
    fn new(arch: Arch, default: Action, rules: BTreeMap<u32, Rule>) -> Result<Self, SeccompError> {
        let mut instructions = vec![step(LOAD, OFFSET_ARCH), branch(JUMP_EQUAL, arch.audit(), 1, 0), give(Action::Kill), step(LOAD, OFFSET_NUMBER)];
        if arch == Arch::X86_64 {
            instructions.extend([branch(JUMP_SET, X32_BIT, 0, 1), give(Action::Kill)]);
        }
        let entries: Vec<(&u32, &Rule)> = rules.iter().collect();
        instructions.extend(tree(&entries, default)?);
        Ok(Self { instructions, rules, default, arch })
    }

    /// The program as the kernel takes it: `struct sock_filter[]` in native byte order.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.instructions
            .iter()
            .flat_map(|instruction| {
                let ([a, b], [c, d, e, f]) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
                [a, b, instruction.jt, instruction.jf, c, d, e, f]
            })
            .collect()
    }

    /// Names of the calls that are done for at least some arguments, with whether all arguments are.
    #[must_use]
    pub fn allowed(&self) -> Vec<(u32, bool)> {
        self.rules.iter().filter(|(_, rule)| rule.matched == Action::Allow).map(|(number, rule)| (*number, rule.when.is_empty())).collect()
    }
}

/// A balanced search tree over call numbers.
fn tree(entries: &[(&u32, &Rule)], default: Action) -> Result<Vec<Instruction>, SeccompError> {
    match entries {
        [] => Ok(vec![give(default)]),
        [(number, rule)] => {
            let mut leaf = vec![branch(JUMP_EQUAL, **number, 1, 0), give(default)];
            leaf.extend(check(rule));
            Ok(leaf)
        }
        _ => {
            let (low, high) = entries.split_at(entries.len() / 2);
            let Some((first, _)) = high.first() else { return Ok(vec![give(default)]) };
            let (low, upper) = (tree(low, default)?, tree(high, default)?);
            let distance = u32::try_from(low.len()).map_err(|_| SeccompError::Form("too long".to_owned()))?;
            let mut both = vec![branch(JUMP_AT_LEAST, **first, 0, 1), step(JUMP, distance)];
            both.extend(low);
            both.extend(upper);
            Ok(both)
        }
    }
}

/// Compares arguments, alternative by alternative.
fn check(rule: &Rule) -> Vec<Instruction> {
    if rule.when.is_empty() {
        return vec![give(rule.matched)];
    }
    let mut instructions = Vec::new();
    for alternative in &rule.when {
        let mut steps = Vec::new();
        // From the end: each comparison that fails jumps over the rest of its alternative.
        let mut rest: Vec<Instruction> = vec![give(rule.matched)];
        for comparison in alternative.iter().rev() {
            let skip = u8::try_from(rest.len()).unwrap_or(u8::MAX);
            steps.clear();
            steps.push(step(LOAD, OFFSET_ARGUMENTS + comparison.argument * 8));
            if comparison.mask != u32::MAX {
                steps.push(step(AND, comparison.mask));
            }
            steps.push(match comparison.operator {
                Operator::Equal => branch(JUMP_EQUAL, comparison.value, 0, skip),
                Operator::NotEqual => branch(JUMP_EQUAL, comparison.value, skip, 0),
                Operator::AtMost => branch(JUMP_GREATER, comparison.value, skip, 0),
            });
            steps.append(&mut rest);
            rest = std::mem::take(&mut steps);
        }
        instructions.extend(rest);
    }
    instructions.push(give(rule.otherwise));
    instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &Program, arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        for argument in arguments {
            data.extend(argument.to_le_bytes());
        }
        let (mut at, mut a) = (0_usize, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program.instructions[at];
            at += 1;
            let taken = match code {
                LOAD => {
                    let place = k as usize;
                    a = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                RETURN => return k,
                JUMP_EQUAL => a == k,
                JUMP_GREATER => a > k,
                JUMP_AT_LEAST => a >= k,
                JUMP_SET => a & k != 0,
                _ => panic!("unknown instruction {code:#x}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    fn decide(program: &Program, name: &str, arguments: [u64; 6]) -> u32 {
        run(program, program.arch.audit(), program.arch.number(name).unwrap(), arguments)
    }

    const ALLOW: u32 = 0x7fff_0000;
    fn errno_of(number: u16) -> u32 {
        Action::Errno(number).encoded()
    }

    #[test]
    fn every_number_gets_exactly_what_its_line_says() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for program in [process(arch).unwrap(), init(arch).unwrap(), worker(arch, false).unwrap(), worker(arch, true).unwrap()] {
                for number in 0..1000 {
                    let expected = match program.rules.get(&number) {
                        None => program.default.encoded(),
                        Some(rule) if rule.when.is_empty() => rule.matched.encoded(),
                        Some(_) => continue,
                    };
                    assert_eq!(run(&program, arch.audit(), number, [0; 6]), expected, "{arch:?} {number}");
                }
            }
        }
    }

    #[test]
    fn arguments_decide_by_their_low_word() {
        let program = process(Arch::X86_64).unwrap();
        assert_eq!(decide(&program, "ioctl", [0, 0x5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "ioctl", [0, 0xdead_0000_5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "ioctl", [0, 0x5412, 0, 0, 0, 0]), errno_of(25));
        assert_eq!(decide(&program, "ioctl", [0, 0xffff_ffff_0000_5412, 0, 0, 0, 0]), errno_of(25));
        assert_eq!(decide(&program, "clone", [0x0120_0011, 0, 0, 0, 0, 0]), ALLOW);
        for namespace in [0x80_u64, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(decide(&program, "clone", [namespace | 17, 0, 0, 0, 0, 0]), errno_of(1), "{namespace:#x}");
        }
        assert_eq!(decide(&program, "prctl", [22, 2, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&program, "seccomp", [1, 1, 0, 0, 0, 0]), ALLOW, "a filter for all threads");
        assert_eq!(decide(&program, "seccomp", [1, 0, 0, 0, 0, 0]), errno_of(1), "a filter for one thread");
        assert_eq!(decide(&program, "seccomp", [1, 9, 0, 0, 0, 0]), errno_of(1), "a filter with a listener");
        assert_eq!(decide(&program, "recvmsg", [0, 0, 1, 0, 0, 0]), errno_of(1), "out-of-band data");
        assert_eq!(decide(&program, "kill", [u64::MAX, 9, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&program, "kill", [0xffff_ffff, 9, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&program, "kill", [5, 9, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "fcntl", [0, 7, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "fcntl", [0, 8, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&program, "mmap", [0, 1 << 21, 3, 0x22, u64::MAX, 0]), ALLOW);
        assert_eq!(decide(&program, "mmap", [0, 1 << 21, 3, 0x4_0022, u64::MAX, 0]), errno_of(12), "pages of the host's reserve");
        assert_eq!(decide(&program, "clone3", [0; 6]), errno_of(38));
        assert_eq!(decide(&program, "socket", [1, 1, 0, 0, 0, 0]), errno_of(1));
        let worker = worker(Arch::X86_64, false).unwrap();
        assert_eq!(decide(&worker, "clone", [17, 0, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&worker, "clone", [0x003d_0f00, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&worker, "seccomp", [1, 1, 0, 0, 0, 0]), errno_of(1));
        assert_eq!(decide(&worker, "execve", [0; 6]), errno_of(1));
    }

    #[test]
    fn foreign_calls_kill() {
        let program = process(Arch::X86_64).unwrap();
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), Action::Kill.encoded());
        assert_eq!(run(&program, Arch::X86_64.audit(), 1 | X32_BIT, [0; 6]), Action::Kill.encoded());
    }

    #[test]
    fn init_and_templates_may_do_whatever_their_children_may() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let process = process(arch).unwrap();
            for parent in [init(arch).unwrap(), template(arch).unwrap()] {
                for (number, rule) in process.rules.iter().filter(|(_, rule)| rule.matched == Action::Allow) {
                    let own = &parent.rules[number];
                    assert_eq!(own.matched, Action::Allow);
                    assert!(
                        own.when.is_empty() || rule.when.iter().all(|alternative| own.when.contains(alternative) || alternative_is_covered(own, alternative)),
                        "{number}"
                    );
                }
            }
        }
    }

    /// Whether a rule has an alternative that asks for a part of this one only.
    fn alternative_is_covered(rule: &Rule, alternative: &[Comparison]) -> bool {
        rule.when.iter().any(|other| other.iter().all(|comparison| alternative.contains(comparison)))
    }

    #[test]
    fn a_template_cannot_look_at_others_or_make_namespaces() {
        let program = template(Arch::X86_64).unwrap();
        for (name, arguments) in [
            ("ptrace", [16, 1, 0, 0, 0, 0]),
            ("pidfd_open", [1, 0, 0, 0, 0, 0]),
            ("pidfd_getfd", [3, 0, 0, 0, 0, 0]),
            ("process_vm_readv", [1, 0, 0, 0, 0, 0]),
            ("unshare", [0x1000_0000, 0, 0, 0, 0, 0]),
            ("clone", [0x1000_0011, 0, 0, 0, 0, 0]),
            ("mount", [0; 6]),
            ("setgroups", [0; 6]),
            ("setuid", [0; 6]),
            ("kexec_load", [0; 6]),
            ("bpf", [0; 6]),
            ("prctl", [4, 0, 0, 0, 0, 0]),
        ] {
            assert_ne!(decide(&program, name, arguments), Action::Allow.encoded(), "{name}");
        }
        assert_eq!(decide(&program, "setns", [5, 0x2000_0000, 0, 0, 0, 0]), Action::Allow.encoded());
    }

    #[test]
    fn the_list_is_short_and_published() {
        let names = |program: Program| -> Vec<String> {
            let mut names: Vec<String> = program
                .allowed()
                .iter()
                .map(|(number, whole)| format!("{}{}", syscalls::x86_64::Sysno::from(*number), if *whole { "" } else { " (filtered)" }))
                .collect();
            names.sort();
            names
        };
        let process = names(process(Arch::X86_64).unwrap());
        assert!(process.len() <= 130, "{} names", process.len());
        let golden = include_str!("../seccomp/allowed-x86_64.txt");
        assert_eq!(process.join("\n"), golden.trim_end(), "seccomp/allowed-x86_64.txt is the published list");
    }

    #[test]
    fn bad_lists_are_refused_by_name() {
        let bad = |text: &str| parse(text).and_then(|list| rules(Arch::X86_64, &[&list])).unwrap_err();
        assert_eq!(bad(r#"allow = [{ name = "raed", why = "x" }]"#), SeccompError::Unknown("raed".to_owned()));
        assert_eq!(bad(r#"allow = [{ name = "read", why = "x", when = ["a9 == 1"] }]"#), SeccompError::Condition("a9 == 1".to_owned()));
        assert_eq!(bad(r#"deny = [{ name = "read", why = "x", errno = "EWHAT" }]"#), SeccompError::Errno("EWHAT".to_owned()));
        assert_eq!(bad(r#"allow = [{ name = "read", why = "x" }, { name = "read", why = "y" }]"#), SeccompError::Twice("read".to_owned()));
        assert!(matches!(bad(r#"allow = [{ name = "read", why = "" }]"#), SeccompError::Form(_)));
    }
}
