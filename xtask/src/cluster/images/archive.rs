//! Packs directories as a container image, in the format of `docker save`, which containerd imports.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::layout;
use crate::program;

/// A container image to pack.
pub struct Image {
    /// Names with tags, as pods write them.
    pub names: Vec<String>,
    /// The directories with the content, lowest layer first.
    pub layers: Vec<PathBuf>,
    /// The fields of the image's configuration that differ from the defaults, such as `Entrypoint`.
    pub settings: Value,
}

impl Image {
    /// Writes the image to the file `archive`, with a final rename.
    pub fn pack(&self, archive: &Path) -> Result<()> {
        let work = archive.with_extension("partial");
        layout::remove(&work)?;
        layout::create(&work)?;
        let layers: Vec<String> = (0..self.layers.len()).map(|number| format!("layer-{number}.tar")).collect();
        let mut digests = Vec::new();
        for (layer, content) in layers.iter().zip(&self.layers) {
            tar(&work.join(layer), content, &[".".to_owned()])?;
            digests.push(format!("sha256:{}", digest(&work.join(layer))?));
        }
        let configuration = self.configuration(&digests).to_string();
        write(&work.join("configuration"), &configuration)?;
        let name = format!("{}.json", digest(&work.join("configuration"))?);
        write(&work.join(&name), &configuration)?;
        let manifest = json!([{"Config": name, "RepoTags": self.names, "Layers": layers}]);
        write(&work.join("manifest.json"), &manifest.to_string())?;
        let packed = work.join("image.tar");
        tar(&packed, &work, &[vec![name, "manifest.json".to_owned()], layers].concat())?;
        fs::rename(&packed, archive).with_context(|| format!("failed to write {}", archive.display()))?;
        layout::remove(&work)
    }

    fn configuration(&self, digests: &[String]) -> Value {
        let mut settings = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        });
        if let (Some(all), Some(own)) = (settings.as_object_mut(), self.settings.as_object()) {
            all.extend(own.clone());
        }
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": digests},
        })
    }
}

/// The name of this machine's architecture in images.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes an archive of `paths`, which are relative to `directory`. All files belong to root.
fn tar(archive: &Path, directory: &Path, paths: &[String]) -> Result<()> {
    let mut tar = program::command("tar");
    tar.args(["--create", "--numeric-owner", "--owner=0", "--group=0", "--file"]).arg(archive);
    program::run(tar.arg("--directory").arg(directory).args(paths))
}

/// The SHA-256 digest of a file, as hexadecimal digits.
fn digest(file: &Path) -> Result<String> {
    let printed = program::output(program::command("sha256sum").arg(file))?;
    Ok(printed.split_whitespace().next().context("sha256sum printed nothing")?.trim_start_matches('\\').to_owned())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_names_its_layers_by_their_digests() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("portmap-image-{}", std::process::id()));
        layout::create(&directory.join("root/etc"))?;
        write(&directory.join("root/etc/hostname"), "a")?;
        let image = Image {
            names: vec!["example:1".into()],
            layers: vec![directory.join("root")],
            settings: json!({"Entrypoint": ["/run"]}),
        };
        let archive = directory.join("image.tar");
        image.pack(&archive)?;
        let read = |name: &str| {
            let mut tar = program::command("tar");
            program::output(tar.args(["--extract", "--to-stdout", "--file"]).arg(&archive).arg(name))
        };
        let manifest: Value = serde_json::from_str(&read("manifest.json")?)?;
        assert_eq!((&manifest[0]["RepoTags"], &manifest[0]["Layers"]), (&json!(["example:1"]), &json!(["layer-0.tar"])));
        let configuration: Value = serde_json::from_str(&read(manifest[0]["Config"].as_str().unwrap_or_default())?)?;
        let mut tar = program::command("tar");
        program::run(tar.arg("--extract").arg("--directory").arg(&directory).arg("--file").arg(&archive).arg("layer-0.tar"))?;
        let layer = format!("sha256:{}", digest(&directory.join("layer-0.tar"))?);
        assert_eq!(configuration["rootfs"]["diff_ids"], json!([layer]));
        assert_eq!(configuration["config"]["Entrypoint"], json!(["/run"]));
        layout::remove(&directory)
    }
}
