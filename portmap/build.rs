//! Compiles the BPF programs, which `portmap::datapath::load` embeds.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

const TOOLCHAIN: &str = "PORTMAP_BPF_TOOLCHAIN";

/// The binaries of portmap-ebpf: the ELF objects with the BPF programs.
const OBJECTS: [&str; 3] = ["portmap", "lookup", "iterators"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo:rerun-if-changed=../portmap-common/src");
    let toolchain = env::var(TOOLCHAIN).unwrap_or_else(|_| "nightly".to_owned());
    let programs = Package { name: "portmap-ebpf", root_dir: "../portmap-ebpf", ..Package::default() };
    aya_build::build_ebpf([programs], Toolchain::Custom(&toolchain))?;
    let directory = env::var("OUT_DIR")?;
    OBJECTS.iter().try_for_each(|object| {
        let path = Path::new(&directory).join(object);
        strip(&path).with_context(|| format!("failed to strip {}", path.display()))
    })
}

/// Removes the debug sections, several megabytes. The linker has converted them to BTF already.
fn strip(path: &Path) -> Result<()> {
    let data = fs::read(path)?;
    let mut object = Builder::read(&*data)?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete |= name.starts_with(".debug") || name.starts_with(".rel.debug");
    }
    object.delete_orphans();
    // The linker writes section names into the symbol string table. The writer needs a table of their own.
    let names = object.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(fs::write(path, stripped)?)
}
