//! Compiles the BPF programs of portmap-ebpf. The modules of `portmap::datapath` embed the ELF objects.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

const TOOLCHAIN: &str = "PORTMAP_BPF_TOOLCHAIN";

/// The binaries of portmap-ebpf. Each becomes an ELF object with BPF programs, in `OUT_DIR`.
const OBJECTS: [&str; 3] = ["portmap", "lookup", "iterators"];

/// Variables for cargo's build of the programs, so that one commit gives the same objects in each directory and for each
/// architecture. No program reads the registers of the node's processor, so one architecture serves for all.
const REPRODUCIBLE: [(&str, &str); 3] =
    [("CARGO_UNSTABLE_TRIM_PATHS", "true"), ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all"), ("CARGO_CFG_TARGET_ARCH", "x86_64")];

/// The first letters of sections that no loader reads. The linker has converted the debug sections to BTF. The relocations of BTF
/// are to sections that each program has anyway.
const UNUSED: [&str; 3] = [".debug", ".rel.debug", ".rel.BTF"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../portmap-common/src");
    for (name, value) in REPRODUCIBLE {
        // SAFETY: this process has one thread.
        unsafe { env::set_var(name, value) };
    }
    let toolchain = env::var(TOOLCHAIN).unwrap_or_else(|_| "nightly".to_owned());
    let programs = Package { name: "portmap-ebpf", root_dir: "../portmap-ebpf", ..Package::default() };
    aya_build::build_ebpf([programs], Toolchain::Custom(&toolchain))?;
    let directory = env::var("OUT_DIR")?;
    OBJECTS.iter().try_for_each(|object| {
        let path = Path::new(&directory).join(object);
        strip(&path).with_context(|| format!("failed to strip {}", path.display()))
    })
}

/// Removes the sections that no loader reads, several megabytes.
fn strip(path: &Path) -> Result<()> {
    let data = fs::read(path)?;
    let mut object = Builder::read(&*data)?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete |= UNUSED.iter().any(|unused| name.starts_with(unused));
    }
    object.delete_orphans();
    // The linker writes the names of sections into the table of symbol names. The writer needs a separate table for them.
    let names = object.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(fs::write(path, stripped)?)
}
