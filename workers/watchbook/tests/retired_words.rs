//! The glossary of ARCHITECTURE.md has one term for each idea. The words that it replaced stay out of the tree.

// A test's panic is its report.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use regex::Regex;

const RETIRED: &str = include_str!("retired_words.txt");
/// Released migrations are compared by checksum and so keep their comments.
const SKIPPED: [&str; 5] = [".git", "target", ".watchbook", "migrations", "retired_words.txt"];
/// Text files of the repository.
const EXTENSIONS: [&str; 8] = ["conf", "md", "rs", "service", "sh", "sql", "toml", "yaml"];

fn search(directory: &Path, retired: &[Regex], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            search(&path, retired, found);
        } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|text| extension == *text)) {
            let text = std::fs::read_to_string(&path).unwrap();
            for word in retired.iter().flat_map(|retired| retired.find_iter(&text)) {
                let line = text[..word.start()].matches('\n').count() + 1;
                found.push(format!("{}:{line}: {}", path.display(), word.as_str()));
            }
        }
    }
}

#[test]
fn retired_words_stay_out_of_the_tree() {
    let lines = RETIRED.lines().filter(|line| !line.starts_with('#'));
    let retired: Vec<_> =
        lines.map(|line| Regex::new(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect();
    assert!(retired.iter().any(|word| word.is_match(concat!("the ", "des", "k"))), "the list is read");
    let mut found = Vec::new();
    search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &retired, &mut found);
    assert!(found.is_empty(), "use the terms of the glossary in ARCHITECTURE.md:\n{}", found.join("\n"));
}
