//! `load produce|consume|latency [--key value]...`: one load on a running broker, its figures as JSON.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use barnabas_tests::load;

const USAGE: &str = "load produce --bootstrap localhost:9092 --topic load --partitions 1 \
    --record-size 1024 --records-per-batch 100 --total-mib 1024 --connections 1 --in-flight 5 --acks -1
load consume --bootstrap localhost:9092 --topic load --partition 0 --from 0 --until N --max-bytes 1048576
load latency --bootstrap localhost:9092 --topic load --from 0 --count 10000 --record-size 100 --rate 1000";

struct Options(BTreeMap<String, String>);

impl Options {
    fn get<T: FromStr>(&self, key: &str, default: T) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.0.get(key) {
            Some(text) => text.parse().with_context(|| format!("--{key} {text}")),
            None => Ok(default),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let Some(task) = words.next() else {
        bail!("usage:\n{USAGE}")
    };
    let mut options = Options(BTreeMap::new());
    while let Some(word) = words.next() {
        let key = word
            .strip_prefix("--")
            .with_context(|| format!("`{word}`; usage:\n{USAGE}"))?;
        let value = words
            .next()
            .with_context(|| format!("--{key} takes a value"))?;
        options.0.insert(key.to_owned(), value);
    }
    let bootstrap: String = options.get("bootstrap", "localhost:9092".to_owned())?;
    let topic: String = options.get("topic", "load".to_owned())?;
    let figures = match task.as_str() {
        "produce" => {
            let what = load::Produce {
                partitions: options.get("partitions", 1)?,
                record_size: options.get("record-size", 1024)?,
                records_per_batch: options.get("records-per-batch", 100)?,
                total_bytes: options.get("total-mib", 1024_u64)? << 20,
                connections: options.get("connections", 1)?,
                in_flight: options.get("in-flight", 5)?,
                acks: options.get("acks", -1)?,
                topic,
            };
            load::ensure_topic(&bootstrap, &what.topic, what.partitions)?;
            serde_json::to_value(load::produce(&bootstrap, &what)?)?
        }
        "consume" => serde_json::to_value(load::consume(
            &bootstrap,
            &topic,
            options.get("partition", 0)?,
            options.get("from", 0)?,
            options.get("until", 1)?,
            options.get("max-bytes", 1 << 20)?,
        )?)?,
        "latency" => {
            load::ensure_topic(&bootstrap, &topic, 1)?;
            serde_json::to_value(load::latency(
                &bootstrap,
                &topic,
                options.get("from", 0)?,
                options.get("count", 10_000)?,
                options.get("record-size", 100)?,
                options.get("rate", 1000.0)?,
            )?)?
        }
        _ => bail!("`{task}`; usage:\n{USAGE}"),
    };
    println!("{figures}");
    Ok(())
}
