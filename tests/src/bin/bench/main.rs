//! `cargo xtask bench`: Apache Kafka 3.9.1 and ours under the same load, in turn, in one run on one
//! machine. Prints a table with ratios and writes `target/bench.json`. No figure here is a test.

mod report;
mod stages;

use std::time::Duration;

use anyhow::{Context as _, Result};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::tools::target;

use report::Report;
use stages::Sizes;

#[expect(clippy::print_stdout, reason = "the table is the output")]
fn main() -> Result<()> {
    let quick = std::env::args().skip(1).any(|word| word == "--quick");
    let sizes = if quick { Sizes::quick() } else { Sizes::full() };
    let mut report = Report::default();
    for round in 1..=sizes.rounds {
        for kind in [BrokerKind::Kafka, BrokerKind::Barnabas] {
            eprintln!("round {round} of {}: {kind:?}", sizes.rounds);
            stages::run(kind, &sizes, &mut |figure, value| {
                report.note(kind, figure, value);
            })
            .with_context(|| format!("{kind:?}, round {round}"))?;
        }
    }
    println!("{}", report.table());
    let file = target().join("bench.json");
    std::fs::write(&file, report.json()).with_context(|| file.display().to_string())?;
    println!("as JSON: {}", file.display());
    Ok(())
}

/// How long a broker is left alone before "idle" memory is read.
const SETTLE: Duration = Duration::from_secs(5);
