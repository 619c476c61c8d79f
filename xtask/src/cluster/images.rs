//! Makes the container images of the cluster, because no registry is used.
//!
//! Kubernetes' tests name their images. Most of them only need a shell and some network programs, so one root directory of
//! Debian packages serves them all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::layout::Layout;
use super::stamp::Stamp;
use super::{packages, programs};
use crate::oci::{Archive, Image};
use crate::release::architecture::Architecture;
use crate::release::image;
use crate::screen::{Mark, Screen};
use crate::{files, libraries, program};

/// The image of Kubernetes' tests with most programs.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost";
/// The images for which the root directory of Debian packages stands in.
const WITH_SHELL: [&str; 4] = [
    AGNHOST,
    "registry.k8s.io/e2e-test-images/busybox",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing",
    "registry.k8s.io/build-image/distroless-iptables",
];
/// A test of connection tracking sends packets with this image's program.
const REGRESSION: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839";
/// The image whose process holds the namespaces of a pod.
pub const PAUSE: &str = "registry.k8s.io/pause";

/// The tag of an earlier agent's image.
pub const EARLIER: &str = "earlier";

/// Makes the images of Kubernetes and of its tests in [`Layout::images`].
pub fn prepare(layout: &Layout) -> Result<()> {
    // The names and roots of the images are in this file.
    let input = [packages::input(), programs::versions()?, include_str!("images.rs").to_owned()].join("\n");
    Stamp::new(&layout.images().join("all"), input).ensure(|| {
        Screen::Stderr.marked(Mark::Doing, "packing container images", "Kubernetes' tests run them");
        let known = known_images(layout)?;
        let roots = layout.tools.join("roots");
        files::remove(&roots)?;
        pause(layout, &roots, &known)?;
        regression(layout, &roots, &known)?;
        with_shell(layout, &roots, &known)?;
        kube_proxy(layout, &roots)?;
        files::remove(&roots)
    })
}

/// Makes the image of the agent from the statically linked program `agent`, with the name that the chart has.
pub fn prepare_agent(layout: &Layout, agent: &Path) -> Result<()> {
    pack_agent(layout, agent, &image::name(), "portmap.tar")
}

/// As [`prepare_agent`], for an earlier agent, with the tag [`EARLIER`].
pub fn prepare_earlier_agent(layout: &Layout, agent: &Path) -> Result<()> {
    pack_agent(layout, agent, &format!("portmap:{EARLIER}"), "portmap-earlier.tar")
}

fn pack_agent(layout: &Layout, agent: &Path, name: &str, file: &str) -> Result<()> {
    ensure!(
        libraries::of(agent)?.is_empty(),
        "{} needs shared libraries, which its image does not have; cargo xtask dist builds one that needs none",
        agent.display()
    );
    let name = format!("docker.io/library/{name}");
    image::pack(&[(Architecture::own()?, agent.to_owned())], &name, &layout.images().join(file)).map(drop)
}

/// The name of one of Kubernetes' images, with its tag.
pub fn name(layout: &Layout, image: &str) -> Result<String> {
    tagged(&known_images(layout)?, image)?.into_iter().next().with_context(|| format!("the tests name no image {image}"))
}

/// The images that the tests name, with their tags.
fn known_images(layout: &Layout) -> Result<Vec<String>> {
    let printed = program::output(program::command(&layout.bin().join("e2e.test").to_string_lossy()).arg("--list-images"))?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// The entries of `known` for an image. Fails if there are none.
fn tagged(known: &[String], image: &str) -> Result<Vec<String>> {
    let tagged: Vec<_> = known.iter().filter(|name| name.rsplit_once(':').is_some_and(|(name, _)| name == image)).collect();
    anyhow::ensure!(!tagged.is_empty(), "the tests do not name the image {image} any more");
    Ok(tagged.into_iter().cloned().collect())
}

fn pause(layout: &Layout, roots: &Path, known: &[String]) -> Result<()> {
    let names = tagged(known, PAUSE)?;
    let version = names.first().and_then(|name| name.rsplit(':').next()).unwrap_or_default();
    let root = roots.join("pause");
    files::create(&root)?;
    let mut cc = program::command("cc");
    cc.args(["-Os", "-static", "-s", &format!("-DVERSION={version}"), "-o"]).arg(root.join("pause"));
    program::run(cc.arg(programs::kubernetes_source()?.join("build/pause/linux/pause.c")))?;
    let settings = json!({"Entrypoint": ["/pause"], "User": "65535:65535"});
    pack(&names, vec![root], settings, &layout.images().join("pause.tar"))
}

fn regression(layout: &Layout, roots: &Path, known: &[String]) -> Result<()> {
    let program = "regression-issue-74839";
    let root = roots.join(program);
    files::copy(&layout.bin().join(program), &root.join(program))?;
    let settings = json!({"Entrypoint": [format!("/{program}")]});
    pack(&tagged(known, REGRESSION)?, vec![root], settings, &layout.images().join("regression.tar"))
}

fn with_shell(layout: &Layout, roots: &Path, known: &[String]) -> Result<()> {
    let (debian, root) = (layout.debian().join("image"), roots.join("agnhost"));
    let names: Vec<_> = WITH_SHELL.iter().map(|image| tagged(known, image)).collect::<Result<_>>()?;
    for program in ["agnhost", "coredns"] {
        files::copy(&layout.bin().join(program), &root.join(program))?;
    }
    link("agnhost", &root.join("agnhost-2"))?;
    let porter = programs::kubernetes_source()?.join("test/images/agnhost/porter");
    for file in ["localhost.crt", "localhost.key"] {
        files::copy(&porter.join(file), &root.join(file))?;
    }
    files::create(&root.join("uploads"))?;
    accounts(&root)?;
    commands(&debian, &root)?;
    let settings = json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]});
    pack(&names.concat(), vec![debian, root], settings, &layout.images().join("agnhost.tar"))
}

/// Packs an image of this machine's architecture.
fn pack(names: &[String], layers: Vec<PathBuf>, settings: Value, archive: &Path) -> Result<()> {
    let image = Image { architecture: Architecture::own()?.image_name(), layers, settings };
    Archive { names, images: &[image], created: 0 }.pack(archive).map(drop)
}

fn kube_proxy(layout: &Layout, roots: &Path) -> Result<()> {
    let (debian, root) = (layout.debian().join("image"), roots.join("kube-proxy"));
    files::copy(&layout.bin().join("kube-proxy"), &root.join("kube-proxy"))?;
    let settings = json!({"Entrypoint": ["/kube-proxy"]});
    pack(&["localhost/kube-proxy:test".to_owned()], vec![debian, root], settings, &layout.images().join("kube-proxy.tar"))
}

/// Writes the files that the installation scripts of Debian's packages would write.
fn accounts(root: &Path) -> Result<()> {
    files::create(&root.join("etc"))?;
    for (file, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ] {
        fs::write(root.join("etc").join(file), text).with_context(|| format!("failed to write {file}"))?;
    }
    Ok(())
}

/// Makes the commands that the installation scripts of Debian's packages would make, and those of busybox that are missing.
///
/// The shell is bash: that of busybox would prefer its own applets, such as `nc`, to the programs in PATH.
fn commands(debian: &Path, root: &Path) -> Result<()> {
    let directory = root.join("usr/bin");
    files::create(&directory)?;
    link("bash", &directory.join("sh"))?;
    link("nc.openbsd", &directory.join("nc"))?;
    let busybox = debian.join("usr/bin/busybox");
    let applets = program::output(program::command(&busybox.to_string_lossy()).arg("--list"))?;
    for applet in applets.lines() {
        let places = ["usr/bin", "usr/sbin"].map(|place| debian.join(place).join(applet));
        let path = directory.join(applet);
        // A link to another program exists although its target is not in this directory.
        if !places.iter().any(|place| place.is_symlink() || place.exists()) && !path.is_symlink() {
            link("busybox", &path)?;
        }
    }
    Ok(())
}

fn link(target: &str, path: &Path) -> Result<()> {
    symlink(target, path).with_context(|| format!("failed to link {}", path.display()))
}
