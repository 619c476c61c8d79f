//! Reads files of which few objects are needed. Most of the time goes into finding the objects in the texts, so that is done once.

use std::path::PathBuf;

use anyhow::{Error, Result};

use super::{
    File, Manifests, Reading, files,
    parse::{self, Filter, Split},
};

impl Manifests {
    /// Reads the files, but of the Services and EndpointSlices in JSON only some: first those with the string `first`, and then those
    /// with one of the strings that `decide` returns for the first ones. Reads all of them if it returns `None`. The strings need
    /// no escapes in JSON. Standard input is not read.
    ///
    /// # Errors
    ///
    /// A path does not exist or its metadata cannot be read, or a directory cannot be listed.
    pub fn read_few(&mut self, first: String, decide: impl FnOnce(&Self) -> Option<Vec<String>>) -> Result<Reading> {
        self.warnings.clear();
        let mut texts = Vec::new();
        for path in files::list(&self.paths, false, &mut self.warnings)?.into_keys() {
            match files::read(&path) {
                Ok(text) => texts.push((path, text)),
                Err(error) => self.leave_out(path, &error),
            }
        }
        let mut documents = Vec::new();
        for (path, text) in &texts {
            match parse::split(text, &path.display().to_string()) {
                Ok(split) => documents.push((path, split)),
                Err(error) => self.leave_out(path.clone(), &error),
            }
        }
        self.decode(&documents, Some(vec![first]));
        let strings = decide(self);
        self.decode(&documents, strings);
        Ok(self.reading())
    }

    fn decode(&mut self, documents: &[(&PathBuf, Split)], strings: Option<Vec<String>>) {
        let quoted = |strings: Vec<String>| strings.iter().map(|string| format!("\"{string}\"")).collect::<Vec<_>>();
        let only = strings.map(quoted);
        for (path, split) in documents {
            let name = path.display().to_string();
            let filter = Filter { wanted: &self.wanted, only: only.as_deref() };
            match parse::decode(split.clone(), &name, filter) {
                Ok((objects, faults)) => {
                    let file = File { objects, warnings: faults.into_warnings(&name), ..File::default() };
                    self.files.insert((*path).clone(), file);
                }
                Err(error) => self.leave_out((*path).clone(), &error),
            }
        }
    }

    /// A file without content, with this error as its warning.
    fn leave_out(&mut self, path: PathBuf, error: &Error) {
        let mut file = File::default();
        file.warn(error);
        self.files.insert(path, file);
    }
}
