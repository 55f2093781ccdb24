//! `cargo xtask bench`: Apache Kafka 3.9.1 and ours under the same load, in turn, in one run on one
//! machine. Prints a table with ratios and writes `target/bench.json`. No figure here is a test.

mod cleaner;
mod cluster;
mod groups;
mod report;
mod stages;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::tools::target;

use report::{Figure, Report, Rows};
use stages::Sizes;

/// The rows of one broker; the others are those of a cluster.
const OF_ONE_BROKER: usize = 16;
/// The rows of groups.
const OF_GROUPS: usize = 3;
/// The rows of the log cleaner, at the end.
const OF_CLEANER: usize = 2;

#[expect(clippy::print_stdout, reason = "the table is the output")]
fn main() -> Result<()> {
    let (options, words): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with('-'));
    let known = ["--quick", "--ours"];
    if let Some(unknown) = options
        .iter()
        .find(|option| !known.contains(&option.as_str()))
    {
        bail!("unknown option {unknown}");
    }
    let rows = Rows::chosen(&words)?;
    let is_given = |name: &str| options.iter().any(|option| option == name);
    let quick = is_given("--quick");
    let kinds: &[BrokerKind] = if is_given("--ours") {
        &[BrokerKind::Barnabas]
    } else {
        &[BrokerKind::Kafka, BrokerKind::Barnabas]
    };
    let sizes = if quick { Sizes::quick() } else { Sizes::full() };
    let (single, others) = Figure::ALL.split_at(OF_ONE_BROKER);
    let (others, of_cleaner) = others.split_at(others.len() - OF_CLEANER);
    let (many, of_groups) = others.split_at(others.len() - OF_GROUPS);
    let mut report = Report::default();
    let mut failures = Vec::new();
    let mut kept = Vec::new();
    for round in 1..=sizes.rounds {
        for &kind in kinds {
            eprintln!("round {round} of {}: {kind:?}", sizes.rounds);
            let mut note = |figure: Figure, value: f64| {
                if rows.want(&[figure]) {
                    eprintln!("  {} {value:.3}", figure.name());
                    report.note(kind, figure, value);
                }
            };
            let mut outcomes = Vec::new();
            if rows.want(single) {
                outcomes.push(stages::run(kind, &sizes, &rows, &mut note));
            }
            if rows.want(many) {
                outcomes.push(cluster::run(kind, &sizes, &rows, &mut kept, &mut note));
            }
            if rows.want(of_groups) {
                outcomes.push(groups::run(kind, &sizes, &rows, &mut note));
            }
            if rows.want(of_cleaner) {
                outcomes.push(cleaner::run(kind, &sizes, &mut note));
            }
            for outcome in outcomes {
                // The other rows are worth having all the same.
                if let Err(error) = outcome.with_context(|| format!("{kind:?}, round {round}")) {
                    eprintln!("{error:#}");
                    failures.push(format!("{error:#}"));
                }
            }
        }
    }
    if quick {
        println!(
            "--quick: one round, a tenth of the partitions and less of the load, whatever the rows say"
        );
    }
    println!("{}", report.table());
    let file = target().join("bench.json");
    std::fs::write(&file, report.json()).with_context(|| file.display().to_string())?;
    println!("as JSON: {}", file.display());
    if !failures.is_empty() {
        bail!("some rows are missing:\n{}", failures.join("\n"));
    }
    Ok(())
}

/// How long a broker is left alone before "idle" memory is read.
const SETTLE: Duration = Duration::from_secs(5);
