//! What goes to standard output: text, aligned tables, JSON. A closed pipe ends the command quietly.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Writes to standard output, and flushes: what has been printed is there when we are killed.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::failed(format!("standard output: {error}")),
    })
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<()> {
    print(format!("{}\n", text.as_ref()))
}

/// Writes to standard error. Where nobody reads that there is nobody to tell so.
pub(crate) fn tell(text: impl AsRef<str>) {
    let _ = io::stderr().write_all(text.as_ref().as_bytes());
}

/// Writes a value as JSON, indented on a terminal and for files alike.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::failed(format!("JSON: {error}")))?;
    line(text)
}

/// Writes a value as one line of JSON: one of a stream of values.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value).map_err(|error| Failure::failed(format!("JSON: {error}")))?)
}

/// An aligned table without lines; the columns named in `right` are right-aligned (numbers).
pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.iter().copied());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Drops the blanks that padding leaves at the ends of lines.
pub(crate) fn trim_lines(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
