//! One frame of a stack trace: how each language writes it, where its code comes from, and what of it is the same
//! however often it happens.

use super::name;
use super::start_of;

/// Bytes of a function's name and of a file's that count.
const NAME_BYTES: usize = 256;
/// Beyond this column a line was not written by a person: the code is minified.
const MINIFIED_COLUMN: u32 = 200;
/// Minifiers give names of so many bytes at the most. They differ in each build, and name other functions elsewhere.
const MINIFIED_NAME_BYTES: usize = 2;

/// How a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Rust,
    Go,
    /// Java, Kotlin and Scala, and .NET: names are qualified by dots.
    Dotted,
    JavaScript,
    Python,
    Ruby,
    Php,
}

/// Where the code of a frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// What somebody can mend; all that is not known to be one of the others.
    Application,
    /// A dependency.
    Library,
    /// The language's runtime and its standard library, and what is generated.
    Runtime,
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'s> {
    form: Form,
    function: &'s str,
    /// The file as it is printed; empty where there is none.
    file: &'s str,
    /// Line and column as they are printed, where both are known, and the column's number.
    position: Option<(&'s str, u32)>,
}

impl<'s> Frame<'s> {
    pub(super) fn new(form: Form, function: &'s str, file: &'s str) -> Self {
        Self { form, function, file, position: None }
    }

    /// `at com.shop.Cart.charge(Cart.java:12)`, `at Shop.Cart.Charge(String a) in /src/Cart.cs:line 12`,
    /// `at charge (/app/cart.js:12:5)` and `at /app/cart.js:12:5`, each behind its `at `.
    pub(super) fn at(location: &'s str) -> Option<Self> {
        let location = location.strip_prefix("async ").unwrap_or(location).trim_end();
        // Node prints the properties of an error behind its last frame.
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
        // Mono writes a space before parameters as well.
        let is_javascript = function.ends_with(' ') && !rest.contains(") [0x");
        let function = function.trim_end();
        if function.is_empty() || (!is_javascript && function.contains(' ')) {
            return None;
        }
        if !is_javascript {
            return Some(Self::new(Form::Dotted, function, ""));
        }
        let inside = rest.get(1..)?.strip_suffix(')')?;
        // Code of an `eval` stands where that was called.
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

    /// `charge@https://shop.example/cart.js:12:5`, as Firefox and Safari write it.
    pub(super) fn gecko(text: &'s str) -> Option<Self> {
        let (function, location) = text.split_once('@')?;
        // `async*load`, `setTimeout handler*load`: only what runs counts.
        let function = function.rsplit('*').next().unwrap_or(function);
        let is_code = matches!(function, "global code" | "eval code" | "module code");
        if function.contains(' ') && !is_code {
            return None;
        }
        // `main.js line 12 > eval:1:1`: code of an `eval` stands where that was called.
        let (file, position) = match location.split_once(" line ") {
            Some((file, _)) => (file, None),
            None => positioned(location),
        };
        let is_location = location == "[native code]"
            || (file.len() < location.len() && (file.contains('/') || file.contains(".js")));
        let function = if is_code { "" } else { function };
        is_location.then_some(Self { form: Form::JavaScript, function, file, position })
    }

    /// `File "/app/cart.py", line 12, in charge`.
    pub(super) fn python(text: &'s str) -> Option<Self> {
        let (file, rest) = text.strip_prefix("File \"")?.split_once('"')?;
        let function = rest.split_once(" in ").map_or("", |(_, function)| function);
        Some(Self::new(Form::Python, function, file))
    }

    /// `main.(*Cart).charge(0x1)` above its file, `/app/cart.go:12 +0x1d`.
    pub(super) fn go(function: &'s str, file: &'s str) -> Option<Self> {
        let function = match function.strip_suffix(')') {
            Some(called) => called.rsplit_once('(')?.0,
            None => function,
        };
        // Who began a goroutine is none of its functions.
        let is_function = !function.is_empty() && !function.contains(' ');
        is_function.then_some(Self::new(Form::Go, function, file))
    }

    /// ``/app/cart.rb:12:in `charge'``, since Ruby 3.4 `in 'Cart#charge'`.
    pub(super) fn ruby(text: &'s str) -> Option<Self> {
        let (location, rest) = text.split_once(":in ")?;
        let function = rest.strip_prefix(['`', '\''])?;
        let end = function.find('\'')?;
        let (file, line) = location.rsplit_once(':')?;
        let is_line = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        is_line.then_some(Self::new(Form::Ruby, function.get(..end)?, file))
    }

    /// `#0 /app/cart.php(12): Cart->charge(1)`: number, function and where it was called.
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

    /// Whether frames above it say how a panic is reported and not where it comes from.
    pub(super) fn begins_a_panic(&self) -> bool {
        match self.form {
            Form::Go => self.function == "panic",
            Form::Rust => {
                self.function.ends_with("rust_begin_unwind") || self.function.starts_with("std::panicking::begin_panic")
            }
            _ => false,
        }
    }

    /// Whether two frames count as the same one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_place = !self.is_minified() || self.position == other.position;
        (self.form, self.function, self.file) == (other.form, other.function, other.file) && is_same_place
    }

    /// Where its code comes from.
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

    /// Whether its name says nothing. Then its position does, which is the same for every request to one build.
    fn is_minified(&self) -> bool {
        self.form == Form::JavaScript
            && self.position.is_some_and(|(_, column)| column >= MINIFIED_COLUMN)
            && name::javascript_last(self.function).len() <= MINIFIED_NAME_BYTES
    }

    /// Appends what is the same however often it happens: the function, and its file where functions of other files may
    /// have the same name.
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
                // What stands before the last dot is a minified class there.
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

/// Whether an unnamed location begins here, and not the name of a function: `/app/(shop)/page.js`, `C:\app`, a URL.
fn begins_with_a_path(location: &str) -> bool {
    let before = location.split_once('(').map_or(location, |(before, _)| before);
    let scheme = before.split_once(':').map(|(scheme, rest)| (scheme, rest.as_bytes()));
    location.starts_with('/')
        || scheme.is_some_and(|(scheme, rest)| {
            rest.starts_with(b"//") || scheme == "node" || (scheme.len() == 1 && rest.starts_with(b"\\"))
        })
}

/// A location without `:12:5` or `:12`, and these with the number of the column, which is 0 where there is none.
fn positioned(location: &str) -> (&str, Option<(&str, u32)>) {
    /// Without a number at its end and the colon before it.
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
