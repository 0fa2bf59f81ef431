//! Replaces characters that Postgres cannot store.
//!
//! `text` and `jsonb` cannot hold U+0000, and `jsonb` refuses half a surrogate pair. A record should not be lost
//! because of one character, so these become U+FFFD and `attributes.sanitized` is set.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

const REPLACEMENT_ESCAPE: &str = "\\ufffd";

/// Built once, because every message is searched for it.
static UNICODE_ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));

/// Returns the body as text that Postgres can hold, and whether anything was replaced: invalid UTF-8, U+0000, or half a
/// surrogate pair.
pub(crate) fn sanitize(body: &[u8]) -> (Cow<'_, str>, bool) {
    // The strict check is several times faster than the lossy one, and nearly always succeeds.
    let (mut text, mut sanitized) = match std::str::from_utf8(body) {
        Ok(text) => (Cow::Borrowed(text), false),
        Err(_) => (String::from_utf8_lossy(body), true),
    };
    if memchr::memchr(0, text.as_bytes()).is_some() {
        text = Cow::Owned(text.replace('\0', "\u{fffd}"));
        sanitized = true;
    }
    if UNICODE_ESCAPE.find(text.as_bytes()).is_some()
        && let Some(replaced) = replace_escapes(&text)
    {
        text = Cow::Owned(replaced);
        sanitized = true;
    }
    (text, sanitized)
}

/// Returns the text with `\u0000` and lone surrogate escapes replaced; `None` if there are none.
fn replace_escapes(text: &str) -> Option<String> {
    let mut replaced: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(offset) = memchr::memchr(b'\\', text.as_bytes().get(at..)?) {
        let escape = at + offset;
        let Some(unit) = unicode_escape(text, escape) else {
            at = escape + 2; // another escape: skip what it escapes, which may be a backslash
            continue;
        };
        let low_follows = || unicode_escape(text, escape + 6).is_some_and(|low| (0xDC00..0xE000).contains(&low));
        match unit {
            0xD800..0xDC00 if low_follows() => at = escape + 12,
            0 | 0xD800..0xE000 => {
                let out = replaced.get_or_insert_with(|| String::with_capacity(text.len()));
                out.push_str(&text[copied..escape]);
                out.push_str(REPLACEMENT_ESCAPE);
                at = escape + 6;
                copied = at;
            }
            _ => at = escape + 6,
        }
    }
    let mut out = replaced?;
    out.push_str(&text[copied..]);
    Some(out)
}

/// Returns the code unit of the `\uXXXX` that begins at `at`.
fn unicode_escape(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// Returns the longest prefix of `text` of at most `limit` bytes that ends at a character boundary.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_postgres_refuses_is_replaced() {
        for (body, text, sanitized) in [
            (br#"{"a":"b"}"#.as_slice(), r#"{"a":"b"}"#, false),
            (br#""a\u0000b""#, r#""a\ufffdb""#, true),
            (br#""a\\u0000b""#, r#""a\\u0000b""#, false),
            (br#""a\\\u0000b""#, r#""a\\\ufffdb""#, true),
            (b"\"a\0b\"", "\"a\u{fffd}b\"", true),
            (b"\"a\xffb\"", "\"a\u{fffd}b\"", true),
            (br#""\ud83d\ude00""#, r#""\ud83d\ude00""#, false),
            (br#""\ud83d""#, r#""\ufffd""#, true),
            (br#""\ud83dx""#, r#""\ufffdx""#, true),
            (br#""\ud83d\u0041""#, r#""\ufffd\u0041""#, true),
            (br#""\ude00\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#, true),
            (br#""\u00e9""#, r#""\u00e9""#, false),
            (br#""\u00zz""#, r#""\u00zz""#, false),
            (br#""\"#, r#""\"#, false),
        ] {
            assert_eq!(sanitize(body), (Cow::Borrowed(text), sanitized), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_cut_ends_at_a_character() {
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("ab", 9), "ab");
    }

    proptest! {
        #[test]
        fn sanitizing_ends_and_is_stable(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (once, _) = sanitize(&body);
            let (twice, changed) = sanitize(once.as_bytes());
            prop_assert!(!changed);
            prop_assert_eq!(&once, &twice);
            prop_assert!(!once.contains('\0'));
        }

        #[test]
        fn escapes_never_hide_a_nul(text in r#"(\\|u|0|d8|dc|3d|"|x){0,40}"#) {
            let quoted = format!("\"{text}\"");
            let (clean, _) = sanitize(quoted.as_bytes());
            if let Ok(value) = serde_json::from_str::<String>(&clean) {
                prop_assert!(!value.contains('\0'));
            }
        }
    }
}
