//! Makes the container images of the cluster, because no registry is used.
//!
//! Kubernetes' tests name their images. Most of them only need a shell and some network programs, so one root directory of
//! Debian packages serves them all.

mod archive;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use self::archive::Image;
use super::layout::{self, Layout};
use super::stamp::Stamp;
use super::{packages, programs};
use crate::screen::{Mark, Screen};
use crate::{libraries, program};

/// The images for which the root directory of Debian packages stands in.
const WITH_SHELL: [&str; 4] = [
    "registry.k8s.io/e2e-test-images/agnhost",
    "registry.k8s.io/e2e-test-images/busybox",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing",
    "registry.k8s.io/build-image/distroless-iptables",
];
/// A test of connection tracking sends packets with this image's program.
const REGRESSION: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839";
/// The image whose process holds the namespaces of a pod.
const PAUSE: &str = "registry.k8s.io/pause";

/// Makes the images of Kubernetes and of its tests in [`Layout::images`].
pub fn prepare(layout: &Layout) -> Result<()> {
    // The names and roots of the images are in this file.
    let input = [packages::input(), programs::versions()?, include_str!("images.rs").to_owned()].join("\n");
    Stamp::new(&layout.images().join("all"), input).ensure(|| {
        Screen::Stderr.marked(Mark::Doing, "packing container images", "Kubernetes' tests run them");
        let known = known_images(layout)?;
        let roots = layout.tools.join("roots");
        layout::remove(&roots)?;
        pause(layout, &roots, &known)?;
        regression(layout, &roots, &known)?;
        with_shell(layout, &roots, &known)?;
        layout::remove(&roots)
    })
}

/// Makes the image of the agent from the program `agent`, with the name that `deploy/portmap.yaml` has.
pub fn prepare_agent(layout: &Layout, agent: &Path, name: &str) -> Result<()> {
    let root = layout.tools.join("roots/portmap");
    layout::remove(&root)?;
    copy(agent, &root.join("usr/local/bin/portmap"))?;
    for library in libraries::of(agent)? {
        copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    // The agent names its dynamic loader in /lib64, which is a link on most machines.
    for name in ["lib", "lib64"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            link(&target.to_string_lossy(), &root.join(name))?;
        }
    }
    let image = Image {
        names: vec![format!("docker.io/library/{name}")],
        layers: vec![root.clone()],
        settings: json!({"Entrypoint": ["portmap"], "Cmd": ["run"]}),
    };
    image.pack(&layout.images().join("portmap.tar"))?;
    layout::remove(&root)
}

/// The image of the pause container, with its tag.
pub fn pause_image(layout: &Layout) -> Result<String> {
    tagged(&known_images(layout)?, PAUSE)?.into_iter().next().context("the tests name no pause image")
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
    layout::create(&root)?;
    let mut cc = program::command("cc");
    cc.args(["-Os", "-static", "-s", &format!("-DVERSION={version}"), "-o"]).arg(root.join("pause"));
    program::run(cc.arg(programs::kubernetes_source()?.join("build/pause/linux/pause.c")))?;
    let settings = json!({"Entrypoint": ["/pause"], "User": "65535:65535"});
    Image { names, layers: vec![root], settings }.pack(&layout.images().join("pause.tar"))
}

fn regression(layout: &Layout, roots: &Path, known: &[String]) -> Result<()> {
    let program = "regression-issue-74839";
    let root = roots.join(program);
    copy(&layout.bin().join(program), &root.join(program))?;
    let settings = json!({"Entrypoint": [format!("/{program}")]});
    Image { names: tagged(known, REGRESSION)?, layers: vec![root], settings }.pack(&layout.images().join("regression.tar"))
}

fn with_shell(layout: &Layout, roots: &Path, known: &[String]) -> Result<()> {
    let (debian, root) = (layout.debian().join("image"), roots.join("agnhost"));
    let names: Vec<_> = WITH_SHELL.iter().map(|image| tagged(known, image)).collect::<Result<_>>()?;
    for program in ["agnhost", "coredns"] {
        copy(&layout.bin().join(program), &root.join(program))?;
    }
    link("agnhost", &root.join("agnhost-2"))?;
    let porter = programs::kubernetes_source()?.join("test/images/agnhost/porter");
    for file in ["localhost.crt", "localhost.key"] {
        copy(&porter.join(file), &root.join(file))?;
    }
    layout::create(&root.join("uploads"))?;
    accounts(&root)?;
    commands(&debian, &root)?;
    let settings = json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]});
    Image { names: names.concat(), layers: vec![debian, root], settings }.pack(&layout.images().join("agnhost.tar"))
}

/// Writes the files that the installation scripts of Debian's packages would write.
fn accounts(root: &Path) -> Result<()> {
    layout::create(&root.join("etc"))?;
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
    layout::create(&directory)?;
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

/// Copies a file with its permissions, and creates the directory of the copy.
fn copy(from: &Path, to: &Path) -> Result<()> {
    layout::create(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn link(target: &str, path: &Path) -> Result<()> {
    symlink(target, path).with_context(|| format!("failed to link {}", path.display()))
}
