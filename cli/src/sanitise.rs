//! Names and texts from files and repositories, made safe to print. A name may hold escape
//! sequences that rewrite the screen, bidirectional overrides that show `gpj.exe` as `exe.jpg`, or
//! bytes that are not UTF-8; all are shown escaped. Names in JSON keep every byte: see
//! `insert_name`.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

/// A name or path, reversible: a backslash of its own is doubled.
pub(crate) fn name(bytes: &[u8]) -> String {
    escape(bytes, true)
}

pub(crate) fn path(path: &Path) -> String {
    name(path.as_os_str().as_encoded_bytes())
}

/// A name inside a longer text that goes through `text` later: only what `text` cannot see is
/// escaped here.
pub(crate) fn raw(bytes: &[u8]) -> String {
    escape(bytes, false)
}

/// A message: as `name`, but backslashes stay as they are.
pub(crate) fn text(text: &str) -> String {
    escape(text.as_bytes(), false)
}

/// Adds `key` with the name as text and, if the name is not UTF-8, `key`_hex with its bytes.
pub(crate) fn insert_name(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), hex(bytes).into());
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// One line of JSON in which no character can act on a terminal: JSON's own \u escapes lose
/// nothing.
pub(crate) fn json_line(value: &Value) -> String {
    let line = value.to_string();
    if !line.chars().any(acts_on_terminal) {
        return line;
    }
    let mut safe = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if acts_on_terminal(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

fn escape(bytes: &[u8], backslash_too: bool) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => safe.push_str("\\n"),
                '\r' => safe.push_str("\\r"),
                '\t' => safe.push_str("\\t"),
                '\\' if backslash_too => safe.push_str("\\\\"),
                c if c.is_ascii() && acts_on_terminal(c) => {
                    let _ = write!(safe, "\\x{:02x}", c as u32);
                }
                c if acts_on_terminal(c) => {
                    let _ = write!(safe, "\\u{{{:x}}}", c as u32);
                }
                c => safe.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// Controls (C0, DEL, C1), line and paragraph separators, bidirectional marks and overrides, and
/// characters that show nothing at all. The zero-width joiners U+200C and U+200D stay: scripts and
/// emoji need them.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_is_escaped() {
        let check = |bytes: &[u8], shown: &str| assert_eq!(name(bytes), shown);
        check(b"scan 001.dcm", "scan 001.dcm");
        check("Müller 日本 👩‍⚕️".as_bytes(), "Müller 日本 👩‍⚕️");
        check(b"a\x1b[2Jb", r"a\x1b[2Jb");
        check(b"\x1b]0;title\x07", r"\x1b]0;title\x07");
        check("c1 \u{9b}31m".as_bytes(), r"c1 \u{9b}31m");
        check(b"a\nb\rc\td\x7f\0", r"a\nb\rc\td\x7f\x00");
        check("\u{202e}gpj.exe".as_bytes(), r"\u{202e}gpj.exe");
        check("x\u{2066}y\u{2069}\u{200f}".as_bytes(), r"x\u{2066}y\u{2069}\u{200f}");
        check("tag\u{e0041}".as_bytes(), r"tag\u{e0041}");
        check(b"bad\xff\xfe", r"bad\xff\xfe");
        check(b"cut \xe2\x82", r"cut \xe2\x82");
        check(br"back\slash \x1b", r"back\\slash \\x1b");
    }

    #[test]
    fn messages_keep_their_backslashes() {
        assert_eq!(text("a\\b\u{1b}"), r"a\b\x1b");
    }

    #[test]
    fn json_keeps_every_byte_of_a_name() {
        let check = |bytes: &[u8], expected: &str| {
            let mut object = Map::new();
            insert_name(&mut object, "path", bytes);
            assert_eq!(json_line(&Value::Object(object)), expected);
        };
        check(b"/a", r#"{"path":"/a"}"#);
        check(b"/a\x1b", r#"{"path":"/a\u001b"}"#);
        check("/\u{202e}\u{9b}\u{e0041}".as_bytes(), r#"{"path":"/\u202e\u009b\udb40\udc41"}"#);
        check(b"/a\xff", "{\"path\":\"/a\u{fffd}\",\"path_hex\":\"2f61ff\"}");
    }
}
