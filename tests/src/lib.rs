//! What the integration tests share: network namespaces, the daemon, servers, and the kernel's own counters.

pub mod bpf;
pub mod client;
pub mod counters;
pub mod curl;
pub mod frame;
pub mod go;
pub mod netns;
pub mod nginx;
pub mod process;
pub mod program;
pub mod records;
pub mod said;
pub mod scene;
pub mod scratch;
pub mod socket;
pub mod stage;
pub mod tracer;
pub mod traffic;
pub mod traffic_held;
pub mod traffic_laws;
pub mod traffic_net;
pub mod traffic_owners;
pub mod traffic_role;
pub mod traffic_tally;
pub mod wait;
pub mod wire;
