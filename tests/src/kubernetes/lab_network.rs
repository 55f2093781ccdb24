//! The network of a cluster: a hub with the control plane and the tests, and a machine for each node. There is no way out.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::network::{Machine, in_namespace, remove_left_over, run};

/// Machines of a cluster; all is gone when it is dropped. End their processes first.
#[derive(Debug)]
pub(super) struct LabNetwork {
    pub(super) hub: Machine,
    pub(super) nodes: Vec<Machine>,
}

impl LabNetwork {
    /// A name that no network has had in this process.
    pub(super) fn name() -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        format!("barnabas-{}-k{number}", std::process::id())
    }

    /// A hub on 10.250.0.1, nodes on .11, .12, …; pods of node n have 10.244.n.0/24, services 10.96.0.0/16. The names of
    /// all begin with `name`.
    pub(super) fn new(name: &str, nodes: u8) -> Result<LabNetwork> {
        remove_left_over()?;
        let machine = |suffix: &str, host: u8| Machine {
            namespace: format!("{name}-{suffix}"),
            address: Ipv4Addr::new(10, 250, 0, host),
        };
        let network = LabNetwork {
            hub: machine("hub", 1),
            nodes: (1..=nodes)
                .map(|node| machine(&node.to_string(), 10 + node))
                .collect(),
        };
        let hub = network.hub.namespace.as_str();
        run("ip", &["netns", "add", hub])?;
        for command in [
            "ip link set lo up",
            "ip link add kb0 type bridge",
            "ip addr add 10.250.0.1/24 dev kb0",
            "ip link set kb0 up",
            "sysctl -qw net.ipv4.ip_forward=1",
            // kube-proxy translates these addresses; the route only has to exist.
            "ip route add 10.96.0.0/16 dev kb0",
        ] {
            at(hub, command)?;
        }
        for (index, node) in network.nodes.iter().enumerate() {
            let (number, own) = (index + 1, node.namespace.as_str());
            run("ip", &["netns", "add", own])?;
            at(
                hub,
                &format!("ip link add kv{number} type veth peer name eth0 netns {own}"),
            )?;
            at(hub, &format!("ip link set kv{number} master kb0 up"))?;
            at(own, "ip link set lo up")?;
            at(own, &format!("ip addr add {}/24 dev eth0", node.address))?;
            at(own, "ip link set eth0 up")?;
            at(own, "ip route add default via 10.250.0.1")?;
            at(own, "sysctl -qw net.ipv4.ip_forward=1")?;
            let pods = format!("10.244.{number}.0/24 via {}", node.address);
            at(hub, &format!("ip route add {pods}"))?;
        }
        for (index, node) in network.nodes.iter().enumerate() {
            for (other, machine) in network.nodes.iter().enumerate() {
                if other != index {
                    let route = format!("10.244.{}.0/24 via {}", other + 1, machine.address);
                    at(&node.namespace, &format!("ip route add {route}"))?;
                }
            }
        }
        Ok(network)
    }
}

impl Drop for LabNetwork {
    fn drop(&mut self) {
        for machine in self.nodes.iter().chain([&self.hub]) {
            if let Err(error) = run("ip", &["netns", "del", &machine.namespace]) {
                eprintln!("a network namespace is left over: {error:#}");
            }
        }
    }
}

fn at(namespace: &str, command: &str) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    in_namespace(namespace, &words)
}
