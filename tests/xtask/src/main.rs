//! The developer's single entry: `cargo xtask <task>`. Run without a task it lists them.

/// Prints a line. Nobody reading any more (`cargo xtask up | head`) is no reason to end the work half-way.
macro_rules! println {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod arguments;
mod bench;
mod fuzz;
mod images;
mod install;
mod kubernetes;
mod lint;
mod processes;
mod run;
mod sim;
mod test;
mod up;

use std::process::ExitCode;

use anyhow::{Result, bail};

const TASKS: &str = "\
cargo xtask <task>

  up       start ZooKeeper and brokers on this machine and wait until they serve
             --brokers N                      how many brokers (1): localhost:9092, :9093, ...
             --zookeepers N                   how many ZooKeeper servers (1): localhost:2181, :2182, ...
             --zookeeper HOST:PORT[,...]/PATH use this ensemble instead of starting one
             --fresh                          forget all state first
             --debug                          build without optimizing, which is sooner done
             --kubernetes                     instead: a cluster with four nodes, and the chart installed in it (root)
  down     stop what `up` started; the state stays
  test     install what the tests need and run all tests
             --judge                          run the client tests against Apache Kafka 3.9.1 instead
             NAME                             only tests whose name contains NAME
             kubernetes                       the chart on a cluster with four real nodes (root; not part of the others)
             kubernetes --release             the same with the images that ship
  lint     rustfmt, clippy and cargo-deny, warnings denied
  bench    one load on Apache Kafka 3.9.1 and on Barnabas, side by side (target/bench.json)
             --quick                          a tenth of the load
             --ours                           ours alone, without ratios: to see where time goes
             ROW ...                          these rows only, by name (latency-p99) or group (latency, many)
             operator                         the operator's budgets: 10,000 Topics, drift, plans (--quick: 1,000)
  fuzz     run the fuzz targets
             --seconds N                      for each target (30)
             --seed N                         the seed that a failure has printed
  sim      whole brokers in a simulated world, with new seeds for ever
             --seconds N                      for so long
             --steps N                        until so many events have happened
             --seed N                         the one world of this seed, which a failure has printed
             --trace                          with it: print all its events
             --log LEVEL                      with it: print what its brokers log
  images   container images of the broker and the operator, without a daemon: target/images
             --tag TAG                        their tag (0.1.0)
             --debug                          build without optimizing, which is sooner done
  install  what `test` installs, without running anything
";

fn main() -> ExitCode {
    match dispatch(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(mut words: Vec<String>) -> Result<()> {
    if words.is_empty() {
        println!("{}", TASKS.trim_end());
        return Ok(());
    }
    let task = words.remove(0);
    match task.as_str() {
        "up" => up::up(words),
        "down" => up::down(words),
        "test" => test::test(words),
        "lint" => lint::lint(words),
        "bench" => bench::bench(words),
        "fuzz" => fuzz::fuzz(words),
        "sim" => sim::sim(words),
        "images" => images::images(words),
        "install" => install::for_tests(),
        "help" | "--help" | "-h" => {
            println!("{}", TASKS.trim_end());
            Ok(())
        }
        other => bail!("there is no task `{other}`; `cargo xtask` lists them"),
    }
}
