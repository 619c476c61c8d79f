//! Compiles the BPF programs, which `portmap::datapath::load` embeds.

use aya_build::{Package, Toolchain};

const TOOLCHAIN: &str = "PORTMAP_BPF_TOOLCHAIN";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../portmap-common/src");
    let toolchain = std::env::var(TOOLCHAIN).unwrap_or_else(|_| "nightly".to_owned());
    let programs = Package { name: "portmap-ebpf", root_dir: "../portmap-ebpf", ..Package::default() };
    aya_build::build_ebpf([programs], Toolchain::Custom(&toolchain))
}
