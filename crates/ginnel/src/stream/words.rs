//! The shell's grammar as far as a pipeline needs it: words, quotes, `|` and redirections, and a plain no to the rest.
//!
//! What would need a shell (`$x`, `*`, `;`, `&`) is refused by name rather than passed on as it stands: a line means
//! what it means to `sh`, or it is an error.

use std::iter::Peekable;
use std::path::PathBuf;
use std::str::Chars;

use super::pipeline::{Redirect, Stage, Standard};

const KEYWORDS: &[&str] = &[
    "!", "{", "}", "case", "do", "done", "elif", "else", "esac", "fi", "for", "if", "in", "then", "until",
    "while", "[[", "function", "select", "time",
];

/// One piece of a line.
enum Token {
    Word {
        text: String,
        quoted: bool,
    },
    Bar,
    /// `<`, `>`, `>>`, with the descriptor's number in front of it.
    To(u8, Direction),
    /// `2>&1`.
    Same(u8, u8),
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
    Append,
}

/// The stages of a line, or why it has none.
pub(super) fn parse(line: &str) -> Result<Vec<Stage>, String> {
    let mut tokens = tokens(line)?.into_iter();
    let mut stages = vec![Stage::default()];
    while let Some(token) = tokens.next() {
        let stage = stages.last_mut().expect("there is always one");
        match token {
            Token::Bar => {
                finished(stage)?;
                stages.push(Stage::default());
            }
            Token::Word { text, quoted } => {
                if stage.arguments.is_empty() && !quoted {
                    check_command(&text)?;
                }
                stage.arguments.push(text.into());
            }
            Token::Same(2, 1) => {
                stage.redirects.push(Redirect::Same { of: Standard::Error, to: Standard::Output })
            }
            Token::Same(1, 2) => {
                stage.redirects.push(Redirect::Same { of: Standard::Output, to: Standard::Error })
            }
            Token::Same(..) => {}
            Token::To(fd, direction) => {
                let Some(Token::Word { text, .. }) = tokens.next() else {
                    return Err("a redirection wants a file name after it".into());
                };
                stage.redirects.push(redirect(fd, direction, text.into())?);
            }
        }
    }
    finished(stages.last().expect("there is always one"))?;
    Ok(stages)
}

fn redirect(fd: u8, direction: Direction, path: PathBuf) -> Result<Redirect, String> {
    match (fd, direction) {
        (0, Direction::In) => Ok(Redirect::Read { path }),
        (1, Direction::Out | Direction::Append) => {
            Ok(Redirect::Write { of: Standard::Output, path, append: matches!(direction, Direction::Append) })
        }
        (2, Direction::Out | Direction::Append) => {
            Ok(Redirect::Write { of: Standard::Error, path, append: matches!(direction, Direction::Append) })
        }
        _ => Err(format!("descriptor {fd} cannot be redirected that way here; use sh -c '...'")),
    }
}

fn finished(stage: &Stage) -> Result<(), String> {
    match stage.arguments.is_empty() {
        true => Err("there is no command before or after a |, or the line is empty".into()),
        false => Ok(()),
    }
}

fn check_command(word: &str) -> Result<(), String> {
    if KEYWORDS.contains(&word) {
        return Err(refuse(word));
    }
    let is_name = |name: &str| {
        name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    match word.split_once('=') {
        Some((name, _)) if is_name(name) => Err(refuse(&format!("{name}= in front of a command"))),
        _ => Ok(()),
    }
}

fn refuse(what: &str) -> String {
    format!("{what} is for a shell to do; quote it if it is meant as it stands, or use sh -c '...'")
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut chars = line.trim_end_matches('\n').chars().peekable();
    let mut tokens = Vec::new();
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        let Some(&next) = chars.peek() else { return Ok(tokens) };
        match next {
            '|' => {
                chars.next();
                if let Some(second) = chars.next_if(|c| matches!(c, '|' | '&')) {
                    return Err(refuse(&format!("|{second}")));
                }
                tokens.push(Token::Bar);
            }
            '<' => tokens.push(redirection(&mut chars, 0)?),
            '>' => tokens.push(redirection(&mut chars, 1)?),
            '#' => return Err(refuse("# (a comment)")),
            '~' => return Err(refuse("~ (a home directory)")),
            _ => {
                let (text, quoted) = word(&mut chars)?;
                // Digits right in front of `<` or `>` are a descriptor's number.
                let number = (!quoted).then(|| text.parse::<u8>().ok()).flatten();
                match (number, chars.peek()) {
                    (Some(fd), Some('<' | '>')) => tokens.push(redirection(&mut chars, fd)?),
                    _ => tokens.push(Token::Word { text, quoted }),
                }
            }
        }
    }
}

/// `<`, `>`, `>>` or `>&N`; the descriptor in front has been read.
fn redirection(chars: &mut Peekable<Chars<'_>>, fd: u8) -> Result<Token, String> {
    let input = chars.next() == Some('<');
    let Some(second) = chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|' | '(')) else {
        return Ok(Token::To(fd, if input { Direction::In } else { Direction::Out }));
    };
    match (input, second) {
        (false, '>') => match chars.next_if(|c| matches!(c, '&' | '(' | '>' | '|')) {
            None => Ok(Token::To(fd, Direction::Append)),
            Some(third) => Err(refuse(&format!(">>{third}"))),
        },
        (false, '&') => match (fd, chars.next(), chars.peek()) {
            (1 | 2, Some(to @ ('1' | '2')), None | Some(' ' | '\t' | '|' | '<' | '>')) => {
                Ok(Token::Same(fd, to as u8 - b'0'))
            }
            _ => Err(refuse("a redirection other than 2>&1 and 1>&2")),
        },
        (input, second) => Err(refuse(&format!("{}{second}", if input { '<' } else { '>' }))),
    }
}

/// A word, and whether any part of it was quoted.
fn word(chars: &mut Peekable<Chars<'_>>) -> Result<(String, bool), String> {
    let (mut text, mut quoted) = (String::new(), false);
    while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t' | '|' | '<' | '>')) {
        match c {
            '\'' => {
                quoted = true;
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => return Err("a ' is not closed".into()),
                    }
                }
            }
            '"' => {
                quoted = true;
                double_quoted(chars, &mut text)?;
            }
            '\\' => {
                quoted = true;
                match chars.next() {
                    Some('\n') => {}
                    Some(c) => text.push(c),
                    None => return Err("a \\ at the end of the line quotes nothing".into()),
                }
            }
            '\n' => return Err(refuse("a second line")),
            ';' | '&' | '$' | '`' | '*' | '?' | '(' | ')' => return Err(refuse(&c.to_string())),
            // `[` alone is a command, test(1).
            '[' if !(text.is_empty() && matches!(chars.peek(), None | Some(' ' | '\t'))) => {
                return Err(refuse("["));
            }
            c => text.push(c),
        }
    }
    if !quoted && text.contains('{') && (text.contains(',') || text.contains("..")) && text.contains('}') {
        return Err(refuse("{...}"));
    }
    Ok((text, quoted))
}

fn double_quoted(chars: &mut Peekable<Chars<'_>>, text: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some(c @ ('$' | '`')) => return Err(refuse(&format!("{c} within double quotes"))),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                Some('\n') => {}
                Some(c) => text.extend(['\\', c]),
                None => return Err("a \" is not closed".into()),
            },
            Some(c) => text.push(c),
            None => return Err("a \" is not closed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        parse(line)
            .unwrap()
            .iter()
            .map(|stage| stage.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect())
            .collect()
    }

    #[test]
    fn words_are_split_as_the_shell_splits_them() {
        for line in [
            "echo a b  c",
            "echo 'a b' \"c d\"",
            r#"echo a\ b "c\"d" "e\f" \\ '\'"#,
            "echo a'b'\"c\"d ''",
            "echo a=b {} x{y}z - -- \"'\" '\"'",
            "echo 2 3",
            "echo a\\\nb",
        ] {
            let script = line.replacen("echo", "printf '<%s>'", 1);
            let printed = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap().stdout;
            let ours: String = words(line)[0][1..].iter().map(|word| format!("<{word}>")).collect();
            assert_eq!(ours, String::from_utf8(printed).unwrap(), "{line}");
        }
    }

    #[test]
    fn bars_and_redirections() {
        assert_eq!(words("cat<in|sort -r>out"), [vec!["cat"], vec!["sort", "-r"]]);
        let stages = parse("make 2>&1 >>log 2>err <in").unwrap();
        assert_eq!(stages[0].redirects.len(), 4);
        assert!(matches!(
            stages[0].redirects[0],
            Redirect::Same { of: Standard::Error, to: Standard::Output }
        ));
        assert!(matches!(&stages[0].redirects[1], Redirect::Write { append: true, .. }));
        assert_eq!(words("echo 2 >f"), [vec!["echo", "2"]], "a 2 apart is a word");
        assert_eq!(words("[ -f x ]"), [vec!["[", "-f", "x", "]"]]);
    }

    #[test]
    fn what_needs_a_shell_is_refused_by_name() {
        for (line, named) in [
            ("a; b", ";"),
            ("a & b", "&"),
            ("a && b", "&"),
            ("a || b", "||"),
            ("a |& b", "|&"),
            ("echo $HOME", "$"),
            ("echo \"$HOME\"", "$"),
            ("echo `id`", "`"),
            ("ls *.c", "*"),
            ("ls a?", "?"),
            ("ls [ab]", "["),
            ("(a)", "("),
            ("cat <<E", "<<"),
            ("cat <(ls)", "<("),
            ("a >| f", ">|"),
            ("a 3>f", "3"),
            ("a 2>&3", "2>&1"),
            ("a >&f", "2>&1"),
            ("echo ~", "~"),
            ("a # b", "#"),
            ("a\nb", "second line"),
            ("X=1 a", "X="),
            ("if true", "if"),
            ("! a", "!"),
            ("echo {a,b}", "{...}"),
            ("a 'b", "'"),
            ("a \"b", "\""),
            ("a \\", "\\"),
            ("a | ", "|"),
            ("| a", "|"),
            ("", "empty"),
            ("a >", "file name"),
            (">f", "command"),
        ] {
            let why = parse(line).err().unwrap_or_else(|| panic!("{line:?} was accepted"));
            assert!(why.contains(named), "{line:?}: {why}");
        }
    }
}
