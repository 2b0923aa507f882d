//! Which connections the user wants to see.
//!
//! Within one option any value suffices, across options all must hold; an option that was not given holds.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::net::{IpAddr, SocketAddr};

/// The kernel keeps 15 bytes of a process's name (`TASK_COMM_LEN` is 16, with the zero at its end).
pub const COMM_BYTES: usize = 15;

/// A choice of connections; the default is all of them. Serialised for the `start` record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Port of either end.
    pub ports: Vec<u16>,
    /// Address of either end.
    #[serde(serialize_with = "host_texts", deserialize_with = "hosts_of_texts")]
    pub hosts: Vec<IpNet>,
    /// Process id of the owner.
    pub pids: Vec<u32>,
    /// Name of the owner; only its first [`COMM_BYTES`] bytes count.
    pub comms: Vec<String>,
}

impl Filter {
    /// Whether everything is wanted.
    pub fn is_empty(&self) -> bool {
        let Self { ports, hosts, pids, comms } = self;
        ports.is_empty() && hosts.is_empty() && pids.is_empty() && comms.is_empty()
    }

    /// Whether the addresses and ports are wanted. IPv4-mapped addresses count as IPv4.
    pub fn matches_tuple(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let port = |port: u16| self.ports.contains(&port);
        let host = |addr: IpAddr| {
            let addr = addr.to_canonical();
            self.hosts.iter().any(|net| net.contains(&addr))
        };
        (self.ports.is_empty() || port(local.port()) || port(remote.port()))
            && (self.hosts.is_empty() || host(local.ip()) || host(remote.ip()))
    }

    /// Whether the answer depends on the owner, which may become known later than the tuple.
    pub fn asks_for_process(&self) -> bool {
        !self.pids.is_empty() || !self.comms.is_empty()
    }

    /// Whether the owner is wanted. What is not known about it matches no value.
    pub fn matches_process(&self, pid: Option<u32>, comm: Option<&[u8]>) -> bool {
        (self.pids.is_empty() || pid.is_some_and(|pid| self.pids.contains(&pid)))
            && (self.comms.is_empty() || comm.is_some_and(|comm| self.wants_comm(comm)))
    }

    fn wants_comm(&self, comm: &[u8]) -> bool {
        let cut = |name: &[u8]| name.len().min(COMM_BYTES);
        self.comms.iter().any(|want| want.as_bytes()[..cut(want.as_bytes())] == comm[..cut(comm)])
    }
}

/// The network in the form in which addresses are compared: host bits cleared, IPv4-mapped networks as IPv4.
pub fn canonical_net(net: IpNet) -> IpNet {
    let net = net.trunc();
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Ok(mapped) = Ipv4Net::new(v4, prefix)
    {
        return IpNet::V4(mapped);
    }
    net
}

/// A single address is shown without its prefix length.
fn host_texts<S: Serializer>(hosts: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hosts.iter().map(|net| {
        if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
    }))
}

fn hosts_of_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let net = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    texts.iter().map(|text| net(text).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn hosts(nets: &[&str]) -> Filter {
        Filter {
            hosts: nets.iter().map(|net| canonical_net(net.parse().unwrap())).collect(),
            ..Filter::default()
        }
    }

    #[test]
    fn no_option_wants_everything() {
        let all = Filter::default();
        assert!(all.is_empty() && !all.asks_for_process());
        assert!(all.matches_tuple(end("0.0.0.0:0"), end("[::]:0")));
        assert!(all.matches_process(None, None));
    }

    #[test]
    fn a_port_matches_either_end() {
        let filter = Filter { ports: vec![80, 443], ..Filter::default() };
        assert!(filter.matches_tuple(end("10.0.0.1:80"), end("10.0.0.2:5000")));
        assert!(filter.matches_tuple(end("10.0.0.1:5000"), end("10.0.0.2:443")));
        assert!(!filter.matches_tuple(end("10.0.0.1:5000"), end("10.0.0.2:8080")));
    }

    #[test]
    fn a_host_matches_either_end_and_mapped_addresses() {
        let filter = hosts(&["10.1.0.0/16", "2001:db8::1/128"]);
        assert!(filter.matches_tuple(end("10.1.2.3:1"), end("9.9.9.9:2")));
        assert!(filter.matches_tuple(end("[::ffff:9.9.9.9]:1"), end("[::ffff:10.1.255.255]:2")));
        assert!(filter.matches_tuple(end("[::1]:1"), end("[2001:db8::1]:2")));
        assert!(!filter.matches_tuple(end("10.2.0.0:1"), end("[2001:db8::2]:2")));
    }

    #[test]
    fn mapped_networks_and_host_bits() {
        assert_eq!(canonical_net("::ffff:10.9.9.9/104".parse().unwrap()), "10.0.0.0/8".parse().unwrap());
        assert_eq!(canonical_net("10.1.2.3/8".parse().unwrap()), "10.0.0.0/8".parse().unwrap());
        assert_eq!(canonical_net("::/0".parse().unwrap()), "::/0".parse().unwrap());
        assert!(!hosts(&["::/0"]).matches_tuple(end("1.2.3.4:1"), end("1.2.3.5:1")));
    }

    #[test]
    fn options_must_all_hold() {
        let filter = Filter { ports: vec![80], ..hosts(&["10.0.0.2/32"]) };
        assert!(filter.matches_tuple(end("10.0.0.1:5000"), end("10.0.0.2:80")));
        assert!(!filter.matches_tuple(end("10.0.0.1:5000"), end("10.0.0.2:81")));
        assert!(!filter.matches_tuple(end("10.0.0.1:5000"), end("10.0.0.3:80")));
    }

    #[test]
    fn owners() {
        let filter = Filter { pids: vec![7], comms: vec!["nginx".into()], ..Filter::default() };
        assert!(filter.asks_for_process());
        assert!(filter.matches_process(Some(7), Some(b"nginx")));
        assert!(!filter.matches_process(Some(8), Some(b"nginx")));
        assert!(!filter.matches_process(Some(7), Some(b"nginx2")));
        assert!(!filter.matches_process(Some(7), None));
        assert!(!filter.matches_process(None, Some(b"nginx")));
    }

    #[test]
    fn long_names_are_compared_as_the_kernel_cuts_them() {
        let filter = Filter { comms: vec!["systemd-resolved".into()], ..Filter::default() };
        assert!(filter.matches_process(None, Some(b"systemd-resolve")));
        assert!(!filter.matches_process(None, Some(b"systemd-resol")));
    }

    #[test]
    fn description() {
        let filter = Filter {
            ports: vec![80],
            pids: vec![1],
            comms: vec!["curl".into()],
            ..hosts(&["10.0.0.1/32", "fe80::/10"])
        };
        let expected = r#"{"ports":[80],"hosts":["10.0.0.1","fe80::/10"],"pids":[1],"comms":["curl"]}"#;
        assert_eq!(serde_json::to_string(&filter).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Filter>(expected).unwrap(), filter);
    }
}
