//! Errors become Kafka's codes in one place: everywhere else they are enums that say what is wrong.

use std::path::{Path, PathBuf};

/// Where codes may be named: where errors become codes, and where answers of other brokers are read.
const PLACES: [&str; 3] = ["api/error_code.rs", "api/error_code/", "peer/"];

/// What names a code: the protocol crate's enum, and numbers put into an answer.
fn names_a_code(line: &str) -> bool {
    let number = |after: &str| {
        line.split(after).skip(1).any(|rest| {
            let rest = rest.trim_start().trim_start_matches('-');
            rest.starts_with(|first: char| first.is_ascii_digit())
        })
    };
    line.contains("ResponseError")
        || number("with_error_code(")
        || number("with_partition_error_code(")
        || number("error_code:")
        || number("error_code =")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file that are no tests; those stand at its end.
fn shipped(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod tests {");
    text[..tests.unwrap_or(text.len())].lines().enumerate()
}

#[test]
fn codes_are_named_only_where_errors_become_codes() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offenders = Vec::new();
    for root in [package.join("src"), package.join("core/src")] {
        let mut files = Vec::new();
        sources(&root, &mut files);
        for path in files {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if PLACES.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = shipped(&text).filter(|(_, line)| names_a_code(line));
            offenders.extend(
                lines.map(|(number, line)| format!("{name}:{}: {}", number + 1, line.trim())),
            );
        }
    }
    assert!(
        offenders.is_empty(),
        "codes outside api/error_code.rs:\n{}",
        offenders.join("\n")
    );
}

#[test]
fn what_names_a_code_is_seen() {
    assert!(names_a_code(
        "    .with_error_code(ResponseError::NotController.code())"
    ));
    assert!(names_a_code("    .with_error_code(-1)"));
    assert!(names_a_code("    error_code: 41,"));
    assert!(!names_a_code("    .with_error_code(error.error_code())"));
}
