//! Groups errors by a fingerprint: their type, and the newest functions of their stack or else their message, without
//! the parts that differ between occurrences.
//!
//! Functions of the application count, and the library function that they called. Frames of runtimes and standard
//! libraries do not count, nor do lines and columns. Minified JavaScript is the exception: its names of one or two
//! letters identify nothing, so the position counts, which is the same for every request to one build.
//!
//! The fingerprint is stored with its row and never recomputed. After a change here, new errors form new groups beside
//! those of the stored rows. Alerts do not use it.

mod frame;
mod name;
mod stack;

use uuid::Uuid;

/// The namespace of fingerprints.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0e_41c7_9d63_5f28_a1d4_7c39_e60b_8f12);
/// Bytes of a message that count. The beginning identifies the error; the rest is mostly data.
const MESSAGE_BYTES: usize = 1_024;
/// Replaces each variable part.
const VARIABLE: u8 = b'#';

/// Returns the fingerprint of an error. The work is bounded by the constants above, whatever the record contains.
pub(super) fn of(error_type: &str, message: &str, stack: Option<&str>) -> Uuid {
    Uuid::new_v5(&NAMESPACE, &shape(error_type, message, stack))
}

/// Returns the bytes that are hashed.
fn shape(error_type: &str, message: &str, stack: Option<&str>) -> Vec<u8> {
    let mut shape = Vec::with_capacity(256);
    shape.extend_from_slice(error_type.as_bytes());
    shape.push(b'\n');
    let before = shape.len();
    if let Some(stack) = stack {
        stack::append(stack, &mut shape);
    }
    if shape.len() == before {
        without_variable_parts(start_of(message, MESSAGE_BYTES).as_bytes(), &mut shape);
    }
    shape
}

fn start_of(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn end_of(text: &str, bytes: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(bytes))..).unwrap_or_default()
}

/// Appends `text` without its variable parts: a number, id, address or time becomes one `#`, a quoted value becomes
/// `"#"`, and white space becomes one space.
fn without_variable_parts(text: &[u8], shape: &mut Vec<u8>) {
    // Once no closing quote of a kind was found, there is none further on. So each kind is searched in vain only once.
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
        } else if let Some(length) = quoted(text, at, &mut unclosed) {
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

/// `_` is not part of a word, so that `run_9f28` and `run_77ab` share their first word.
fn is_of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn word_of(text: &[u8]) -> &[u8] {
    let length = text.iter().take_while(|byte| is_of_a_word(**byte)).count();
    text.get(..length).unwrap_or_default()
}

/// Returns whether a word is variable. A word with a digit is a number, an id or a version; a word of at least eight
/// hexadecimal letters is an id that happens to have no digit.
fn is_variable(word: &[u8]) -> bool {
    const HEX_LETTERS: usize = 8;
    word.iter().any(u8::is_ascii_digit) || (word.len() >= HEX_LETTERS && word.iter().all(u8::is_ascii_hexdigit))
}

/// Returns whether a sign precedes a number and is not between two words.
fn is_sign(text: &[u8], at: usize) -> bool {
    let is_after_a_word = at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| is_of_a_word(*byte));
    !is_after_a_word && text.get(at + 1).is_some_and(u8::is_ascii_digit)
}

/// Appends one `#` for the variable word at the start of `text` and everything joined to it: the rest of an address, a
/// UUID or a time. Returns the length of all that.
fn variable(text: &[u8], shape: &mut Vec<u8>) -> usize {
    // A group of an address or a UUID may consist of letters only.
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

/// Returns the length of the quoted value that begins at `at`. An apostrophe within a word does not begin one.
fn quoted(text: &[u8], at: usize, unclosed: &mut [bool; 3]) -> Option<usize> {
    let quote = *text.get(at)?;
    let kind = unclosed.get_mut(b"\"'`".iter().position(|known| *known == quote)?)?;
    let is_in_a_word = at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|byte| is_of_a_word(*byte));
    if *kind || is_in_a_word {
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
    use super::stack::FRAMES;
    use super::*;

    fn message(text: &str) -> String {
        let mut shape = Vec::new();
        without_variable_parts(text.as_bytes(), &mut shape);
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

    /// Stacks as each language prints them. A line `===== GROUP, remark` begins each. Stacks with the same group must
    /// have the same fingerprint.
    const STACKS: [(&str, &str); 8] = [
        ("Rust", include_str!("fixtures/stacks/rust.txt")),
        ("Go", include_str!("fixtures/stacks/go.txt")),
        ("Java", include_str!("fixtures/stacks/java.txt")),
        (".NET", include_str!("fixtures/stacks/dotnet.txt")),
        ("JavaScript", include_str!("fixtures/stacks/javascript.txt")),
        ("Python", include_str!("fixtures/stacks/python.txt")),
        ("PHP", include_str!("fixtures/stacks/php.txt")),
        ("Ruby", include_str!("fixtures/stacks/ruby.txt")),
    ];

    fn stacks(text: &str) -> Vec<(&str, &str, &str)> {
        let stacks = text.split("===== ").skip(1).map(|stack| stack.split_once('\n').unwrap());
        stacks.map(|(title, stack)| (title.split_once(',').map_or(title, |(group, _)| group), title, stack)).collect()
    }

    #[test]
    fn functions_tell_groups_apart_and_lines_and_builds_do_not() {
        for (language, text) in STACKS {
            let stacks = stacks(text);
            let shape = |stack| String::from_utf8(shape("E", "a message", Some(stack))).unwrap();
            assert!(stacks.len() > 6, "{language}");
            for (group, title, stack) in &stacks {
                assert!(!shape(stack).contains("a message"), "{language}, {title}: no frame was found");
                for (other_group, other, other_stack) in &stacks {
                    let (one, two) = (shape(stack), shape(other_stack));
                    assert_eq!(one == two, group == other_group, "{language}: {title}:\n{one}\n{other}:\n{two}");
                }
            }
        }
    }

    #[test]
    fn frames_of_runtimes_and_standard_libraries_do_not_count() {
        for (language, text) in STACKS {
            for (_, title, stack) in stacks(text) {
                let shape = String::from_utf8(shape("E", "", Some(stack))).unwrap();
                for none in [
                    "std::",
                    "core::panicking",
                    "begin_unwind",
                    "runtime.",
                    "net/http",
                    "recoverAndReport",
                    "java.",
                    "jdk.",
                    "Proxy",
                    "System.",
                    "lambda_method",
                    "node:",
                    "Promise",
                    "webpack_require",
                    "frozen",
                    "asyncio",
                    "json",
                    "array_map",
                    "Kernel",
                    "kernel",
                    "parse'",
                ] {
                    // The stack has no other frame, or it is the only frame of a wrapper.
                    let is_expected = title.starts_with("charge through a proxy");
                    assert!(is_expected || !shape.contains(none), "{language}, {title}: {none} in\n{shape}");
                }
            }
        }
    }

    #[test]
    fn the_same_stack_is_one_group_whatever_the_message_says() {
        for (language, text) in STACKS {
            for (_, title, stack) in stacks(text) {
                let same = of("E", "x is 1", Some(stack));
                assert_eq!(of("E", "another message", Some(stack)), same, "{language}, {title}");
                assert_ne!(of("F", "x is 1", Some(stack)), same, "{language}, {title}");
                assert_ne!(of("E", "x is 1", None), same, "{language}, {title}");
            }
        }
    }

    #[test]
    fn a_message_counts_where_no_line_of_a_stack_is_a_frame() {
        for none in [
            "",
            "?",
            "x is 1\n\n",
            "at least one (of two) is missing\nat last (3) more",
            "#1 rule: never\n#!/bin/sh",
            "mail ann@example.com:25",
            "git@github.com:22",
            "12: not a frame of Rust",
            "thread 'main' panicked at src/main.rs:12:5:\nno card",
            "File \"",
            "in `nothing'",
            "\t.go:",
        ] {
            assert_eq!(of("TypeError", "x is 1", Some(none)), of("TypeError", "x is 2", None), "{none}");
        }
    }

    #[test]
    fn without_a_frame_of_the_application_those_of_libraries_count_and_then_those_of_the_runtime() {
        let shape = |stack: &str| String::from_utf8(shape("E", "m", Some(stack))).unwrap();
        let (library, runtime) = ("at query (/app/node_modules/pg/lib/client.js:1:2)", "at emit (node:events:517:28)");
        let application = "at load (/app/cart.js:3:4)";
        assert_eq!(shape(runtime), "E\nemit/node:events:517\n".replace(":517", ""));
        assert_eq!(shape(&format!("{runtime}\n{library}")), "E\nquery/lib/client.js\n");
        // The library function that the application called counts; the one that called the application does not.
        let all = format!("{runtime}\n{library}\n{application}\n{library}\n{runtime}");
        assert_eq!(shape(&all), "E\nquery/lib/client.js\nload/app/cart.js\n");
        assert_eq!(shape(&format!("{application}\n{library}")), "E\nload/app/cart.js\n");
    }

    #[test]
    fn a_recursion_is_the_same_however_deep_it_went() {
        let deep = |depth| format!("{}at main (/app/a.js:1:1)", "at walk (/app/a.js:7:3)\n".repeat(depth));
        assert_eq!(of("E", "", Some(&deep(2))), of("E", "", Some(&deep(30))));
        assert_ne!(of("E", "", Some(&deep(0))), of("E", "", Some(&deep(1))));
    }

    #[test]
    fn the_newest_frames_count() {
        let frames: Vec<_> = (b'a'..=b'z').map(|name| format!("    at {0}{0} (app.js:1)", char::from(name))).collect();
        let top = of("E", "", Some(&frames.join("\n")));
        assert_eq!(of("E", "", Some(&frames[..FRAMES].join("\n"))), top);
        assert_ne!(of("E", "", Some(&frames[1..].join("\n"))), top);
        let python: Vec<_> = (b'a'..=b'z')
            .map(|name| format!("  File \"/app.py\", line 3, in {0}{0}\n    x()", char::from(name)))
            .collect();
        for header in ["Traceback (most recent call last):\n", ""] {
            let whole = |frames: &[String]| format!("{header}{}\nKeyError: 3", frames.join("\n"));
            let top = of("E", "", Some(&whole(&python)));
            assert_eq!(of("E", "", Some(&whole(&python[python.len() - FRAMES..]))), top);
            assert_ne!(of("E", "", Some(&whole(&python[..python.len() - 1]))), top);
            // For any length of the stack.
            let long: Vec<_> = python.iter().cycle().take(40 * python.len()).cloned().collect();
            assert_eq!(of("E", "", Some(&whole(&long))), top);
        }
    }

    #[test]
    fn fingerprints_are_a_promise() {
        let of = |message, stack| of("TimeoutError", message, stack).to_string();
        assert_eq!(of("upstream did not answer within 30 s", None), "530f266e-aff3-5f17-a768-1b36791c0b61");
        assert_eq!(of("", Some("  at a (b.js:1)")), "25b6e8b6-ac5f-504a-a838-98caee9f036d");
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
            assert!(shape("E", &text, Some(&frames)).len() <= 4 * MESSAGE_BYTES);
        }
    }
}
