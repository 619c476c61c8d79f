//! Unpacks Debian packages into a directory of this workspace: the container runtime, the programs of the test images, and the
//! C library that runc is linked with.

use std::fs;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use super::stamp::Stamp;
use crate::files;
use crate::screen::{Mark, Screen};
use crate::setup::apt;
use crate::setup::debian::{Archive, NEWEST};

/// The container runtime and the plugins for pod networks. containerd must be 2.0 or newer, so these come from the newest
/// Debian. They need only an old C library; runc does not, hence [`super::programs`] builds it.
const RUNTIME: [&str; 2] = ["containerd", "containernetworking-plugins"];

/// The programs that Kubernetes' tests call in the containers of their images. They come with all their libraries.
const IMAGE: [&str; 11] = [
    "bash",
    "bind9-dnsutils",
    "busybox-static",
    "conntrack",
    "curl",
    "iproute2",
    // The program getent.
    "libc-bin",
    // The files /etc/protocols and /etc/services.
    "netbase",
    "netcat-openbsd",
    // For kube-proxy.
    "nftables",
    "socat",
];

/// From this machine's own release, because it is linked with this machine's C library.
const SECCOMP: &str = "libseccomp-dev";

/// Unpacks the packages into [`Layout::debian`], in directories `runtime`, `image` and `seccomp`.
pub fn unpack(layout: &Layout) -> Result<()> {
    let directory = layout.debian();
    Stamp::new(&directory, input()).ensure(|| {
        Screen::Stderr.marked(Mark::Doing, "unpacking packages of Debian", "containerd and the programs of the test images");
        let partial = directory.with_extension("partial");
        files::remove(&partial)?;
        files::create(&partial)?;
        let archive = Archive::open(&[NEWEST])?;
        for package in RUNTIME {
            archive.unpack(package, "", &partial.join("runtime"))?;
        }
        archive.unpack_with_dependencies(&IMAGE, &partial.join("image"))?;
        apt::unpack(SECCOMP, &partial.join("seccomp"))?;
        files::remove(&directory)?;
        fs::rename(&partial, &directory).with_context(|| format!("failed to rename {}", partial.display()))
    })
}

/// A text that identifies the packages.
pub fn input() -> String {
    format!("{NEWEST:?} {RUNTIME:?} {IMAGE:?} {SECCOMP}")
}
