//! The architectures for which portmap is released.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};

/// An architecture of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// 64-bit x86.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of this machine. Fails if portmap is not released for it.
    pub fn own() -> Result<Self> {
        let own = Self::ALL.into_iter().find(|architecture| architecture.name() == ARCH);
        own.context("portmap is not released for the architecture of this machine")
    }

    /// The name that Rust and the kernel use.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The name in container images.
    pub fn image_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's target for statically linked programs.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The C compiler for the architecture. It also links programs, with the C library that comes with Rust's target.
    pub fn compiler(self) -> &'static str {
        match self {
            _ if self.name() == ARCH => "cc",
            Self::X86_64 => "x86_64-linux-gnu-gcc",
            Self::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// The Debian packages of [`Self::compiler`].
    pub fn compiler_packages(self) -> &'static [&'static str] {
        match self {
            _ if self.name() == ARCH => &["gcc", "libc6-dev"],
            Self::X86_64 => &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Aarch64 => &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }
}

/// The architectures that the user selects.
#[derive(clap::Args)]
pub struct Architectures {
    /// Architecture of the processors; repeatable [default: all]
    #[arg(long, value_name = "ARCH", value_enum)]
    arch: Vec<Architecture>,
}

impl Architectures {
    /// The selected architectures; all without a selection.
    pub fn selected(&self) -> &[Architecture] {
        if self.arch.is_empty() { &Architecture::ALL } else { &self.arch }
    }
}
