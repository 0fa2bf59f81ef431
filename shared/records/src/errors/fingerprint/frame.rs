//! One frame of a stack trace: how each language prints it, where its code comes from, and its parts that are the same
//! for every occurrence.

use super::name;
use super::start_of;

/// Bytes of a function's name that count.
const NAME_BYTES: usize = 256;
/// From this column on, code is taken for minified: people do not write such long lines.
const MINIFIED_COLUMN: u32 = 200;
/// Maximum length of minified names. They differ between builds, and mean other functions elsewhere.
const MINIFIED_NAME_BYTES: usize = 2;

/// The format of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Rust,
    Go,
    /// Java, Kotlin, Scala and .NET: names are qualified with dots.
    Dotted,
    JavaScript,
    Python,
    Ruby,
    Php,
}

/// The origin of a frame's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The application: everything that is not known to be one of the others.
    Application,
    /// A dependency.
    Library,
    /// The language's runtime, its standard library, and generated code.
    Runtime,
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'s> {
    form: Form,
    function: &'s str,
    /// The file as printed; empty if there is none.
    file: &'s str,
    /// Line and column as printed, and the column as a number.
    position: Option<(&'s str, u32)>,
}

impl<'s> Frame<'s> {
    pub(super) fn new(form: Form, function: &'s str, file: &'s str) -> Self {
        Self { form, function, file, position: None }
    }

    /// Parses the part after `at ` of `at com.shop.Cart.charge(Cart.java:12)`,
    /// `at Shop.Cart.Charge(String a) in /src/Cart.cs:line 12`, `at charge (/app/cart.js:12:5)` and
    /// `at /app/cart.js:12:5`.
    pub(super) fn at(location: &'s str) -> Option<Self> {
        let location = location.strip_prefix("async ").unwrap_or(location).trim_end();
        // Node prints an error's properties after its last frame.
        let location = location.strip_suffix(" {").unwrap_or(location);
        let open = location.find('(').filter(|_| !begins_with_a_path(location));
        let Some(open) = open else {
            let (file, position) = positioned(location);
            let is_location = position.is_some() || matches!(location, "<anonymous>" | "native");
            return is_location.then_some(Self { form: Form::JavaScript, function: "", file, position });
        };
        let (function, rest) = location.split_at_checked(open)?;
        if !rest.ends_with(')') && !rest.contains(") in ") && !rest.contains(") [0x") {
            return None;
        }
        // Mono also prints a space before parameters.
        let is_javascript = function.ends_with(' ') && !rest.contains(") [0x");
        let function = function.trim_end();
        if function.is_empty() || (!is_javascript && function.contains(' ')) {
            return None;
        }
        if !is_javascript {
            return Some(Self::new(Form::Dotted, function, ""));
        }
        let inside = rest.get(1..)?.strip_suffix(')')?;
        // Code in an `eval` has the location of the call of `eval`.
        match inside.strip_prefix("eval at ").and_then(|inside| inside.split_once(" (")) {
            Some((function, inside)) => {
                let inside = inside.rsplit("eval at ").next()?;
                let inside = inside.split_once(" (").map_or(inside, |(_, innermost)| innermost);
                let (file, position) = positioned(inside.split_once(')')?.0);
                Some(Self { form: Form::JavaScript, function, file, position })
            }
            None => {
                let (file, position) = positioned(inside);
                Some(Self { form: Form::JavaScript, function, file, position })
            }
        }
    }

    /// Parses `charge@https://shop.example/cart.js:12:5`, as Firefox and Safari print it.
    pub(super) fn gecko(text: &'s str) -> Option<Self> {
        let (function, location) = text.split_once('@')?;
        // Of `async*load` and `setTimeout handler*load`, only the running function counts.
        let function = function.rsplit('*').next().unwrap_or(function);
        let is_code = matches!(function, "global code" | "eval code" | "module code");
        if function.contains(' ') && !is_code {
            return None;
        }
        // `main.js line 12 > eval:1:1`: code in an `eval` has the location of the call of `eval`.
        let (file, position) = match location.split_once(" line ") {
            Some((file, _)) => (file, None),
            None => positioned(location),
        };
        let is_location = location == "[native code]"
            || (file.len() < location.len() && (file.contains('/') || file.contains(".js")));
        let function = if is_code { "" } else { function };
        is_location.then_some(Self { form: Form::JavaScript, function, file, position })
    }

    /// Parses `File "/app/cart.py", line 12, in charge`.
    pub(super) fn python(text: &'s str) -> Option<Self> {
        let (file, rest) = text.strip_prefix("File \"")?.split_once('"')?;
        let function = rest.split_once(" in ").map_or("", |(_, function)| function);
        Some(Self::new(Form::Python, function, file))
    }

    /// Parses `main.(*Cart).charge(0x1)` and the line below it with its file, `/app/cart.go:12 +0x1d`.
    pub(super) fn go(function: &'s str, file: &'s str) -> Option<Self> {
        let function = match function.strip_suffix(')') {
            Some(called) => called.rsplit_once('(')?.0,
            None => function,
        };
        // `created by …` is not a frame of the goroutine.
        let is_function = !function.is_empty() && !function.contains(' ');
        is_function.then_some(Self::new(Form::Go, function, file))
    }

    /// Parses ``/app/cart.rb:12:in `charge'``; since Ruby 3.4 `in 'Cart#charge'`.
    pub(super) fn ruby(text: &'s str) -> Option<Self> {
        let (location, rest) = text.split_once(":in ")?;
        let function = rest.strip_prefix(['`', '\''])?;
        let end = function.find('\'')?;
        let (file, line) = location.rsplit_once(':')?;
        let is_line = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        is_line.then_some(Self::new(Form::Ruby, function.get(..end)?, file))
    }

    /// Parses `#0 /app/cart.php(12): Cart->charge(1)`: number, function, and the file of the call.
    pub(super) fn php(text: &'s str) -> Option<(&'s str, &'s str, &'s str)> {
        let (number, rest) = text.strip_prefix('#')?.split_once(' ')?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (file, call) = match rest.split_once("): ") {
            Some((called, call)) => (called.rsplit_once('(')?.0, call),
            None => match rest.strip_prefix("[internal function]: ") {
                Some(call) => ("[internal function]", call),
                None => return (rest == "{main}").then_some((number, rest, "")),
            },
        };
        Some((number, call, file))
    }

    /// Returns whether the frames above it only report a panic and do not show its origin.
    pub(super) fn begins_a_panic(&self) -> bool {
        match self.form {
            Form::Go => self.function == "panic",
            Form::Rust => {
                self.function.ends_with("rust_begin_unwind") || self.function.starts_with("std::panicking::begin_panic")
            }
            _ => false,
        }
    }

    /// Returns whether two frames count as the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_place = !self.is_minified() || self.position == other.position;
        (self.form, self.function, self.file) == (other.form, other.function, other.file) && is_same_place
    }

    /// Returns the origin of its code.
    pub(super) fn origin(&self) -> Origin {
        match self.form {
            Form::Rust => name::rust_origin(self.function, self.file),
            Form::Go => name::go_origin(self.function, self.file),
            Form::Dotted => name::dotted_origin(self.function),
            Form::JavaScript => name::javascript_origin(self.function, self.file),
            Form::Python => name::python_origin(self.file),
            Form::Ruby => name::ruby_origin(self.file),
            Form::Php => name::php_origin(self.function, self.file),
        }
    }

    /// Returns whether its name is minified. Then its position counts, which is the same for every request to one
    /// build.
    fn is_minified(&self) -> bool {
        self.form == Form::JavaScript
            && self.position.is_some_and(|(_, column)| column >= MINIFIED_COLUMN)
            && name::javascript_last(self.function).len() <= MINIFIED_NAME_BYTES
    }

    /// Appends the parts that are the same for every occurrence: the function, and its file if functions of other files
    /// may have the same name.
    pub(super) fn append(&self, shape: &mut Vec<u8>) {
        let function = start_of(self.function, NAME_BYTES);
        let file = start_of(self.file, super::stack::LINE_BYTES);
        match self.form {
            Form::Rust => name::rust(function, shape),
            Form::Go => name::go(function, shape),
            Form::Dotted => name::dotted(function, shape),
            Form::JavaScript if self.is_minified() => {
                shape.extend_from_slice(self.position.map_or("", |(position, _)| position).as_bytes());
                name::file(file, shape);
            }
            Form::JavaScript => {
                let is_wide = self.position.is_some_and(|(_, column)| column >= MINIFIED_COLUMN);
                // In a minified file, the part before the last dot is a minified class.
                let function = if is_wide { name::javascript_last(function) } else { function };
                name::javascript(function, shape);
                name::file(file, shape);
            }
            Form::Python => {
                shape.extend_from_slice(function.as_bytes());
                name::file(file, shape);
            }
            Form::Ruby => {
                let function = function.rsplit_once(" in ").map_or(function, |(_, method)| method);
                shape.extend_from_slice(function.as_bytes());
                if !function.contains(['#', '.']) {
                    name::file(file, shape);
                }
            }
            Form::Php => {
                if !name::php(function, shape) {
                    name::file(file, shape);
                }
            }
        }
        shape.push(b'\n');
    }
}

/// Returns whether a location begins here, such as `/app/(shop)/page.js`, `C:\app` or a URL, and not a function's name.
fn begins_with_a_path(location: &str) -> bool {
    let before = location.split_once('(').map_or(location, |(before, _)| before);
    let scheme = before.split_once(':').map(|(scheme, rest)| (scheme, rest.as_bytes()));
    location.starts_with('/')
        || scheme.is_some_and(|(scheme, rest)| {
            rest.starts_with(b"//") || scheme == "node" || (scheme.len() == 1 && rest.starts_with(b"\\"))
        })
}

/// Splits `:12:5` or `:12` off a location. Returns the file, and the position with its column, which is 0 if absent.
fn positioned(location: &str) -> (&str, Option<(&str, u32)>) {
    /// Splits a number and the colon before it off the end.
    fn without_number(text: &str) -> Option<(&str, &str)> {
        let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (before, number) = text.split_at_checked(text.len() - digits)?;
        Some((before.strip_suffix(':')?, number)).filter(|_| digits > 0)
    }
    let Some((before, last)) = without_number(location) else { return (location, None) };
    let Some((file, _)) = without_number(before) else { return (before, Some((last, 0))) };
    let position = location.get(file.len() + 1..).unwrap_or_default();
    (file, Some((position, last.parse().unwrap_or(u32::MAX))))
}
