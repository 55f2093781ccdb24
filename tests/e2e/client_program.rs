//! The programs below `tests/clients`: each tells its story to one broker and prints PASS and FAIL lines.

use std::process::{Command, Stdio};

use barnabas_tests::broker::{Broker, BrokerOptions};
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
