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
    Word(Word),
    Bar,
    /// `<`, `>`, `>>`, with the descriptor's number in front of it.
    To(u8, Direction),
    /// `2>&1`.
    Same(u8, u8),
}

struct Word {
    text: String,
    /// How much of the text comes before the first quote; `None` when there is none.
    quoted_from: Option<usize>,
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
            Token::Word(word) => {
                if stage.arguments.is_empty() {
                    check_command(&word)?;
                }
                stage.arguments.push(word.text.into());
            }
            Token::Same(2, 1) => {
                stage.redirects.push(Redirect::Same { of: Standard::Error, to: Standard::Output })
            }
            Token::Same(1, 2) => {
                stage.redirects.push(Redirect::Same { of: Standard::Output, to: Standard::Error })
            }
            Token::Same(..) => {}
            Token::To(fd, direction) => {
                let Some(Token::Word(path)) = tokens.next() else {
                    return Err("a redirection wants a file name after it".into());
                };
                stage.redirects.push(redirect(fd, direction, path.text.into())?);
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

fn check_command(word: &Word) -> Result<(), String> {
    if word.quoted_from.is_none() && KEYWORDS.contains(&word.text.as_str()) {
        return Err(refuse(&word.text));
    }
    let is_name = |name: &str| {
        name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    // `a='b c'` is an assignment, `'a'=b` is not.
    let bare = &word.text[..word.quoted_from.unwrap_or(word.text.len())];
    match bare.split_once('=') {
        Some((name, _)) if is_name(name) => Err(refuse(&format!("{name}= in front of a command"))),
        _ => Ok(()),
    }
}

fn refuse(what: &str) -> String {
    format!("{what} is for a shell to do; quote it if it is meant as it stands, or use sh -c '...'")
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let line = joined(line);
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
                let word = word(&mut chars)?;
                let is_number = word.quoted_from.is_none() && word.text.bytes().all(|c| c.is_ascii_digit());
                // A digit right in front of `<` or `>` is a descriptor's number; of several, each shell makes its own.
                match (is_number, word.text.as_bytes(), chars.peek()) {
                    (true, [digit], Some('<' | '>')) => tokens.push(redirection(&mut chars, digit - b'0')?),
                    (true, _, Some('<' | '>')) => {
                        return Err(refuse(&format!("descriptor {}", word.text)));
                    }
                    _ => tokens.push(Token::Word(word)),
                }
            }
        }
    }
}

/// The line without the line ends that a `\` in front takes away, wherever they are: in a word, between two, and in front
/// of a character that means something only at a word's beginning.
fn joined(line: &str) -> String {
    let mut chars = line.chars().peekable();
    let (mut joined, mut quote) = (String::with_capacity(line.len()), None);
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                if chars.next_if_eq(&'\n').is_none() {
                    joined.push(c);
                    joined.extend(chars.next());
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            _ => {}
        }
        joined.push(c);
    }
    joined
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

fn word(chars: &mut Peekable<Chars<'_>>) -> Result<Word, String> {
    let (mut text, mut quoted_from) = (String::new(), None);
    while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t' | '|' | '<' | '>')) {
        if matches!(c, '\'' | '"' | '\\') {
            quoted_from.get_or_insert(text.len());
        }
        match c {
            '\'' => loop {
                match chars.next() {
                    Some('\'') => break,
                    Some(c) => text.push(c),
                    None => return Err("a ' is not closed".into()),
                }
            },
            '"' => double_quoted(chars, &mut text)?,
            '\\' => match chars.next() {
                Some(c) => text.push(c),
                None => return Err("a \\ at the end of the line quotes nothing".into()),
            },
            '\n' => return Err(refuse("a second line")),
            ';' | '&' | '$' | '`' | '*' | '?' | '(' | ')' => return Err(refuse(&c.to_string())),
            // `[` alone is a command, test(1).
            '[' if !(text.is_empty() && matches!(chars.peek(), None | Some(' ' | '\t'))) => {
                return Err(refuse("["));
            }
            c => text.push(c),
        }
    }
    if quoted_from.is_none()
        && text.contains('{')
        && (text.contains(',') || text.contains(".."))
        && text.contains('}')
    {
        return Err(refuse("{...}"));
    }
    Ok(Word { text, quoted_from })
}

fn double_quoted(chars: &mut Peekable<Chars<'_>>, text: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some(c @ ('$' | '`')) => return Err(refuse(&format!("{c} within double quotes"))),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
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

    /// What `sh` makes of the line's words, or nothing if it refuses the line.
    fn by_the_shell(line: &str) -> Option<Vec<u8>> {
        let script = format!("f() {{ printf '<%s>' \"$@\"; }}; f {line}");
        let run = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        run.status.success().then_some(run.stdout)
    }

    #[test]
    fn whatever_is_accepted_means_what_the_shell_says() {
        const PIECES: &[&str] = &[
            "'", "'", "\"", "\"", "\\", "\\", "\\\n", " ", "\t", "a", "b", "2", "+", "=", "~", "#", "!", "{",
            "}", ",", "..", "[", "]", "-", "%", "^", "é", "\n", "$", "`", "*", "if", "%s", ":", "/", "\r",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut accepted = 0;
        while accepted < 250 {
            let line: String = (0..1 + random(12)).map(|_| PIECES[random(PIECES.len())]).collect();
            let Ok(stages) = parse(&format!("f {line}")) else { continue };
            accepted += 1;
            let ours: String =
                stages[0].arguments[1..].iter().map(|word| format!("<{}>", word.to_str().unwrap())).collect();
            let ours = if ours.is_empty() { "<>".to_string() } else { ours };
            assert_eq!(
                Some(ours),
                by_the_shell(&line).map(|out| String::from_utf8(out).unwrap()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_line_end_that_is_taken_away_quotes_nothing() {
        assert_eq!(words("echo \\\n b \"c\\\nd\" 'e\\\nf'"), [vec!["echo", "b", "cd", "e\\\nf"]]);
        assert_eq!(words("echo a \\\n"), [vec!["echo", "a"]]);
        for line in ["echo \\\n~", "i\\\nf true", "echo \\\n# a"] {
            assert!(parse(line).is_err(), "{line:?}");
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
        assert_eq!(words("echo +2>f"), [vec!["echo", "+2"]], "not a number to the shell");
        assert_eq!(words("'a'=b c"), [vec!["a=b", "c"]], "a quoted name is no variable's");
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
            ("a 12>f", "12"),
            ("a 300>f", "300"),
            ("X='a b' c", "X="),
            ("X=\\1 c", "X="),
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
