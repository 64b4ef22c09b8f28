//! A step as text for a terminal: the descriptor tables side by side, a number on the same line in each, and below them
//! the open file table. What the call changed is marked.

use super::{ProcessTable, Step};
use crate::descriptors::Kind;
use crate::open_files::{FileId, OpenFile, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;

const INDENT: &str = "    ";
const LEGEND: &str = "* changed by the call   x closed by it   +outside: also held by processes not shown";

/// Turns steps into text, each against the one before it.
///
/// ```
/// use ginnel_inspect::picture::{Renderer, picture};
/// use std::io::{Write, stdout};
///
/// let mut renderer = Renderer::new();
/// picture(&[vec!["true".into()]], |step| stdout().write_all(renderer.render(step).as_bytes()))?;
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Debug)]
pub struct Renderer {
    columns: usize,
    previous: Option<Step>,
}

impl Default for Renderer {
    fn default() -> Self {
        Self::new()
    }
}

impl Renderer {
    /// For lines of at most 100 columns.
    pub fn new() -> Self {
        Self { columns: 100, previous: None }
    }

    /// For lines of at most `columns`; less than 60 is taken as 60.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(60);
        self
    }

    /// The text of the step that follows the one rendered before. It ends in an empty line.
    pub fn render(&mut self, step: &Step) -> String {
        let before = self.previous.as_ref();
        let mut text = self.heading(step);
        self.processes(&mut text, step, before);
        self.open_files(&mut text, step, before);
        if before.is_none() {
            let _ = writeln!(text, "{INDENT}{LEGEND}\n");
        }
        self.previous = Some(step.clone());
        text
    }

    fn heading(&self, step: &Step) -> String {
        let place = format!("in {} {}", step.process, step.pid);
        let room = self.columns - INDENT.len();
        let call = shorten(&step.call, room);
        let gap = room.saturating_sub(call.chars().count() + place.chars().count());
        if gap >= 2 {
            format!("{:>2}  {call}{:gap$}{place}\n\n", step.number, "")
        } else {
            format!("{:>2}  {call}\n{INDENT}{place:>room$}\n\n", step.number)
        }
    }

    /// The descriptor tables, as many side by side as there is room for.
    fn processes(&self, text: &mut String, step: &Step, before: Option<&Step>) {
        let columns: Vec<_> = step.processes.iter().map(|one| column(one, before)).collect();
        let mut rest = columns.as_slice();
        while !rest.is_empty() {
            let mut used = 0;
            let fits = rest.iter().take_while(|one| {
                used += one.width + 4;
                used <= self.columns
            });
            let count = fits.count().max(1);
            band(text, &rest[..count]);
            rest = &rest[count..];
        }
        for gone in before.iter().flat_map(|before| &before.processes) {
            if step.processes.iter().all(|one| one.pid != gone.pid) {
                let _ = writeln!(text, "  x {} {} has ended\n", gone.label, gone.pid);
            }
        }
    }

    fn open_files(&self, text: &mut String, step: &Step, before: Option<&Step>) {
        let _ = writeln!(text, "{INDENT}open file table");
        let known: BTreeMap<_, _> =
            before.iter().flat_map(|before| &before.open_files).map(|file| (file.id, file)).collect();
        let mut rows: Vec<_> = step
            .open_files
            .iter()
            .map(|file| row(file, before.map(|_| known.get(&file.id).copied())))
            .collect();
        let living: BTreeSet<_> = step.open_files.iter().map(|file| file.id).collect();
        let freed = known.values().filter(|file| !living.contains(&file.id));
        rows.extend(freed.map(|file| Row {
            mark: 'x',
            count: "freed".into(),
            references: vec![],
            ..row(file, None)
        }));
        rows.sort_by_key(|row| row.id);

        let object = widest(rows.iter().map(|row| row.object.as_str())).min(self.columns / 3);
        let count = widest(rows.iter().map(|row| row.count.as_str()));
        let outside = widest(rows.iter().map(|row| row.outside));
        for row in rows {
            let Row { mark, id, access, object: name, count: counted, .. } = &row;
            let name = shorten_left(name, object);
            let start = format!(
                "  {mark} {id:<2} {access:<2}  {name:object$}  {counted:count$}  {:outside$}",
                row.outside
            );
            self.wrapped(text, start, &row.references);
        }
        text.push('\n');
    }

    /// A line, and `words` after it: where there is no more room, on lines that start below the first word.
    fn wrapped(&self, text: &mut String, start: String, words: &[String]) {
        let indent = start.chars().count();
        let (mut line, mut used) = (start, indent);
        for word in words {
            let width = word.chars().count() + 2;
            if used > indent && used + width > self.columns {
                let _ = writeln!(text, "{}", line.trim_end());
                (line, used) = (" ".repeat(indent), indent);
            }
            let _ = write!(line, "  {word}");
            used += width;
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// A process's table, ready to be put beside others.
struct Column {
    mark: char,
    heading: String,
    cells: BTreeMap<i32, (char, String)>,
    width: usize,
}

fn column(process: &ProcessTable, before: Option<&Step>) -> Column {
    let heading = format!("{} {}", process.label, process.pid);
    let known = before.map(|before| before.processes.iter().find(|one| one.pid == process.pid));
    let known_descriptors = known.flatten().map(|known| &known.descriptors);
    let numbers =
        process.descriptors.keys().chain(known_descriptors.into_iter().flat_map(|known| known.keys()));
    let digits = numbers.max().map_or(1, |fd| fd.to_string().len());
    let mut cells: BTreeMap<_, _> = process
        .descriptors
        .iter()
        .map(|(&fd, entry)| {
            let now = entry.open_file;
            let change = known_descriptors.map(|known| known.get(&fd).map(|entry| entry.open_file));
            (
                fd,
                match change {
                    Some(Some(was)) if was != now => ('*', format!("{fd:>digits$} -> {now}  was {was}")),
                    Some(None) => ('*', format!("{fd:>digits$} -> {now}")),
                    _ => (' ', format!("{fd:>digits$} -> {now}")),
                },
            )
        })
        .collect();
    for (&fd, entry) in known_descriptors.into_iter().flatten() {
        cells.entry(fd).or_insert_with(|| ('x', format!("{fd:>digits$} closed, was {}", entry.open_file)));
    }
    let is_new = known.is_some_and(|known| known.is_none_or(|known| known.label != process.label));
    let width = widest(cells.values().map(|(_, cell)| cell.as_str()).chain([heading.as_str()])).max(16);
    Column { mark: if is_new { '*' } else { ' ' }, heading, cells, width }
}

/// Tables side by side, a line for each number that any of them has.
fn band(text: &mut String, columns: &[Column]) {
    let line = |text: &mut String, cells: &mut dyn Iterator<Item = (char, &str, usize)>| {
        let line: String = cells.map(|(mark, cell, width)| format!("  {mark} {cell:width$}")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(text, &mut columns.iter().map(|one| (one.mark, one.heading.as_str(), one.width)));
    let numbers: BTreeSet<_> = columns.iter().flat_map(|one| one.cells.keys()).collect();
    for number in numbers {
        let cell = |one: &'_ Column| one.cells.get(number).map_or((' ', String::new()), Clone::clone);
        let cells: Vec<_> = columns.iter().map(|one| (cell(one), one.width)).collect();
        line(text, &mut cells.iter().map(|((mark, cell), width)| (*mark, cell.as_str(), *width)));
    }
    text.push('\n');
}

/// A line of the open file table.
struct Row {
    mark: char,
    id: FileId,
    access: String,
    object: String,
    count: String,
    outside: &'static str,
    references: Vec<String>,
}

/// `known` is the file in the step before; there, but empty, if the file is new since.
fn row(file: &OpenFile, known: Option<Option<&OpenFile>>) -> Row {
    let count = file.references.len();
    let mut text = format!("{count} {}", if count == 1 { "ref" } else { "refs" });
    let mut mark = ' ';
    match known {
        Some(None) => (mark, text) = ('*', text + ", new"),
        Some(Some(known)) if known.references != file.references => {
            mark = '*';
            if known.references.len() != count {
                let _ = write!(text, ", was {}", known.references.len());
            }
        }
        _ => {}
    }
    let offset = if file.kind == Kind::File { format!(" at {}", file.offset) } else { String::new() };
    Row {
        mark,
        id: file.id,
        access: file.access.to_string(),
        object: file.object.clone() + &offset,
        count: text,
        outside: if file.outside { "+outside" } else { "" },
        references: by_process(&file.references),
    }
}

/// `4811:0,1,2` for each process.
fn by_process(references: &[Reference]) -> Vec<String> {
    let chunks = references.chunk_by(|one, next| one.pid == next.pid);
    chunks
        .map(|chunk| {
            let numbers: Vec<_> = chunk.iter().map(|reference| reference.fd.to_string()).collect();
            format!("{}:{}", chunk[0].pid, numbers.join(","))
        })
        .collect()
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Paths are told apart by their ends.
fn shorten_left(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.into();
    }
    ['…'].into_iter().chain(text.chars().skip(count - width + 1)).collect()
}

/// `ENOENT (No such file or directory)`
pub(super) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let message = text.split(" (os error").next().unwrap_or_default();
    let number = error.raw_os_error().unwrap_or(0);
    format!("{} ({message})", name(number).map_or_else(|| number.to_string(), str::to_owned))
}

/// The names of what the calls of a launch fail with.
fn name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::E2BIG => "E2BIG",
        libc::EACCES => "EACCES",
        libc::EAGAIN => "EAGAIN",
        libc::EBADF => "EBADF",
        libc::EINVAL => "EINVAL",
        libc::EIO => "EIO",
        libc::EISDIR => "EISDIR",
        libc::ELIBBAD => "ELIBBAD",
        libc::ELOOP => "ELOOP",
        libc::EMFILE => "EMFILE",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENFILE => "ENFILE",
        libc::ENOENT => "ENOENT",
        libc::ENOEXEC => "ENOEXEC",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTDIR => "ENOTDIR",
        libc::EPERM => "EPERM",
        libc::ETXTBSY => "ETXTBSY",
        _ => return None,
    })
}
