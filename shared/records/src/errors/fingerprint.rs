//! What makes two errors the same one: their type, and the top of their stack or else their message, without the parts
//! that differ each time.
//!
//! The fingerprint is stored, so what is written here is a promise: a change of it makes new groups of old errors.

use uuid::Uuid;

/// The namespace of fingerprints.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0e_41c7_9d63_5f28_a1d4_7c39_e60b_8f12);
/// Of a message so much is looked at: what differs between two errors stands at its beginning, and what follows is data.
const MESSAGE_BYTES: usize = 1_024;
/// Of a stack so much is looked at, at the end where the newest frame stands.
const STACK_BYTES: usize = 4 * 1_024;
/// So many frames tell where an error came from. Deeper ones tell who called, which differs between callers.
const FRAMES: usize = 5;
/// Of a frame so much is looked at: a function and a file.
const FRAME_BYTES: usize = 256;
/// What stands for whatever differs.
const VARIABLE: u8 = b'#';

/// The fingerprint of an error. The work is bounded by the constants above, whatever the record says.
pub(super) fn of(error_type: &str, message: &str, stack: Option<&str>) -> Uuid {
    Uuid::new_v5(&NAMESPACE, &shape(error_type, message, stack))
}

/// What is hashed.
fn shape(error_type: &str, message: &str, stack: Option<&str>) -> Vec<u8> {
    let mut shape = Vec::with_capacity(256);
    shape.extend_from_slice(error_type.as_bytes());
    shape.push(b'\n');
    let before = shape.len();
    if let Some(stack) = stack {
        top_frames(stack, &mut shape);
    }
    if shape.len() == before {
        without_variable_parts(start_of(message, MESSAGE_BYTES).as_bytes(), Quotes::Differ, &mut shape);
    }
    shape
}

/// The newest frames of a stack, a line each. Nothing where none is recognized.
fn top_frames(stack: &str, shape: &mut Vec<u8>) {
    // Python alone writes the newest one last.
    if start_of(stack, STACK_BYTES).contains("most recent call last") {
        let newest: Vec<_> =
            end_of(stack, STACK_BYTES).lines().rev().filter(|line| is_frame(line)).take(FRAMES).collect();
        newest.into_iter().for_each(|line| frame(line, shape));
    } else {
        let newest = start_of(stack, STACK_BYTES).lines().filter(|line| is_frame(line)).take(FRAMES);
        newest.for_each(|line| frame(line, shape));
    }
}

/// JavaScript, Java, .NET and Rust write `at …`, Python `File "…"`, Go a path with its line behind a tab.
fn is_frame(line: &str) -> bool {
    let trimmed = line.trim_start();
    trimmed.starts_with("at ") || trimmed.starts_with("File \"") || (line.starts_with('\t') && trimmed.contains(".go:"))
}

fn frame(line: &str, shape: &mut Vec<u8>) {
    without_variable_parts(start_of(line.trim(), FRAME_BYTES).as_bytes(), Quotes::Stay, shape);
    shape.push(b'\n');
}

fn start_of(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn end_of(text: &str, bytes: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(bytes))..).unwrap_or_default()
}

/// What is done with what stands in quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// It is a value, as in messages.
    Differ,
    /// It is a name, as the file in a frame.
    Stay,
}

/// Appends `text` without what differs each time: numbers, ids, addresses and times become one `#`, a quoted value
/// becomes `"#"`, and white space one space.
fn without_variable_parts(text: &[u8], quotes: Quotes, shape: &mut Vec<u8>) {
    // Behind a place without a closing quote of a kind there is none further on either: each is searched for once.
    let mut unclosed = [false; 3];
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        if byte.is_ascii_whitespace() {
            at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            shape.push(b' ');
        } else if is_of_a_word(byte) {
            let word = word_of(rest);
            at += if is_variable(word) { variable(rest, shape) } else { literal(word, shape) };
        } else if matches!(byte, b'-' | b'+') && is_sign(text, at) {
            at += 1;
        } else if let Some(length) = quoted(text, at, quotes, &mut unclosed) {
            at += length;
            shape.extend_from_slice(b"\"#\"");
        } else {
            at += literal(&[byte], shape);
        }
    }
}

fn literal(word: &[u8], shape: &mut Vec<u8>) -> usize {
    shape.extend_from_slice(word);
    word.len()
}

/// `_` is none of a word: of `run_9f28` and `run_77ab` the first half is the same.
fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn word_of(text: &[u8]) -> &[u8] {
    let length = text.iter().take_while(|byte| is_of_a_word(**byte)).count();
    text.get(..length).unwrap_or_default()
}

/// A word with a digit is a number or an id or names a version; one of eight hexadecimal letters is an id that happens
/// to have no digit.
fn is_variable(word: &[u8]) -> bool {
    const HEX_LETTERS: usize = 8;
    word.iter().any(u8::is_ascii_digit) || (word.len() >= HEX_LETTERS && word.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a sign stands before a number and not between two words.
fn is_sign(text: &[u8], at: usize) -> bool {
    let is_after_a_word = at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| is_of_a_word(*byte));
    !is_after_a_word && text.get(at + 1).is_some_and(u8::is_ascii_digit)
}

/// Appends one `#` for the variable word that `text` begins with and for all that is joined to it: the rest of an
/// address, of a UUID or of a time. Returns how long that is.
fn variable(text: &[u8], shape: &mut Vec<u8>) -> usize {
    // Groups of addresses and UUIDs may have letters alone.
    let belongs = |word: &[u8]| is_variable(word) || (!word.is_empty() && word.iter().all(u8::is_ascii_hexdigit));
    let mut length = word_of(text).len();
    loop {
        let rest = text.get(length..).unwrap_or_default();
        let joint = rest.iter().take_while(|byte| matches!(byte, b'.' | b':' | b'-' | b',' | b'+' | b'/')).count();
        let word = word_of(rest.get(joint..).unwrap_or_default());
        if joint == 0 || !belongs(word) {
            break;
        }
        length += joint + word.len();
    }
    shape.push(VARIABLE);
    length
}

/// How long the quoted value is that begins at `at`. An apostrophe within a word begins none.
fn quoted(text: &[u8], at: usize, quotes: Quotes, unclosed: &mut [bool; 3]) -> Option<usize> {
    let quote = *text.get(at)?;
    let kind = unclosed.get_mut(b"\"'`".iter().position(|known| *known == quote)?)?;
    let is_in_a_word = at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| is_of_a_word(*byte));
    if quotes == Quotes::Stay || *kind || is_in_a_word {
        return None;
    }
    let behind = text.get(at + 1..)?;
    let closing = memchr::memchr_iter(quote, behind)
        .find(|closing| quote != b'\'' || !behind.get(closing + 1).is_some_and(|byte| is_of_a_word(*byte)));
    *kind = closing.is_none();
    closing.map(|closing| closing + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let mut shape = Vec::new();
        without_variable_parts(text.as_bytes(), Quotes::Differ, &mut shape);
        String::from_utf8(shape).unwrap()
    }

    #[test]
    fn what_differs_each_time_is_left_out_of_a_message() {
        for (text, left) in [
            ("", ""),
            ("upstream did not answer", "upstream did not answer"),
            ("upstream did not answer within 30 s", "upstream did not answer within # s"),
            ("took 1.5e-7 s, -3 or +4.25", "took # s, # or #"),
            ("read 1,234,567 bytes", "read # bytes"),
            ("at 0x7ffe12ab", "at #"),
            ("no run 019ecb27-1a30-7c02-9b1e-0d6a7f3c5e21", "no run #"),
            ("no run FACEB00C-dead-beef-cafe-0123456789ab.", "no run #."),
            ("commit deadbeef is gone", "commit # is gone"),
            ("the facade was added", "the facade was added"),
            ("run_9f28 of prj_01HZX3", "run_# of prj_#"),
            ("connect to 10.0.3.17:5432 failed", "connect to # failed"),
            ("connect to [fe80::1:cafe]:80", "connect to [#]:#"),
            ("at 2026-07-01T10:33:20.5Z", "at #"),
            ("user \"Ada Lovelace\" is unknown", "user \"#\" is unknown"),
            ("key 'a b' in `t`", "key \"#\" in \"#\""),
            ("didn't find 'it's'", "didn't find \"#\""),
            ("an \"open end", "an \"open end"),
            ("/srv/app/main.py:17:3 broke", "/srv/app/main.py:# broke"),
            ("a\t\r\n  b", "a b"),
            ("schön 5 °C", "schön # °C"),
        ] {
            assert_eq!(message(text), left, "{text}");
        }
    }

    #[test]
    fn a_stack_says_where_it_came_from_and_a_message_only_without_one() {
        let js = |line: u32| {
            format!("TypeError: x is {line}\n    at load (/app/run.js:{line}:7)\n    at async main (/app/index.js:3:1)")
        };
        let same = of("TypeError", "x is 1", Some(&js(1)));
        assert_eq!(of("TypeError", "y is 20", Some(&js(20))), same);
        assert_ne!(of("RangeError", "x is 1", Some(&js(1))), same);
        assert_ne!(of("TypeError", "x is 1", None), same);
        assert_ne!(of("TypeError", "x is 1", Some(&js(1).replace("load", "save"))), same);
        // A stack without a frame that is recognized is none.
        for none in ["", "?", "x is 1\n\n"] {
            assert_eq!(of("TypeError", "x is 1", Some(none)), of("TypeError", "x is 2", None));
        }
    }

    #[test]
    fn the_newest_frames_count() {
        let frames: Vec<_> =
            (b'a'..=b'z').map(|name| format!("    at {0}{0}() (app.js:1)", char::from(name))).collect();
        let top = of("E", "", Some(&frames.join("\n")));
        assert_eq!(of("E", "", Some(&frames[..FRAMES].join("\n"))), top);
        assert_ne!(of("E", "", Some(&frames[1..].join("\n"))), top);
        let python: Vec<_> = (b'a'..=b'z')
            .map(|name| format!("  File \"/app.py\", line 3, in {0}{0}\n    x()", char::from(name)))
            .collect();
        let whole =
            |frames: &[String]| format!("Traceback (most recent call last):\n{}\nKeyError: 3", frames.join("\n"));
        let top = of("E", "", Some(&whole(&python)));
        assert_eq!(of("E", "", Some(&whole(&python[python.len() - FRAMES..]))), top);
        assert_ne!(of("E", "", Some(&whole(&python[..python.len() - 1]))), top);
    }

    #[test]
    fn fingerprints_are_a_promise() {
        let of = |message, stack| of("TimeoutError", message, stack).to_string();
        assert_eq!(of("upstream did not answer within 30 s", None), "530f266e-aff3-5f17-a768-1b36791c0b61");
        assert_eq!(of("", Some("  at a (b.js:1)")), "28ead868-d7f0-5e43-9b4b-9db6a1a2374d");
    }

    #[test]
    fn the_work_is_bounded() {
        let near = "x ".repeat(MESSAGE_BYTES / 2);
        assert_eq!(of("E", &format!("{near}more"), None), of("E", &near, None));
        for text in
            ["'".repeat(60_000), "'a".repeat(30_000), "\"'`".repeat(20_000), "1.".repeat(30_000), "ä".repeat(30_000)]
        {
            assert!(shape("E", &text, None).len() <= 4 * MESSAGE_BYTES);
            let frames = format!("at {text}\n").repeat(3);
            assert!(shape("E", &text, Some(&frames)).len() <= 4 * MESSAGE_BYTES + FRAMES * 2 * FRAME_BYTES);
        }
    }
}
