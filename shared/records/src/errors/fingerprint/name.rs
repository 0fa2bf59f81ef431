//! Normalizes names of functions and files: removes what compilers, bundlers and deployments add. Also determines the
//! origin of code from them. The lists cover what occurs in practice; everything else counts as the application.

use super::frame::Origin;

/// Parts of a path that count, from its end. Earlier parts differ between machines.
const PATH_PARTS: usize = 2;
/// Bytes of a file's name that count.
const FILE_BYTES: usize = 256;
/// Minimum length of a hash in a file's name, if it may consist of letters only.
const HASH_BYTES: usize = 8;

const RUST_CRATES: &[&str] = &["std", "core", "alloc", "test", "proc_macro", "std_detect", "panic_unwind", "__rustc"];
const RUST_LIBRARIES: &[&str] = &[
    "actix_rt",
    "actix_web",
    "anyhow",
    "async_std",
    "axum",
    "backtrace",
    "color_eyre",
    "crossbeam",
    "eyre",
    "futures",
    "futures_core",
    "futures_util",
    "hyper",
    "hyper_util",
    "rayon",
    "rayon_core",
    "serde",
    "serde_json",
    "smol",
    "tokio",
    "tonic",
    "tower",
    "tower_http",
    "tracing",
    "tracing_error",
];
/// Symbols of the C library and the linker, around `main` and threads.
const RUST_SYMBOLS: &[&str] = &[
    "main",
    "start",
    "clone",
    "clone3",
    "thread_start",
    "start_thread",
    "invoke_main",
    "BaseThreadInitThunk",
    "RtlUserThreadStart",
    "rust_begin_unwind",
    "rust_eh_personality",
    "rust_panic",
    "rust_oom",
];

const GO_STANDARD: &[&str] = &[
    "archive",
    "bufio",
    "builtin",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "panic",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "weak",
];

const DOTTED_RUNTIME: &[&str] = &[
    "java.",
    "javax.",
    "jdk.",
    "sun.",
    "com.sun.",
    "jrockit.",
    "kotlin.",
    "kotlinx.coroutines.",
    "scala.",
    "groovy.lang.",
    "org.codehaus.groovy.",
    "clojure.",
    "dalvik.",
    "libcore.",
    "com.android.internal.",
    "android.",
    "System.",
    "Microsoft.CSharp.",
    "Microsoft.FSharp.",
    "Microsoft.Win32.",
    "Internal.",
    "Interop.",
    "lambda_method",
];
const DOTTED_LIBRARIES: &[&str] = &[
    "org.springframework.",
    "org.apache.",
    "org.eclipse.jetty.",
    "org.hibernate.",
    "org.junit.",
    "org.jboss.",
    "org.postgresql.",
    "org.glassfish.",
    "com.fasterxml.",
    "com.google.common.",
    "com.zaxxer.",
    "com.mysql.",
    "io.netty.",
    "io.grpc.",
    "io.undertow.",
    "io.micrometer.",
    "io.vertx.",
    "reactor.",
    "jakarta.",
    "akka.",
    "play.",
    "okhttp3.",
    "retrofit2.",
    "Microsoft.",
    "Newtonsoft.Json.",
    "Npgsql.",
    "Autofac.",
    "MediatR.",
    "Polly.",
    "Serilog.",
    "Grpc.",
    "Dapper.",
];
/// Parts of names of classes that frameworks generate at run time.
const DOTTED_GENERATED: &[&str] =
    &["$Proxy", "CGLIB$$", "$$FastClass", "$$Enhancer", "$$Lambda", "$HibernateProxy$", "$ByteBuddy$", "$MockitoMock$"];

/// Built-in modules of Node before version 16, which have no folder.
const NODE_MODULES: &[&str] = &[
    "bootstrap_node.js",
    "buffer.js",
    "child_process.js",
    "crypto.js",
    "dgram.js",
    "dns.js",
    "domain.js",
    "events.js",
    "fs.js",
    "http.js",
    "https.js",
    "module.js",
    "net.js",
    "next_tick.js",
    "node.js",
    "stream.js",
    "timers.js",
    "tls.js",
    "url.js",
    "util.js",
    "vm.js",
    "zlib.js",
];

const PHP_CLASSES: &[&str] = &[
    "ArrayIterator",
    "ArrayObject",
    "Closure",
    "DateInterval",
    "DateTime",
    "DateTimeImmutable",
    "DOMDocument",
    "Generator",
    "IteratorIterator",
    "mysqli",
    "mysqli_stmt",
    "PDO",
    "PDOStatement",
    "Phar",
    "Redis",
    "ReflectionClass",
    "ReflectionFunction",
    "ReflectionMethod",
    "ReflectionNamedType",
    "SimpleXMLElement",
    "SoapClient",
    "SplFileObject",
];

/// Returns the folders and the file of a path, with either separator.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split(['/', '\\'])
}

/// Returns whether a path contains `parent/child`.
fn leads_through(path: &str, parent: &str, child: impl Fn(&str) -> bool) -> bool {
    parts(path).zip(parts(path).skip(1)).any(|(before, part)| before == parent && child(part))
}

/// Returns the type in `<shop::Cart as core::fmt::Display>::fmt`, or the trait if the type is generic.
fn rust_subject(function: &str) -> &str {
    let Some(inside) = function.strip_prefix('<') else { return function };
    let (subject, of) = inside.split_once(" as ").unwrap_or((inside, ""));
    let subject = subject.trim_start_matches(['<', '&', '*', '[', '(']);
    let subject = subject.strip_prefix("mut ").or_else(|| subject.strip_prefix("dyn ")).unwrap_or(subject);
    if subject.contains("::") || of.is_empty() { subject } else { of }
}

pub(super) fn rust_origin(function: &str, file: &str) -> Origin {
    if function == "<unknown>" {
        return Origin::Runtime;
    }
    let subject = rust_subject(function);
    let (first, is_path) = subject.split_once("::").map_or((subject, false), |(first, _)| (first, true));
    // `core[9f3a1c]` if names carry the crate's hash.
    let first = first.split_once('[').map_or(first, |(name, _)| name);
    let is_symbol = !is_path && (first.starts_with('_') || RUST_SYMBOLS.contains(&first));
    let is_of_the_toolchain = file.starts_with("/rustc/") || parts(file).any(|part| part == "rustlib");
    if is_symbol || RUST_CRATES.contains(&first) || is_of_the_toolchain {
        Origin::Runtime
    } else if RUST_LIBRARIES.contains(&first)
        || leads_through(file, ".cargo", |part| matches!(part, "registry" | "git"))
        || leads_through(file, "registry", |part| part == "src")
        || parts(file).any(|part| part == "vendor")
    {
        Origin::Library
    } else {
        Origin::Application
    }
}

/// Appends the name without `::h0123456789abcdef`, `[0123456789abcdef]`, closures, and the numbers in `{impl#0}`. A
/// closure counts as the function that contains it, and so does the body of an async function.
pub(super) fn rust(function: &str, shape: &mut Vec<u8>) {
    const HASH_DIGITS: usize = 16;
    let is_hash = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash = function.rsplit_once("::h").filter(|(_, hash)| hash.len() == HASH_DIGITS && is_hash(hash));
    let mut rest = hash.map_or(function, |(name, _)| name);
    while let Some(at) = rest.find(['{', '[']) {
        let (before, behind) = rest.split_at(at);
        let close = behind.find(['}', ']']).unwrap_or(behind.len());
        let inside = behind.get(1..close).unwrap_or_default();
        let (before, kept) = if inside.trim_start_matches('{').starts_with("closure") {
            (before.strip_suffix("::").unwrap_or(before), "")
        } else if behind.starts_with('[') && is_hash(inside) {
            (before, "")
        } else {
            (before, inside.split('#').next().unwrap_or(inside))
        };
        shape.extend_from_slice(before.as_bytes());
        shape.extend_from_slice(kept.as_bytes());
        rest = behind.get(close..).unwrap_or_default().trim_start_matches(['}', ']']);
    }
    shape.extend_from_slice(rest.as_bytes());
}

pub(super) fn go_origin(function: &str, file: &str) -> Origin {
    let package = function.split(['/', '.', '(']).next().unwrap_or_default();
    // The first part of a module path with a domain has a dot: `golang.org/x/net`.
    let is_on_the_web = function.split_once('/').is_some_and(|(first, _)| first.contains('.'));
    if !is_on_the_web && GO_STANDARD.contains(&package) {
        Origin::Runtime
    } else if leads_through(file, "pkg", |part| part == "mod")
        || parts(file).any(|part| part == "vendor" || part.contains("@v"))
    {
        Origin::Library
    } else {
        Origin::Application
    }
}

/// Appends the name without functions that the compiler numbers: `main.main.func1` and its wrappers count as
/// `main.main`.
pub(super) fn go(function: &str, shape: &mut Vec<u8>) {
    let mut function = function.strip_suffix("-fm").unwrap_or(function);
    while let Some((outer, last)) = function.rsplit_once('.') {
        let number = ["func", "gowrap", "deferwrap", ""].iter().find_map(|kind| last.strip_prefix(kind));
        let number = number.and_then(|number| if number.is_empty() { None } else { number.split('-').next() });
        if outer.is_empty() || !number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            break;
        }
        function = outer;
    }
    let function = function.split_once("·").map_or(function, |(name, _)| name);
    shape.extend_from_slice(function.as_bytes());
}

/// Removes `java.base/` and class loaders before a class.
fn without_module(function: &str) -> &str {
    let class = function.find('$').unwrap_or(function.len());
    let slash = function.get(..class).and_then(|before| before.rfind('/'));
    slash.and_then(|slash| function.get(slash + 1..)).unwrap_or(function)
}

pub(super) fn dotted_origin(function: &str) -> Origin {
    let name = without_module(function);
    let begins = |prefix: &&str| name.starts_with(*prefix);
    if DOTTED_RUNTIME.iter().any(begins) || DOTTED_GENERATED.iter().any(|part| name.contains(*part)) {
        Origin::Runtime
    } else if DOTTED_LIBRARIES.iter().any(begins) {
        Origin::Library
    } else {
        Origin::Application
    }
}

/// Appends the name without modules and type parameters. Generated names count as the method that contains them:
/// `lambda$main$0` of Java, `<ChargeAsync>d__5.MoveNext` and `<>c__DisplayClass3_0.<Main>b__0` of C#.
pub(super) fn dotted(function: &str, shape: &mut Vec<u8>) {
    let mut is_state_machine = false;
    let mut separator: &[u8] = b"";
    for segment in without_module(function).split('.') {
        if segment.starts_with("<>") || (segment == "MoveNext" && is_state_machine) {
            continue;
        }
        is_state_machine |= segment.starts_with('<') && segment.contains(">d");
        shape.extend_from_slice(separator);
        separator = b".";
        match segment.strip_prefix('<') {
            Some(generated) => {
                let method = generated.trim_start_matches('<');
                shape.extend_from_slice(method.split(['>', '$']).next().unwrap_or(method).as_bytes());
                // A local function has its own name: `<Main>g__Charge|0_0`.
                if let Some((_, local)) = segment.split_once(">g__") {
                    shape.push(b'.');
                    shape.extend_from_slice(local.split('|').next().unwrap_or(local).as_bytes());
                }
            }
            None => java(segment.split(['`', '[']).next().unwrap_or(segment), shape),
        }
    }
}

/// Appends a class or a method without the numbers and hashes after `$`.
fn java(segment: &str, shape: &mut Vec<u8>) {
    let named = segment.find("$$").filter(|at| *at > 0).and_then(|at| segment.get(..at)).unwrap_or(segment);
    let mut separator: &[u8] = b"";
    for part in named.split('$') {
        let part = if part.starts_with("Proxy") { part.trim_end_matches(|c: char| c.is_ascii_digit()) } else { part };
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            shape.extend_from_slice(separator);
            shape.extend_from_slice(part.as_bytes());
        }
        separator = b"$";
        if matches!(part, "HibernateProxy" | "ByteBuddy" | "MockitoMock") {
            break;
        }
    }
}

pub(super) fn javascript_origin(function: &str, file: &str) -> Origin {
    const SCHEMES: [&str; 6] = ["node:", "internal/", "ext:", "deno:", "bun:", "native:"];
    let is_builtin = matches!(file, "" | "<anonymous>" | "native" | "[native code]")
        || SCHEMES.iter().any(|scheme| file.starts_with(scheme))
        || function.ends_with("__webpack_require__");
    if is_builtin {
        return Origin::Runtime;
    }
    let (mut before, mut is_library) = ("", false);
    for part in parts(file) {
        match part {
            "node_modules" | "~" => is_library = true,
            "chrome-extension:" | "moz-extension:" | "safari-web-extension:" => is_library = true,
            "bootstrap" | "runtime" | "startup" if before == "webpack" => return Origin::Runtime,
            "(webpack)" => return Origin::Runtime,
            _ => {}
        }
        before = part;
    }
    // Without a folder, `before` is the whole file.
    let is_of_node = before.len() == file.len()
        && (file.starts_with("_http_")
            || file.starts_with("_stream_")
            || file.starts_with("index ")
            || NODE_MODULES.contains(&file));
    if is_of_node {
        Origin::Runtime
    } else if is_library {
        Origin::Library
    } else {
        Origin::Application
    }
}

/// Returns the name of a function without its object or class.
pub(super) fn javascript_last(function: &str) -> &str {
    let function = javascript_named(function);
    let last = function.rsplit(['.', '/']).next().unwrap_or(function);
    if last == "<anonymous>" { "" } else { last }
}

/// Removes `new`, `[as …]`, and the `/<` with which Firefox marks nested functions.
fn javascript_named(function: &str) -> &str {
    let function = function.split_once(" [as ").map_or(function, |(name, _)| name);
    let function = function.strip_prefix("new ").unwrap_or(function);
    function.trim_end_matches(['<', '/'])
}

/// Appends the name without parts that only some versions of engines add.
pub(super) fn javascript(function: &str, shape: &mut Vec<u8>) {
    let function = javascript_named(function);
    let receivers = ["Object.", "Function.", "Module.", "exports."];
    let function = receivers.iter().find_map(|receiver| function.strip_prefix(receiver)).unwrap_or(function);
    // Anonymous functions, and code outside of functions.
    let function = if matches!(function, "<anonymous>" | "eval") { "" } else { function };
    shape.extend_from_slice(function.as_bytes());
}

pub(super) fn python_origin(file: &str) -> Origin {
    if file.starts_with("<frozen ") {
        return Origin::Runtime;
    }
    if parts(file).any(|part| matches!(part, "site-packages" | "dist-packages")) {
        return Origin::Library;
    }
    let is_standard = leads_through(file, "lib", |part| part.starts_with("python"))
        || leads_through(file, "lib64", |part| part.starts_with("python"))
        || parts(file).zip(parts(file).skip(1)).any(|(before, part)| before.starts_with("Python3") && part == "Lib")
        || parts(file).any(|part| part.starts_with("python3") && part.ends_with(".zip"));
    if is_standard { Origin::Runtime } else { Origin::Application }
}

pub(super) fn ruby_origin(file: &str) -> Origin {
    if file.starts_with("<internal:") {
        Origin::Runtime
    } else if parts(file).any(|part| matches!(part, "gems" | "vendor")) {
        Origin::Library
    } else if leads_through(file, "lib", |part| part == "ruby") {
        Origin::Runtime
    } else {
        Origin::Application
    }
}

pub(super) fn php_origin(function: &str, file: &str) -> Origin {
    let name = function.split_once('(').map_or(function, |(name, _)| name);
    let (class, is_method) =
        name.split_once("->").or_else(|| name.split_once("::")).map_or((name, false), |(class, _)| (class, true));
    let is_standard = if is_method {
        PHP_CLASSES.contains(&class)
    } else {
        class.starts_with("array_") || class.starts_with("call_user_func") || class.starts_with("preg_replace_callback")
    };
    if file == "[internal function]" || is_standard {
        Origin::Runtime
    } else if parts(file).any(|part| part == "vendor") {
        Origin::Library
    } else {
        Origin::Application
    }
}

/// Appends the name without parameters. Returns whether it identifies the function: a closure has no name of its own.
pub(super) fn php(function: &str, shape: &mut Vec<u8>) -> bool {
    let Some((before, closure)) = function.split_once("{closure") else {
        let name = function.split_once('(').map_or(function, |(name, _)| name);
        shape.extend_from_slice(name.as_bytes());
        return true;
    };
    // Since PHP 8.4, `{closure:Shop::charge():12}` names the enclosing function and a line.
    let outer = closure.strip_prefix(':').map(|closure| closure.split(['(', '}']).next().unwrap_or(closure));
    match outer {
        Some(outer) if !outer.contains(['/', '.']) => shape.extend_from_slice(outer.as_bytes()),
        _ => shape.extend_from_slice(before.as_bytes()),
    }
    shape.extend_from_slice(b"{closure}");
    outer.is_some_and(|outer| !outer.contains(['/', '.']))
}

/// Appends the end of a path, without origin and query, and with `#` for the parts that differ between builds and
/// releases: hashes, numbers and versions.
pub(super) fn file(path: &str, shape: &mut Vec<u8>) {
    let path = path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or(rest, |(_, path)| path));
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let path = super::end_of(path, FILE_BYTES);
    let mut last = [""; PATH_PARTS];
    let counted = parts(path).rev().filter(|part| !matches!(*part, "" | "." | ".."));
    for (place, part) in last.iter_mut().zip(counted) {
        *place = part;
    }
    for part in last.iter().rev().filter(|part| !part.is_empty()) {
        shape.push(b'/');
        // Most parts are words. Others have a digit or a capital letter, or many hexadecimal digits.
        let is_suspect = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        if part.bytes().any(is_suspect) || part.bytes().filter(u8::is_ascii_hexdigit).count() >= HASH_BYTES {
            without_hashes(part, shape);
        } else {
            shape.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends a part of a path with `#` for hashes.
fn without_hashes(part: &str, shape: &mut Vec<u8>) {
    let part = without_bundle_hash(part, shape);
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        if length == 0 {
            let mut bytes = [0; 4];
            shape.extend_from_slice(first.encode_utf8(&mut bytes).as_bytes());
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (word, behind) = rest.split_at(length);
        if is_hash(word) {
            // `1.2.3` and `8f3a-77ab` become one `#`.
            if shape.len() < 2 || shape.get(shape.len() - 2) != Some(&b'#') {
                shape.push(b'#');
            } else {
                shape.pop();
            }
        } else {
            shape.extend_from_slice(word.as_bytes());
        }
        rest = behind;
    }
}

/// Handles `index-DwZkQbXy.js`, as Rollup and Vite name files: a hash of eight base64 characters. If there is one,
/// appends the part up to it and returns the rest.
fn without_bundle_hash<'p>(part: &'p str, shape: &mut Vec<u8>) -> &'p str {
    let stem = part.rfind('.').unwrap_or(part.len());
    let Some(start) = stem.checked_sub(HASH_BYTES).filter(|start| *start > 0) else { return part };
    let (Some(before), Some(hash)) = (part.get(..start), part.get(start..stem)) else { return part };
    let is_of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_mixed = hash.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if !before.ends_with(['-', '.']) || !hash.bytes().all(is_of_base64) || !is_mixed {
        return part;
    }
    without_hashes(before, shape);
    shape.push(b'#');
    part.get(stem..).unwrap_or_default()
}

/// Returns whether a word is a number or a hash.
fn is_hash(word: &str) -> bool {
    const HEX_DIGITS: usize = 6;
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits == word.len()
        || (is_hex && word.len() >= HEX_DIGITS && digits > 0)
        || (word.len() >= HASH_BYTES && (is_hex || digits > 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(of: impl Fn(&str, &mut Vec<u8>), name: &str) -> String {
        let mut shape = Vec::new();
        of(name, &mut shape);
        String::from_utf8(shape).unwrap()
    }

    #[test]
    fn names_are_without_what_compilers_add() {
        for (name, left) in [
            ("shop::charge_card", "shop::charge_card"),
            ("shop::charge_card::h0123456789abcdef", "shop::charge_card"),
            ("shop::hash::hardly", "shop::hash::hardly"),
            ("shop::main::{{closure}}::h0123456789abcdef", "shop::main"),
            ("shop::main::{{closure}}::{{closure}}", "shop::main"),
            ("shop::main::{closure#0}::{closure#12}", "shop::main"),
            ("shop::main::{{closure}}::inner", "shop::main::inner"),
            ("<shop::Cart as core::ops::Drop>::drop", "<shop::Cart as core::ops::Drop>::drop"),
            ("shop::{impl#3}::load", "shop::impl::load"),
            ("shop[867b5c192e01640d]::load", "shop::load"),
            ("<shop[867b5c192e01640d]::Cart>::load::{closure#0}", "<shop::Cart>::load"),
            ("shop::sum::<[u8]>", "shop::sum::<u8>"),
            ("{[", "["),
        ] {
            assert_eq!(cleaned(rust, name), left, "{name}");
        }
        for (name, left) in [
            ("main.chargeCard", "main.chargeCard"),
            ("main.(*Cart).charge-fm", "main.(*Cart).charge"),
            ("main.main.func1", "main.main"),
            ("main.main.func1.2", "main.main"),
            ("main.main.gowrap1", "main.main"),
            ("main.glob..func1", "main.glob."),
            ("main.function2", "main.function2"),
            ("github.com/acme/shop/v2.Charge", "github.com/acme/shop/v2.Charge"),
        ] {
            assert_eq!(cleaned(go, name), left, "{name}");
        }
        for (name, left) in [
            ("com.shop.Cart.charge", "com.shop.Cart.charge"),
            ("java.base/java.lang.Thread.run", "java.lang.Thread.run"),
            ("app//com.shop.Cart.charge", "com.shop.Cart.charge"),
            ("com.shop.Main.lambda$main$0", "com.shop.Main.lambda$main"),
            ("com.shop.Cart$1.run", "com.shop.Cart.run"),
            ("com.shop.Cart$Line.total", "com.shop.Cart$Line.total"),
            ("com.shop.Cart$$EnhancerBySpringCGLIB$$1a2b3c4d.charge", "com.shop.Cart.charge"),
            ("com.shop.Main$$Lambda$14/0x0000000800c03000.run", "com.shop.Main.run"),
            ("jdk.proxy2/jdk.proxy2.$Proxy17.charge", "jdk.proxy2.$Proxy.charge"),
            ("com.shop.Cart.<init>", "com.shop.Cart.init"),
            ("Shop.Cart.Charge", "Shop.Cart.Charge"),
            ("Shop.Cart.<ChargeAsync>d__5.MoveNext", "Shop.Cart.ChargeAsync"),
            ("Shop.Walker.MoveNext", "Shop.Walker.MoveNext"),
            ("Shop.Program.<>c__DisplayClass3_0.<Main>b__0", "Shop.Program.Main"),
            ("Shop.Program.<>c.<<Main>b__0_0>d.MoveNext", "Shop.Program.Main"),
            ("Program.<Main>$", "Program.Main"),
            ("Program.<<Main>$>g__Charge|0_0", "Program.Main.Charge"),
            ("Shop.Store`1.Load[T]", "Shop.Store.Load"),
        ] {
            assert_eq!(cleaned(dotted, name), left, "{name}");
        }
        for (name, left) in [
            ("Shop->charge('a', Object(Cart))", "Shop->charge"),
            ("App\\Shop->App\\{closure}(1)", "App\\Shop->App\\{closure}"),
            ("{closure:App\\Shop::charge():12}(1)", "App\\Shop::charge{closure}"),
            ("{closure:/app/index.php:12}(1)", "{closure}"),
        ] {
            assert_eq!(cleaned(|name, shape| assert_eq!(php(name, shape), left.contains("charge")), name), left);
        }
    }

    #[test]
    fn files_are_without_what_builds_and_releases_change() {
        for (path, left) in [
            ("/app/src/cart.js", "/src/cart.js"),
            ("./src/cart.js", "/src/cart.js"),
            ("C:\\work\\shop\\src\\cart.js", "/src/cart.js"),
            ("app.js", "/app.js"),
            ("file:///app/src/cart.mjs", "/src/cart.mjs"),
            ("https://shop.example/static/main.8f3a2c1b.js", "/static/main.#.js"),
            ("https://cdn.example/static/main.0d77aa12.js?v=17", "/static/main.#.js"),
            ("https://shop.example/assets/index-DwZkQbXy.js", "/assets/index-#.js"),
            ("https://shop.example/assets/index-D1_k-bXy.js", "/assets/index-#.js"),
            ("https://shop.example/main.js", "/main.js"),
            ("webpack:///./src/cart.js?a1b2", "/src/cart.js"),
            ("webpack://shop/./src/cart.js", "/src/cart.js"),
            ("/srv/releases/20260701/cart.rb", "/#/cart.rb"),
            ("/opt/shop-1.12.3/cart.rb", "/shop-#/cart.rb"),
            ("/app/step2/cart.py", "/step2/cart.py"),
            ("/app/utf8/decode.py", "/utf8/decode.py"),
            ("", ""),
        ] {
            assert_eq!(cleaned(file, path), left, "{path}");
        }
    }
}
