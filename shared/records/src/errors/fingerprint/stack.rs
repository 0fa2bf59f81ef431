//! The newest frames of a stack trace, as Rust, Go, Java, .NET, JavaScript, Python, Ruby and PHP print them.
//!
//! A linear scan over lines, without regular expressions and without building the whole trace: the first byte
//! classifies most lines. Lines of unknown form are ignored, so text around a trace does no harm.

use super::frame::{Form, Frame, Origin};
use super::{end_of, start_of};

/// Bytes that are scanned at the beginning of a stack, where most languages print the newest frame: twice as many as a
/// Rust panic with `RUST_BACKTRACE=full` prints before the first frame of the application.
const HEAD_BYTES: usize = 8 * 1_024;
/// Bytes that are scanned at the end of a longer stack, where Python prints the newest frame and Java the cause.
const TAIL_BYTES: usize = 8 * 1_024;
/// Bytes of a line that are read: enough for a function with its parameters, and a file.
pub(super) const LINE_BYTES: usize = 1_024;
/// Frames that count. Deeper frames differ between callers and do not identify the error.
pub(super) const FRAMES: usize = 5;

/// Appends the newest frames of a stack to `shape`, one a line. Appends nothing if no line is a frame.
///
/// Of chained exceptions the first and the last one count, in the order in which the language prints them: the thrown
/// exception and its root cause. The frames of a wrapper alone would be the same for every exception that it wraps.
pub(super) fn append(stack: &str, shape: &mut Vec<u8>) {
    let mut scan = Scan::default();
    let head = start_of(stack, HEAD_BYTES);
    let tail = end_of(stack.get(head.len()..).unwrap_or_default(), TAIL_BYTES);
    for line in head.lines().chain(tail.lines()) {
        scan.line(start_of(line, LINE_BYTES));
        if scan.is_over {
            break;
        }
    }
    scan.end_of_section();
    for section in [scan.first, scan.last].into_iter().flatten() {
        section.append(shape);
    }
}

/// The state of the scan after a line.
#[derive(Default)]
struct Scan<'s> {
    /// The first exception with a frame.
    first: Option<Section<'s>>,
    /// The last exception with a frame, if there are several.
    last: Option<Section<'s>>,
    section: Section<'s>,
    /// The previous line: Go prints a function above its file.
    before: &'s str,
    /// A Rust function whose file may be on the next line.
    function: Option<&'s str>,
    /// Whether a Rust backtrace has started, in which inlined functions have no number.
    is_rust: bool,
    /// The file of the previous PHP frame: PHP prints a function with its caller's file.
    php_file: &'s str,
    /// Whether the line is one of the numbered causes that `anyhow` prints before its backtrace.
    is_list_of_causes: bool,
    /// Whether a goroutine was seen. Further goroutines are unrelated to the error.
    is_goroutine: bool,
    is_over: bool,
}

impl<'s> Scan<'s> {
    fn line(&mut self, line: &'s str) {
        let before = std::mem::replace(&mut self.before, line);
        // Python draws groups of exceptions with `|` and `+`.
        let indent = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'|')).count();
        let text = line.get(indent..).unwrap_or_default().trim_ascii_end();
        let Some(first) = text.bytes().next() else {
            self.end_of_function("");
            return;
        };
        if let Some(location) = text.strip_prefix("at ") {
            self.at(location);
            return;
        }
        self.end_of_function("");
        match first {
            b'F' if text.starts_with("File \"") => {
                let is_oldest_first = !self.section.is_newest_first;
                self.section.is_newest_last |= is_oldest_first;
                self.push(Frame::python(text));
            }
            b'#' => self.php(text),
            b'0'..=b'9' if self.numbered(text) => {}
            _ if line.starts_with('\t') && text.contains(".go:") => self.push(Frame::go(before, text)),
            _ if self.is_rust && line.starts_with("      ") => self.function = rust_function(text),
            _ if self.is_between_exceptions(line, text) => {}
            _ => {
                let ruby = text.strip_prefix("from ").unwrap_or(text);
                if let Some(frame) = Frame::ruby(ruby) {
                    // The first frame of a cause has no `from`; all others have.
                    if self.section.is_ruby_with_from && ruby.len() == text.len() && !self.section.is_newest_last {
                        self.end_of_section();
                    }
                    self.section.is_ruby_with_from |= ruby.len() < text.len();
                    self.push(Some(frame));
                } else {
                    self.push(Frame::gecko(text));
                }
            }
        }
    }

    /// Returns whether a line separates two exceptions, or introduces the frames after it.
    fn is_between_exceptions(&mut self, line: &str, text: &str) -> bool {
        if text.ends_with("(most recent call last):") {
            // In a chain, the line before has already ended the section.
            if !self.section.is_empty() {
                self.end_of_section();
            }
            self.section.is_newest_last = true;
        } else if text.ends_with("(most recent call first):") {
            self.section.is_newest_first = true;
        } else if text.ends_with("tack backtrace:") {
            self.is_list_of_causes = false;
        } else if text == "Caused by:" {
            self.is_list_of_causes = true;
        } else if text.starts_with("Suppressed: ") {
            self.end_of_section();
            self.section.is_suppressed = true;
        } else if text.starts_with("Caused by: ") {
            // The cause of a suppressed exception is indented like it.
            let is_suppressed = self.section.is_suppressed && line.starts_with([' ', '\t']);
            self.end_of_section();
            self.section.is_suppressed = is_suppressed;
        } else if text.starts_with("goroutine ") && text.ends_with("]:") {
            self.is_over = std::mem::replace(&mut self.is_goroutine, true);
        } else if text.starts_with("[cause]: ")
            || text.starts_with("---> ")
            || text.starts_with("--- End of inner exception")
            || text.starts_with("During handling of the above exception")
            || text.starts_with("The above exception was the direct cause")
            || text.starts_with("+-")
        {
            self.end_of_section();
        } else {
            return false;
        }
        true
    }

    /// Reads `at …`: a whole frame, or the file of the Rust function above.
    fn at(&mut self, location: &'s str) {
        if self.function.is_some() {
            self.end_of_function(location);
        } else if !self.is_rust && !self.section.is_full() {
            self.push(Frame::at(location));
        }
    }

    /// Reads `4: shop::charge` of Rust, or `4: from shop.rb:12:in 'charge'` of Ruby.
    fn numbered(&mut self, text: &'s str) -> bool {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let Some(rest) = text.get(digits..).and_then(|rest| rest.strip_prefix(": ")) else { return false };
        if let Some(ruby) = rest.strip_prefix("from ").and_then(Frame::ruby) {
            self.push(Some(ruby));
            return true;
        }
        if self.is_list_of_causes {
            return true;
        }
        let Some(function) = rust_function(rest.trim_start()) else { return false };
        if text.get(..digits) == Some("0") {
            self.end_of_section();
        }
        self.is_rust = true;
        self.function = Some(function);
        true
    }

    /// Reads `#0 /app/index.php(12): Shop->charge()`. The file is that of the call, so the function itself is in the
    /// file of the previous frame.
    fn php(&mut self, text: &'s str) {
        let Some((number, function, caller)) = Frame::php(text) else { return };
        if number == "0" {
            self.end_of_section();
            self.php_file = "";
        }
        let file = std::mem::replace(&mut self.php_file, caller);
        self.push(Some(Frame::new(Form::Php, function, file)));
    }

    fn end_of_function(&mut self, file: &'s str) {
        if let Some(function) = self.function.take() {
            self.push(Some(Frame::new(Form::Rust, function, file)));
        }
    }

    fn push(&mut self, frame: Option<Frame<'s>>) {
        if let Some(frame) = frame {
            self.section.push(frame);
        }
    }

    fn end_of_section(&mut self) {
        self.end_of_function("");
        let section = std::mem::take(&mut self.section);
        if !section.is_empty() && !section.is_suppressed {
            if self.first.is_none() {
                self.first = Some(section);
            } else {
                self.last = Some(section);
            }
        }
    }
}

/// Returns the function of a Rust frame, without the address that `RUST_BACKTRACE=full` prints before it. `None` for a
/// line of prose.
fn rust_function(text: &str) -> Option<&str> {
    let address = text.strip_prefix("0x").and_then(|rest| Some(rest.split_once(" - ")?.1));
    let function = address.unwrap_or(text);
    // `tracing` prints the fields of a span after its name.
    let function = function.split_once(" with ").map_or(function, |(name, _)| name);
    (function.contains("::") || !function.contains(' ')).then_some(function)
}

/// The frames of one exception that can count.
#[derive(Default)]
struct Section<'s> {
    application: Vec<Frame<'s>>,
    library: Vec<Frame<'s>>,
    runtime: Vec<Frame<'s>>,
    /// The newest library frame, if it is newer than all frames of the application: the application called it.
    called: Option<Frame<'s>>,
    is_newest_last: bool,
    is_newest_first: bool,
    is_suppressed: bool,
    is_ruby_with_from: bool,
}

impl<'s> Section<'s> {
    fn is_empty(&self) -> bool {
        self.application.is_empty() && self.library.is_empty() && self.runtime.is_empty()
    }

    /// Returns whether no further frame can count.
    fn is_full(&self) -> bool {
        !self.is_newest_last && self.application.len() == FRAMES
    }

    fn push(&mut self, frame: Frame<'s>) {
        // The frames above it report the panic, such as a handler that recovers and logs it.
        if frame.begins_a_panic() {
            self.application.clear();
            self.library.clear();
            self.called = None;
        }
        let is_newest_last = self.is_newest_last;
        let frames = match frame.origin() {
            Origin::Application => {
                if is_newest_last {
                    self.called = None;
                }
                &mut self.application
            }
            Origin::Library => {
                if is_newest_last || (self.application.is_empty() && self.called.is_none()) {
                    self.called = Some(frame);
                }
                &mut self.library
            }
            Origin::Runtime => &mut self.runtime,
        };
        // Recursion counts once, whatever its depth.
        if frames.last().is_some_and(|last| last.is_same(&frame)) {
            return;
        }
        if frames.len() < FRAMES {
            frames.push(frame);
        } else if is_newest_last {
            frames.remove(0);
            frames.push(frame);
        }
    }

    /// Appends the frames of the application and the library function that it called. Without any, appends the frames
    /// of libraries, else those of the runtime. A function and its closures are one line.
    fn append(&self, shape: &mut Vec<u8>) {
        let (called, frames) = match (&self.application[..], &self.library[..]) {
            ([], []) => (None, &self.runtime),
            ([], _) => (None, &self.library),
            _ => (self.called, &self.application),
        };
        let mut last = shape.len();
        let mut append = |frame: &Frame<'_>| {
            let start = shape.len();
            frame.append(shape);
            if shape.get(last..start) == shape.get(start..) {
                shape.truncate(start);
            } else {
                last = start;
            }
        };
        called.iter().for_each(&mut append);
        if self.is_newest_last {
            frames.iter().rev().for_each(append);
        } else {
            frames.iter().for_each(append);
        }
    }
}
