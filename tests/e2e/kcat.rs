//! kcat (Debian's, on librdkafka 2.0): each codec, offsets and timestamps, and a lot of real text.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::client_program::OneBroker;

/// Runs kcat with `input` piped into it.
pub(crate) fn kcat(address: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("kcat")
        .args(["-b", address, "-X", "allow.auto.create.topics=true"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat is installed");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// What kcat prints; it must succeed.
pub(crate) fn kcat_prints(address: &str, arguments: &[&str], input: &str) -> String {
    let output = kcat(address, arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "kcat {arguments:?}: {} {errors}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_codec() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let input = (0..100).fold(String::new(), |text, i| {
        text + &format!("key-{i}:value {i}\n")
    });
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("kcat-{codec}");
        let produce = [
            "-P", "-t", &topic, "-p", "0", "-z", codec, "-K", ":", "-H", "header=h",
        ];
        kcat_prints(&address, &produce, &input);

        let consume = ["-C", "-t", &topic, "-p", "0", "-e", "-q", "-f", "%k:%s\n"];
        let from =
            |start: &str| kcat_prints(&address, &[&consume[..], &["-o", start]].concat(), "");
        let tail = input.split_inclusive('\n').skip(40).collect::<String>();
        assert_eq!(from("beginning"), input, "{codec}");
        assert_eq!(from("40"), tail, "{codec}");
        assert_eq!(from("-60"), tail, "{codec}");
        let details = [
            "-C",
            "-t",
            &topic,
            "-e",
            "-q",
            "-c",
            "1",
            "-o",
            "40",
            "-f",
            "%T %h %p %o",
        ];
        let first = kcat_prints(&address, &details, "");
        let (timestamp, rest) = first.split_once(' ').unwrap();
        assert_eq!(rest, "header=h 0 40", "{codec}");
        // All records of a batch made within a millisecond share their time: the first of them is found.
        let found = from(&format!("s@{timestamp}"));
        assert!(
            input.ends_with(&found) && found.len() >= tail.len(),
            "{codec}: {found}"
        );
        assert_eq!(from(&format!("s@{}", i64::MAX / 2)), "", "{codec}");
    }
}

#[test]
fn listing_names_broker_and_topics() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    kcat_prints(&address, &["-P", "-t", "listed"], "hello\n");
    let listing = kcat_prints(&address, &["-L"], "");
    assert!(
        listing.contains(&format!("broker 0 at {address} (controller)")),
        "{listing}"
    );
    assert!(
        listing.contains("topic \"listed\" with 1 partitions"),
        "{listing}"
    );
    assert!(
        listing.contains("partition 0, leader 0, replicas: 0, isrs: 0"),
        "{listing}"
    );
}

const TEXT_BYTES: u64 = 220 * 1024 * 1024;
/// kcat drops empty messages, and sources have blank lines: cut where statements end instead.
const DELIMITER: &str = ";\n";
const LONGEST_PIECE: usize = 500_000;

/// Writes at least [`TEXT_BYTES`] of Rust source text, that of the crates this very workspace is built
/// from, in the order of their paths and repeated as often as it takes.
fn write_text(path: &Path) {
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"),
        PathBuf::from,
    );
    let mut sources = Vec::new();
    rust_sources(&cargo_home.join("registry/src"), &mut sources);
    sources.sort();
    let mut text = BufWriter::new(File::create(path).unwrap());
    let mut written = 0;
    while written < TEXT_BYTES {
        let before = written;
        for source in &sources {
            let Ok(mut content) = fs::read_to_string(source) else {
                continue;
            };
            content.push_str(DELIMITER);
            let mut pieces = content.split_terminator(DELIMITER);
            if pieces.any(|piece| piece.is_empty() || piece.len() > LONGEST_PIECE) {
                continue;
            }
            text.write_all(content.as_bytes()).unwrap();
            written += content.len() as u64;
            if written >= TEXT_BYTES {
                break;
            }
        }
        assert!(
            written > before,
            "no sources below {}",
            cargo_home.display()
        );
    }
    text.flush().unwrap();
}

fn rust_sources(directory: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            rust_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

fn require_same_bytes(found: impl Read, wanted: &Path) {
    let mut found = BufReader::new(found);
    let mut wanted = BufReader::new(File::open(wanted).unwrap());
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut position = 0;
    loop {
        let length = wanted.read(&mut one).unwrap();
        if length == 0 {
            assert_eq!(found.read(&mut other).unwrap(), 0, "more than was sent");
            return;
        }
        found
            .read_exact(&mut other[..length])
            .unwrap_or_else(|error| {
                panic!(
                    "the text ends between {position} and {}: {error}",
                    position + length
                )
            });
        assert!(
            one[..length] == other[..length],
            "other bytes after {position}"
        );
        position += length;
    }
}

#[test]
fn real_text_comes_back_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    write_text(&text);
    let one = OneBroker::start(|options| options.with("log.segment.bytes", 32 * 1024 * 1024));
    let address = one.broker.address();

    let produced = Command::new("kcat")
        .args([
            "-b",
            &address,
            "-P",
            "-t",
            "text",
            "-D",
            DELIMITER,
            "-X",
            "enable.idempotence=true",
        ])
        .stdin(File::open(&text).unwrap())
        .output()
        .unwrap();
    assert!(
        produced.status.success(),
        "{}",
        String::from_utf8_lossy(&produced.stderr)
    );

    let mut consumer = Command::new("kcat")
        .args([
            "-b",
            &address,
            "-C",
            "-t",
            "text",
            "-D",
            DELIMITER,
            "-o",
            "beginning",
            "-e",
            "-q",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    require_same_bytes(consumer.stdout.take().unwrap(), &text);
    assert!(consumer.wait().unwrap().success());
}
