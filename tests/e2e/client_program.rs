//! The programs below `tests/clients`: each tells its story to one broker and prints PASS and FAIL lines.

use std::process::{Command, Stdio};

use barnabas_tests::broker::{Broker, BrokerOptions};
use barnabas_tests::tools::{repository, test_tool};
use barnabas_tests::zookeeper_server::ZooKeeperServer;

/// One broker with a ZooKeeper server of its own.
pub(crate) struct OneBroker {
    // Fields are dropped in this order: the broker before what it needs.
    pub(crate) broker: Broker,
    _zookeeper: ZooKeeperServer,
    directory: tempfile::TempDir,
}

impl OneBroker {
    /// Starts both; `with` adds properties.
    pub(crate) fn start(with: impl FnOnce(BrokerOptions) -> BrokerOptions) -> OneBroker {
        let zookeeper = ZooKeeperServer::start().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = BrokerOptions::new(directory.path(), &zookeeper.connect());
        let broker = with(options).start().unwrap();
        OneBroker {
            broker,
            _zookeeper: zookeeper,
            directory,
        }
    }
}

impl OneBroker {
    /// Stops the broker cleanly and starts it on what it left.
    pub(crate) fn restart(self) -> OneBroker {
        let options = self.broker.options().clone();
        self.broker.stop().unwrap();
        OneBroker {
            broker: options.start().unwrap(),
            ..self
        }
    }

    /// Stops both and returns the directory that the broker leaves.
    pub(crate) fn stop(self) -> tempfile::TempDir {
        self.broker.stop().unwrap();
        self.directory
    }
}

/// Runs a client program to its end and requires PASS for each of `steps`, and nothing else.
pub(crate) fn require_pass(program: &mut Command, steps: &[&str]) {
    let output = program
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.get_program().display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("PASS ") || line.starts_with("FAIL "))
        .collect();
    let wanted: Vec<String> = steps.iter().map(|step| format!("PASS {step}")).collect();
    assert!(
        output.status.success() && lines == wanted,
        "{}:\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a client program, whose first argument is the address of a fresh broker.
fn tell_one_broker(program: &mut Command, steps: &[&str]) {
    let one = OneBroker::start(|options| options);
    require_pass(program.arg(one.broker.address()), steps);
}

/// A script below `tests/clients/python`.
pub(crate) fn python(script: &str, steps: &[&str]) {
    let mut python = Command::new(test_tool("python/bin/python"));
    python.arg(repository().join("tests/clients/python").join(script));
    tell_one_broker(python.env("PYTHONDONTWRITEBYTECODE", "1"), steps);
}

/// A class below `tests/clients/java`, with this version of Kafka's client library.
pub(crate) fn java(class: &str, version: &str, steps: &[&str]) {
    let name = format!("java-{version}");
    let tool = test_tool(&name);
    let mut classes = tool.join("*").into_os_string();
    classes.push(":");
    classes.push(tool.join("classes"));
    let one = OneBroker::start(|options| options);
    let mut java = Command::new("java");
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
        .arg("-cp")
        .arg(classes)
        .args([class, &one.broker.address(), &name]);
    require_pass(&mut java, steps);
}

/// A program below `tests/clients/go`.
pub(crate) fn go(program: &str, steps: &[&str]) {
    tell_one_broker(&mut Command::new(test_tool("go").join(program)), steps);
}

/// A script below `tests/clients/node`.
pub(crate) fn node(script: &str, steps: &[&str]) {
    let mut node = Command::new("node");
    node.arg(repository().join("tests/clients/node").join(script))
        .env("NODE_PATH", test_tool("node/node_modules"))
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    tell_one_broker(&mut node, steps);
}

/// The program of `tests/clients/rust`.
pub(crate) fn rust(program: &str, steps: &[&str]) {
    let path = test_tool("rust/debug").join(program);
    tell_one_broker(&mut Command::new(path), steps);
}
