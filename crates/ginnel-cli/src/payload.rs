//! A payload as people and as programs read it: text where it is text, hex where it is not.

use std::fmt::Write;

use serde::Serialize;

/// A payload's fields of a JSON object: its length, and its bytes as `text` or else as `hex`.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Payload {
    pub(crate) fn new(payload: &[u8]) -> Payload {
        let text = std::str::from_utf8(payload).ok().map(str::to_string);
        let hex = text.is_none().then(|| {
            payload.iter().fold(String::with_capacity(payload.len() * 2), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        Payload { bytes: payload.len(), text, hex }
    }
}

/// Sixteen bytes a line: offset, hex, and what of it is printable, as `hexdump -C` has it.
pub(crate) fn dump(bytes: &[u8], offset: u64) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", offset + index as u64 * 16);
        for column in 0..16 {
            let gap = if column == 8 { "  " } else { " " };
            let _ = match line.get(column) {
                Some(byte) => write!(text, "{gap}{byte:02x}"),
                None => write!(text, "{gap}  "),
            };
        }
        let printable = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let _ = writeln!(text, "  |{}|", line.iter().map(printable).collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_is_hex() {
        let json = |payload| serde_json::to_string(&Payload::new(payload)).unwrap();
        assert_eq!(json("schön".as_bytes()), r#"{"bytes":6,"text":"schön"}"#);
        assert_eq!(json(b"\xff\x00a"), r#"{"bytes":3,"hex":"ff0061"}"#);
        assert_eq!(json(b""), r#"{"bytes":0,"text":""}"#);
    }

    #[test]
    fn a_dump_looks_like_hexdump() {
        let expected = "\
00001000  68 65 6c 6c 6f 0a 00 00  00 00 00 00 00 00 00 00  |hello...........|
00001010  ff                                                |.|
";
        let mut bytes = b"hello\n".to_vec();
        bytes.resize(16, 0);
        bytes.push(0xff);
        assert_eq!(dump(&bytes, 0x1000), expected);
    }
}
