//! Machines that are network namespaces: one bridge between them, and links that can be cut.
//!
//! All namespaces of a network, the bridge's too, are made for it and have no way out. They are named after the
//! process that made them; those of processes that are gone are removed when the next network is made.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "barnabas-";
const DIRECTORY: &str = "/var/run/netns";
/// Drops what comes from an address in the set; the rest passes.
const RULES: &str = "\
add table inet faults
add set inet faults cut { type ipv4_addr; }
add chain inet faults input { type filter hook input priority 0; policy accept; }
add rule inet faults input ip saddr @cut drop
";

/// A machine in a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub(crate) namespace: String,
    pub address: Ipv4Addr,
}

impl Machine {
    /// The command that runs another as a process of this machine.
    pub fn launcher(&self) -> Vec<String> {
        vec![
            "nsenter".to_owned(),
            format!("--net={DIRECTORY}/{}", self.namespace),
        ]
    }

    /// Runs `work` on a thread that is on this machine, as are the threads that it starts.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new(DIRECTORY).join(&self.namespace);
        let namespace = File::open(&path).with_context(|| path.display().to_string())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering a network namespace")?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Machines on one bridge; all is gone when it is dropped. End their processes first.
#[derive(Debug)]
pub struct Network {
    hub: String,
    machines: Vec<Machine>,
}

impl Network {
    /// A network of `count` machines that all reach each other.
    pub fn new(count: u8) -> Result<Network> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        remove_left_over()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let hub = format!("{name}-hub");
        let mut network = Network {
            hub: hub.clone(),
            machines: Vec::new(),
        };
        run("ip", &["netns", "add", &hub])?;
        in_namespace(&hub, &["ip", "link", "add", "hub", "type", "bridge"])?;
        in_namespace(&hub, &["ip", "link", "set", "hub", "up"])?;
        for at in 1..=count {
            let machine = Machine {
                namespace: format!("{name}-{at}"),
                address: Ipv4Addr::new(10, 99, 0, at),
            };
            network.add(machine, &format!("port{at}"))?;
        }
        Ok(network)
    }

    fn add(&mut self, machine: Machine, port: &str) -> Result<()> {
        let namespace = machine.namespace.clone();
        run("ip", &["netns", "add", &namespace])?;
        let address = format!("{}/24", machine.address);
        self.machines.push(machine);
        let (hub, own) = (self.hub.as_str(), namespace.as_str());
        let link = ["ip", "link", "add", port, "type", "veth"];
        let peer = ["peer", "name", "eth0", "netns", own];
        in_namespace(hub, &[&link[..], &peer].concat())?;
        in_namespace(hub, &["ip", "link", "set", port, "master", "hub", "up"])?;
        in_namespace(own, &["ip", "link", "set", "lo", "up"])?;
        in_namespace(own, &["ip", "addr", "add", &address, "dev", "eth0"])?;
        in_namespace(own, &["ip", "link", "set", "eth0", "up"])?;
        for rule in RULES.lines() {
            in_namespace(own, &["nft", rule])?;
        }
        Ok(())
    }

    /// The machines, in the order of their addresses.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Loses everything that `from` sends to `to`.
    pub fn cut_one_way(&self, from: &Machine, to: &Machine) -> Result<()> {
        let element = format!("add element inet faults cut {{ {} }}", from.address);
        in_namespace(&to.namespace, &["nft", &element])
    }

    /// Loses everything between the two.
    pub fn cut(&self, one: &Machine, other: &Machine) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// Nothing is lost any more.
    pub fn heal(&self) -> Result<()> {
        for machine in &self.machines {
            in_namespace(&machine.namespace, &["nft", "flush set inet faults cut"])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let machines = self.machines.iter().map(|machine| &machine.namespace);
        for namespace in machines.chain([&self.hub]) {
            if let Err(error) = run("ip", &["netns", "del", namespace]) {
                eprintln!("a network namespace is left over: {error:#}");
            }
        }
    }
}

/// Removes namespaces whose makers are gone.
pub(crate) fn remove_left_over() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return Ok(());
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let Some(maker) = maker.and_then(|maker| maker.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(maker.to_string()).exists() {
            // Somebody else may be doing the same.
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
    Ok(())
}

pub(crate) fn in_namespace(namespace: &str, command: &[&str]) -> Result<()> {
    let enter = format!("--net={DIRECTORY}/{namespace}");
    run("nsenter", &[&[enter.as_str()], command].concat())
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| anyhow!("{program}: {error}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    #[test]
    fn links_are_cut_one_way_or_both_and_heal() {
        let network = Network::new(2).unwrap();
        let [one, other] = network.machines() else {
            panic!("two machines")
        };
        let at = |machine: &Machine| SocketAddr::from((machine.address, 7));
        let socket = |machine: &Machine| {
            let address = at(machine);
            machine.run(|| UdpSocket::bind(address).unwrap()).unwrap()
        };
        let (of_one, of_other) = (socket(one), socket(other));
        let arrives = |from: &UdpSocket, to: &UdpSocket| {
            let timeout = Some(Duration::from_millis(100));
            to.set_read_timeout(timeout).unwrap();
            from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0; 8]).is_ok()
        };
        assert!(arrives(&of_one, &of_other) && arrives(&of_other, &of_one));
        network.cut_one_way(one, other).unwrap();
        assert!(!arrives(&of_one, &of_other) && arrives(&of_other, &of_one));
        network.cut(one, other).unwrap();
        assert!(!arrives(&of_one, &of_other) && !arrives(&of_other, &of_one));
        network.heal().unwrap();
        assert!(arrives(&of_one, &of_other) && arrives(&of_other, &of_one));
        drop((of_one, of_other));
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses() {
        let network = Network::new(2).unwrap();
        let [one, other] = network.machines() else {
            panic!("two machines")
        };
        let address = SocketAddr::from((other.address, 9));
        let connect = || {
            one.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)))
                .unwrap()
        };
        let error = connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let listener = other.run(|| TcpListener::bind(address).unwrap()).unwrap();
        connect().unwrap();
        network.cut(one, other).unwrap();
        let error = connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(listener);
    }
}
