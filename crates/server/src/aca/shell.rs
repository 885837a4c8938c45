//! Command lines for bash from what shell pools take.

/// A command line that runs a program with these arguments, and nothing else: no word is looked at by the shell.
pub(crate) fn command_line(words: &[String]) -> Result<String, String> {
    if words.first().is_none_or(String::is_empty) {
        return Err("`execCommandAndArgs` needs a program".to_owned());
    }
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    // Never a builtin or a function of the same name.
    Ok(format!("exec -- {}", words.join(" ")))
}

/// A command line that has this text on its standard input.
pub(super) fn with_input(command: &str, input: &str) -> String {
    format!("printf %s {} | bash -c {}", quoted(input), quoted(command))
}

/// One word, whatever it contains.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(command: &str) -> String {
        let output = std::process::Command::new("bash").args(["-c", command]).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn words_arrive_as_they_are() {
        let hostile = ["a b", "it's", "$(id)", "`id`", "*", "\"", "\\", "-n", "a\nb", "'; id; '", "", "é", "!x", "~", "{a,b}", "\\'"];
        let words: Vec<String> = ["printf", "%s\\0"].iter().chain(&hostile).map(|word| (*word).to_owned()).collect();
        let seen = bash(&command_line(&words).unwrap());
        assert_eq!(seen.split_terminator('\0').collect::<Vec<_>>(), hostile);
    }

    #[test]
    fn there_must_be_a_program() {
        assert!(command_line(&[]).is_err());
        assert!(command_line(&[String::new()]).is_err());
    }

    #[test]
    fn input_arrives_as_it_is() {
        for input in ["", "x", "two\nlines\n", "it's $HOME `id` \\n %s"] {
            assert_eq!(bash(&with_input("cat; printf '|%s' \"it's\"", input)), format!("{input}|it's"));
        }
    }
}
