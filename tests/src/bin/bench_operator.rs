//! `cargo xtask bench operator`: the operator's budgets on a real control plane with real brokers, all on one machine.
//! Prints a table; no figure here is a test.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::kubernetes::ControlPlane;
use barnabas_tests::ports::free_port;
use barnabas_tests::server_process::ServerProcess;
use barnabas_tests::wire::WireClient;
use barnabas_tests::{http, limits, tools, wait};
use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::protocol::StrBytes;

const PATIENCE: Duration = Duration::from_secs(900);
const TOPICS: &str = "/apis/barnabas.dev/v1alpha1/namespaces/default/topics";
/// Clients that create Topics at the same time.
const CREATORS: usize = 8;
const ALONE: usize = 50;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let many = match words.first().map(String::as_str) {
        None => 10_000,
        Some("--quick") => 1_000,
        Some(word) => bail!("unknown option {word}"),
    };
    limits::raise_open_files(20_000);
    let mut bench = Bench::start()?;
    let row = |what: &str, budget: &str, found: String| {
        println!("{what:<58} {budget:>12} {found:>14}");
    };
    row("", "budget", "found".to_owned());

    for number in 0..10 {
        bench.create(&format!("few-{number}"))?;
    }
    bench.wait_for_ready(10)?;
    std::thread::sleep(Duration::from_secs(5));
    let memory = bench.memory_mib()?;
    row(
        "memory with 10 Topics, MiB",
        "<= 20",
        format!("{memory:.1}"),
    );

    let mut times = Vec::new();
    for number in 0..ALONE {
        times.push(bench.one(&format!("alone-{number}"))?);
    }
    times.sort();
    let ms = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1000.0);
    row(
        "one Topic, apply to Ready, p50, ms",
        "<= 150",
        ms(times[ALONE / 2]),
    );
    let p99 = times[(ALONE * 99).div_ceil(100) - 1];
    row("one Topic, apply to Ready, p99, ms", "<= 500", ms(p99));

    let begun = Instant::now();
    bench.create_many(many)?;
    let created = begun.elapsed();
    let all = 10 + ALONE + many;
    bench.wait_for_ready(all)?;
    let ready = begun.elapsed();
    let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
    row(
        &format!("{many} Topics x 3 partitions created by clients, s"),
        "",
        seconds(created),
    );
    row(
        &format!("{many} Topics x 3 partitions all Ready, s"),
        "<= 60",
        seconds(ready),
    );

    std::thread::sleep(Duration::from_secs(20));
    let memory = bench.memory_mib()?;
    row(
        &format!("memory with {all} Topics, MiB"),
        "<= 64",
        format!("{memory:.1}"),
    );
    let writes = "barnabas_operator_status_writes_total";
    let (before, ticks) = (bench.figure(writes)?, bench.cpu_seconds()?);
    let quiet = Duration::from_secs(60);
    std::thread::sleep(quiet);
    let written = bench.figure(writes)? - before;
    row(
        "status writes in a minute of rest",
        "0",
        format!("{written:.0}"),
    );
    let core = (bench.cpu_seconds()? - ticks) / quiet.as_secs_f64() * 100.0;
    row(
        "processor at rest, % of a core",
        "<= 1",
        format!("{core:.1}"),
    );

    let mut drifts = Vec::new();
    for number in 0..10 {
        drifts.push(bench.drift(&format!("alone-{number}"))?);
    }
    drifts.sort();
    row(
        "drift of a setting repaired, slowest of 10, ms",
        "<= 2000",
        ms(drifts[9]),
    );

    let begun = Instant::now();
    bench.restart()?;
    bench.wait_for_ready(all)?;
    let again = begun.elapsed();
    row(
        "restart to a first pass over all, s",
        "<= 15",
        seconds(again),
    );
    let written = bench.figure(writes)?;
    row("status writes by that", "0", format!("{written:.0}"));
    println!("\nwhere the time goes, from the operator's own figures:");
    for line in bench.page("/metrics")?.lines() {
        let is_sum = line.contains("_seconds_sum") || line.contains("_seconds_count");
        if is_sum || line.contains("requests_limit") {
            println!("  {line}");
        }
    }
    Ok(())
}

struct Bench {
    operator: ServerProcess,
    proxy: ServerProcess,
    /// Where the API server answers in plain HTTP.
    api: String,
    /// Of the operator's pages.
    pages: String,
    settings: Vec<String>,
    lives: u32,
    cluster: Cluster,
    plane: ControlPlane,
    directory: tempfile::TempDir,
}

fn topic(name: &str) -> String {
    format!(
        "{{\"apiVersion\": \"barnabas.dev/v1alpha1\", \"kind\": \"Topic\", \"metadata\": {{\"name\": \"{name}\"}}, \
         \"spec\": {{\"partitions\": 3, \"replicas\": 1, \"config\": {{\"retention.ms\": 3600000}}}}}}"
    )
}

fn post(api: &str, name: &str) -> Result<()> {
    let (status, body) = http::request(api, "POST", TOPICS, &topic(name))?;
    ensure!(status == 201, "{name}: {status} {body}");
    Ok(())
}

impl Bench {
    fn start() -> Result<Bench> {
        let directory = tempfile::tempdir()?;
        let plane = ControlPlane::start(&directory.path().join("kubernetes"))?;
        let definition = tools::repository().join("manifests/crds/topics.yaml");
        plane.apply(&std::fs::read_to_string(definition)?)?;
        plane.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/topics.barnabas.dev",
            "--timeout=60s",
        ])?;
        let options = ClusterOptions::of(&[BrokerKind::Barnabas; 3]);
        let mut cluster = Cluster::start(&options)?;
        let (api_port, port) = (free_port(), free_port());
        let mut proxy = plane.kubectl_command();
        proxy.args(["proxy", &format!("--port={api_port}")]);
        let log = directory.path().join("proxy.log");
        let proxy = ServerProcess::start("kubectl proxy", &mut proxy, &log)?;
        let settings = vec![
            "run".to_owned(),
            "--namespace=default".to_owned(),
            "--pod-namespace=default".to_owned(),
            "--pod-name=bench".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--bootstrap={}", cluster.bootstrap().join(",")),
            format!("--zookeeper={}", cluster.zookeeper().connect()),
        ];
        let operator = Self::operator(&plane, &settings, directory.path())?;
        let bench = Bench {
            operator,
            proxy,
            api: format!("127.0.0.1:{api_port}"),
            pages: format!("127.0.0.1:{port}"),
            settings,
            lives: 1,
            cluster,
            plane,
            directory,
        };
        bench.wait_for("barnabas_operator_leader", 1.0)?;
        Ok(bench)
    }

    fn operator(
        plane: &ControlPlane,
        settings: &[String],
        directory: &std::path::Path,
    ) -> Result<ServerProcess> {
        let mut command = Command::new(tools::operator_binary());
        command.env("KUBECONFIG", &plane.kubeconfig).args(settings);
        ServerProcess::start("operator", &mut command, &directory.join("operator.log"))
    }

    fn page(&self, page: &str) -> Result<String> {
        Ok(http::request(&self.pages, "GET", page, "")?.1)
    }

    /// A figure of the operator's; 0 if it is not there.
    fn figure(&self, name: &str) -> Result<f64> {
        let text = self.page("/metrics")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0.0), str::parse)?)
    }

    fn wait_for(&self, name: &str, least: f64) -> Result<()> {
        let seen = wait::until(PATIENCE, || {
            (self.figure(name).ok()? >= least).then_some(())
        });
        seen.with_context(|| format!("{name} is {:?}", self.figure(name)))
    }

    fn wait_for_ready(&self, count: usize) -> Result<()> {
        self.wait_for("barnabas_operator_topics{state=\"ready\"}", count as f64)
    }

    fn create(&self, name: &str) -> Result<()> {
        post(&self.api, name)
    }

    fn create_many(&self, count: usize) -> Result<()> {
        let each = count / CREATORS;
        let created: Vec<Result<()>> = std::thread::scope(|scope| {
            let creators = (0..CREATORS).map(|creator| {
                let api = &self.api;
                scope.spawn(move || {
                    (0..each).try_for_each(|number| post(api, &format!("many-{creator}-{number}")))
                })
            });
            let creators: Vec<_> = creators.collect();
            creators
                .into_iter()
                .map(|creator| creator.join().unwrap_or_else(|_| bail!("it panicked")))
                .collect()
        });
        created.into_iter().collect()
    }

    /// From asking for a topic until its resource says that it is there.
    fn one(&self, name: &str) -> Result<Duration> {
        let begun = Instant::now();
        self.create(name)?;
        let path = format!("{TOPICS}/{name}");
        let ready = wait::until(PATIENCE, || {
            let (_, body) = http::request(&self.api, "GET", &path, "").ok()?;
            body.contains("\"AsSpecified\"").then_some(())
        });
        ready.context("never ready")?;
        Ok(begun.elapsed())
    }

    /// From changing a setting behind the operator's back until it is as it was.
    fn drift(&self, name: &str) -> Result<Duration> {
        let repaired = "barnabas_operator_drift_repaired_total{kind=\"config\"}";
        let before = self.figure(repaired)?;
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(name))
                .with_configs(vec![
                    AlterableConfig::default()
                        .with_name(text("retention.ms"))
                        .with_config_operation(0)
                        .with_value(Some(text("7200000"))),
                ]),
        ]);
        let begun = Instant::now();
        let mut client = WireClient::connect(&self.cluster.bootstrap()[0])?;
        client.request(&request, 1)?;
        self.wait_for(repaired, before + 1.0)?;
        Ok(begun.elapsed())
    }

    fn restart(&mut self) -> Result<()> {
        self.operator.terminate(Duration::from_secs(30))?;
        self.lives += 1;
        self.operator = Self::operator(&self.plane, &self.settings, self.directory.path())?;
        Ok(())
    }

    fn memory_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.operator.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let words = line.and_then(|line| line.split_whitespace().next());
        let kib: f64 = words.context("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time that the operator has used.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.operator.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        // Linux counts in hundredths for user space.
        Ok(ticks / 100.0)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.operator.kill();
        self.proxy.kill();
    }
}
