//! The programs that the integration tests drive, from Debian's packages.

use anyhow::{Context as _, Result, bail};

use crate::cmd;

struct Tool {
    /// Its name, or the path of a file that is no program.
    program: &'static str,
    package: &'static str,
    /// What the package would start now and at every boot.
    service: Option<&'static str>,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, service: None }
}

const TOOLS: [Tool; 17] = [
    tool("go", "golang-go"),
    Tool { program: "nginx", package: "nginx-light", service: Some("nginx") },
    tool("ab", "apache2-utils"),
    tool("wrk", "wrk"),
    tool("ip", "iproute2"),
    tool("bpftool", "bpftool"),
    tool("curl", "curl"),
    tool("jq", "jq"),
    Tool { program: "haproxy", package: "haproxy", service: Some("haproxy") },
    tool("nft", "nftables"),
    tool("python3", "python3"),
    tool("openssl", "openssl"),
    tool("tshark", "tshark"),
    // Kernel modules for `cargo xtask vm` are compressed.
    tool("xz", "xz-utils"),
    // To build the daemon for aarch64 and to run it.
    tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    tool("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    tool("qemu-aarch64", "qemu-user"),
];

/// Debian's installers ask `policy-rc.d` before they start a service. Ours is taken away again whatever happens;
/// one that is there stays.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# One source out of order need not matter: the install tells.
apt-get --quiet update || echo 'apt-get update failed; going on with the lists that are there' >&2
apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 install "$@"
"#;

/// Installs what is missing and leaves no service of it running or set to start.
pub fn install_missing() -> Result<()> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !cmd::is_installed(tool.program)).collect();
    if missing.is_empty() {
        eprintln!("the tests' programs: there");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let list = packages.join(" ");
    if !cmd::is_installed("apt-get") {
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        bail!(
            "the tests need {}, and there is no apt-get: install them (on Debian: {list})",
            programs.join(", ")
        );
    }
    eprintln!("the tests' programs: installing {list}");
    cmd::run(cmd::as_root("sh")?.args(["-c", INSTALL, "install"]).args(&packages))
        .with_context(|| format!("cannot install the tests' programs; by hand: apt-get install {list}"))?;

    let services: Vec<&str> = missing.iter().filter_map(|tool| tool.service).collect();
    if !services.is_empty() && cmd::is_installed("systemctl") {
        eprintln!("not to be started at boot, as they came for the tests only: {}", services.join(", "));
        cmd::run(cmd::as_root("systemctl")?.args(["--quiet", "disable"]).args(&services))?;
    }
    Ok(())
}
