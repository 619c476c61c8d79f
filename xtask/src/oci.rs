//! Packs directories as container images, without a daemon or a registry.
//!
//! The result is an archive of an OCI image layout, which containerd, podman, skopeo and docker read. Equal content gives
//! equal bytes: the archives have no times of files, and their entries are sorted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{files, program};

/// The image of one architecture.
pub struct Image {
    /// The name of the architecture in images, such as `amd64`.
    pub architecture: &'static str,
    /// The directories with the content, lowest layer first.
    pub layers: Vec<PathBuf>,
    /// The fields of the image's configuration that differ from the defaults, such as `Entrypoint`.
    pub settings: Value,
}

/// A file in the layout, with the name of its digest.
#[derive(Clone, Debug)]
struct Blob {
    digest: String,
    size: u64,
}

/// Images of one or more architectures, with an index over them.
pub struct Archive<'a> {
    /// Names with tags, as pods write them.
    pub names: &'a [String],
    /// One image for each architecture.
    pub images: &'a [Image],
    /// The time of the images' creation, in seconds since 1970.
    pub created: u64,
}

impl Archive<'_> {
    /// Writes the file `archive`, with a final rename. Returns the digest of the index, as `sha256:…`.
    pub fn pack(&self, archive: &Path) -> Result<String> {
        let work = archive.with_extension("partial");
        files::remove(&work)?;
        let layout = Layout { blobs: work.join("layout/blobs/sha256"), created: self.created };
        files::create(&layout.blobs)?;
        let manifests = self.images.iter().map(|image| layout.add_image(image)).collect::<Result<Vec<_>>>()?;
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let index = layout.add(&index.to_string())?;
        let named = self.names.iter().map(|name| descriptor(INDEX, &index, &json!({"annotations": annotations(name)})));
        let named: Vec<Value> = named.collect();
        let root = work.join("layout");
        files::write(&root.join("oci-layout"), &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        let all = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": named});
        files::write(&root.join("index.json"), &all.to_string())?;
        let packed = work.join("image.tar");
        tar(&packed, &root, self.created)?;
        fs::rename(&packed, archive).with_context(|| format!("failed to write {}", archive.display()))?;
        files::remove(&work)?;
        Ok(index.digest)
    }
}

/// Media types of the OCI image specification.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The directory in which the files of an image layout are collected.
struct Layout {
    blobs: PathBuf,
    created: u64,
}

impl Layout {
    /// Adds the files of an image. Returns the descriptor of its manifest.
    fn add_image(&self, image: &Image) -> Result<Value> {
        let (mut layers, mut digests) = (Vec::new(), Vec::new());
        for content in &image.layers {
            let archive = self.blobs.join("layer.tar");
            tar(&archive, content, self.created)?;
            digests.push(digest(&archive)?);
            program::run(program::command("gzip").args(["--no-name", "--force"]).arg(&archive))?;
            layers.push(descriptor(LAYER, &self.adopt(&self.blobs.join("layer.tar.gz"))?, &json!({})));
        }
        let platform = json!({"architecture": image.architecture, "os": "linux"});
        let configuration = self.add(&self.configuration(image, &digests)?.to_string())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIGURATION, &configuration, &json!({})),
            "layers": layers,
        });
        Ok(descriptor(MANIFEST, &self.add(&manifest.to_string())?, &json!({"platform": platform})))
    }

    fn configuration(&self, image: &Image, digests: &[String]) -> Result<Value> {
        let settings = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        });
        let mut date = program::command("date");
        let created = program::output(date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date", &format!("@{}", self.created)]))?;
        Ok(json!({
            "architecture": image.architecture,
            "os": "linux",
            "created": created.trim_end(),
            "config": merged(settings, &image.settings),
            "rootfs": {"type": "layers", "diff_ids": digests},
        }))
    }

    /// Adds a file with this text.
    fn add(&self, text: &str) -> Result<Blob> {
        let file = self.blobs.join("text");
        files::write(&file, text)?;
        self.adopt(&file)
    }

    /// Renames a file of the directory after its digest.
    fn adopt(&self, file: &Path) -> Result<Blob> {
        let digest = digest(file)?;
        let size = fs::metadata(file).with_context(|| format!("failed to look at {}", file.display()))?.len();
        let name = self.blobs.join(digest.trim_start_matches("sha256:"));
        fs::rename(file, &name).with_context(|| format!("failed to write {}", name.display()))?;
        Ok(Blob { digest, size })
    }
}

/// The descriptor of a file, with further fields.
fn descriptor(media_type: &str, blob: &Blob, more: &Value) -> Value {
    merged(json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size}), more)
}

/// The annotations by which tools find an image of a layout: containerd by the name, others by the tag.
fn annotations(name: &str) -> Value {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag})
}

/// The first object with the fields of the second one.
fn merged(mut first: Value, second: &Value) -> Value {
    if let (Some(all), Some(more)) = (first.as_object_mut(), second.as_object()) {
        all.extend(more.clone());
    }
    first
}

/// Writes an archive of a directory's content. All files belong to root, have one time, and are sorted.
pub fn tar(archive: &Path, directory: &Path, time: u64) -> Result<()> {
    let mut tar = program::command("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"]);
    tar.arg(format!("--mtime=@{time}")).arg("--file").arg(archive).arg("--directory").arg(directory);
    program::run(tar.arg("."))
}

/// The SHA-256 digest of a file, as `sha256:…`.
pub fn digest(file: &Path) -> Result<String> {
    let printed = program::output(program::command("sha256sum").arg("--binary").arg(file))?;
    let digits = printed.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(format!("sha256:{}", digits.trim_start_matches('\\')))
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn equal_content_gives_equal_archives_whose_digests_hold() -> Result<()> {
        let directory = env::temp_dir().join(format!("portmap-image-{}", process::id()));
        files::remove(&directory)?;
        let mut digests = Vec::new();
        for copy in ["a", "b"] {
            let root = directory.join(copy);
            files::create(&root.join("etc"))?;
            files::write(&root.join("etc/hostname"), "a")?;
            let image = Image {
                architecture: "amd64",
                layers: vec![root],
                settings: json!({"Entrypoint": ["/run"], "WorkingDir": "/etc"}),
            };
            let archive = Archive { names: &["example:1".into()], images: &[image], created: 86_400 };
            let file = directory.join(format!("{copy}.tar"));
            digests.push((archive.pack(&file)?, digest(&file)?));
        }
        assert_eq!(digests[0], digests[1]);

        let mut tar = program::command("tar");
        program::run(tar.arg("--extract").arg("--directory").arg(&directory).arg("--file").arg(directory.join("a.tar")))?;
        let read = |digest: &Value| -> Result<Value> {
            let name = digest.as_str().unwrap_or_default().trim_start_matches("sha256:");
            let file = directory.join("blobs/sha256").join(name);
            assert_eq!(super::digest(&file)?, digest.as_str().unwrap_or_default());
            Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
        };
        let index: Value = serde_json::from_str(&fs::read_to_string(directory.join("index.json"))?)?;
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "example:1");
        assert_eq!(index["manifests"][0]["digest"], digests[0].0);
        let manifest = &read(&index["manifests"][0]["digest"])?["manifests"][0];
        assert_eq!(manifest["platform"]["architecture"], "amd64");
        let configuration = read(&read(&manifest["digest"])?["config"]["digest"])?;
        assert_eq!(configuration["config"]["Entrypoint"], json!(["/run"]));
        assert_eq!(
            (&configuration["config"]["WorkingDir"], &configuration["created"]),
            (&json!("/etc"), &json!("1970-01-02T00:00:00Z"))
        );
        files::remove(&directory)
    }
}
