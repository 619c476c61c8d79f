//! Checks the links within the documents: each relative link leads to a file of the tree, and each anchor to a heading.
//!
//! Links to other sites are not checked, because the check must work without a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::{program, workspace};

/// The links of a document, and the anchors of its headings.
#[derive(Default)]
struct Document {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

/// Fails if a link in a Markdown file of the tree leads nowhere. The error lists every such link.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut list = program::command("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let files = program::output(&mut list).context("failed to list the files of the tree")?;
    let mut documents = BTreeMap::new();
    for name in files.lines().map(PathBuf::from).filter(|name| name.extension().is_some_and(|extension| extension == "md")) {
        let path = root.join(&name);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        documents.insert(name, parse(&text));
    }
    let faults = faults(&documents, |path| root.join(path).exists());
    ensure!(faults.is_empty(), "some links lead nowhere:\n  {}", faults.join("\n  "));
    Ok(())
}

fn parse(text: &str) -> Document {
    let mut document = Document::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        if let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event {
            document.links.push(dest_url.into_string());
        } else if let Event::Start(Tag::Heading { .. }) = event {
            heading = Some(String::new());
        } else if let Event::End(TagEnd::Heading(_)) = event {
            document.add_anchor(&heading.take().unwrap_or_default());
        } else if let (Some(heading), Event::Text(part) | Event::Code(part)) = (&mut heading, event) {
            heading.push_str(&part);
        }
    }
    document
}

impl Document {
    /// Adds the anchor that GitHub gives to a heading: `source-ranges` for `Source ranges`, `source-ranges-1` for the second.
    fn add_anchor(&mut self, heading: &str) {
        let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        let plain = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let numbered = (1..).map(|number| format!("{plain}-{number}"));
        let free = [plain.clone()].into_iter().chain(numbered).find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(free);
    }
}

fn faults(documents: &BTreeMap<PathBuf, Document>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, document) in documents {
        for link in document.links.iter().filter(|link| !link.contains(':')) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { name.clone() } else { resolve(name, path) };
            let is_there = documents.contains_key(&target) || exists(&target);
            let has_anchor = documents.get(&target).is_some_and(|target| target.anchors.contains(anchor));
            if !is_there || !(anchor.is_empty() || has_anchor) {
                faults.push(format!("{}: {link}", name.display()));
            }
        }
    }
    faults
}

/// The path that a link in the document `name` leads to, without `..`, from the root of the tree.
fn resolve(name: &Path, link: &str) -> PathBuf {
    let mut path = name.parent().unwrap_or(name).to_path_buf();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => path.push(component),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_without_a_target_are_found() {
        let a = "# One `two`: three\n## Same\n## Same\n[b](b/c.md#x) [d](b/c.md#y) [own](#one-two-three)\n[again](#same-1)\n[no](#same-2)\n\
                 `[code](none.md)` [site](https://example.org/none.md)\n```\n[fence](none.md)\n```\n| [cell](b/none.md) |\n|---|\n";
        let c = "# X\n[up](../a.md#same) [none](../none.svg) [there](there.svg)\n";
        let documents = [("a.md", a), ("b/c.md", c)].map(|(name, text)| (PathBuf::from(name), parse(text)));
        let faults = faults(&documents.into_iter().collect(), |path| path == Path::new("b/there.svg"));
        assert_eq!(faults, ["a.md: b/c.md#y", "a.md: #same-2", "a.md: b/none.md", "b/c.md: ../none.svg"]);
    }
}
