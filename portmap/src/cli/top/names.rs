//! The pods behind the backends of the rows. A thread reads them, so that neither the screen nor the events wait.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use anyhow::{Context as _, Result};
use portmap::{inspect::top::Row, model::ObjectName};
use tokio::runtime::Runtime;

use crate::cli::{
    backends::{self, Backends},
    runtime,
};

/// The pods that are known.
pub struct PodNames {
    questions: Sender<Vec<Backend>>,
    answers: Receiver<Answer>,
    known: HashMap<Backend, ObjectName>,
    is_asked: bool,
    /// The reason why pods are not named.
    warning: Option<String>,
}

/// A Service, and the address of one of its backends.
type Backend = (ObjectName, IpAddr);

struct Answer {
    pods: HashMap<Backend, ObjectName>,
    warning: Option<String>,
}

impl PodNames {
    /// Opens the source of the names, and starts the thread. It ends when the names are dropped.
    pub fn start(arguments: backends::Arguments) -> Result<Self> {
        let runtime = runtime()?;
        let backends = runtime.block_on(arguments.open())?;
        let (questions, asked) = mpsc::channel();
        let (given, answers) = mpsc::channel();
        let work = move || answer(&runtime, backends, &asked, &given);
        thread::Builder::new().name("names".into()).spawn(work).context("failed to start a thread")?;
        Ok(Self { questions, answers, known: HashMap::new(), is_asked: false, warning: None })
    }

    /// Names the pods that are known, and asks for the pods of these rows.
    pub fn name(&mut self, rows: &mut [Row]) {
        if let Ok(answer) = self.answers.try_recv() {
            self.learn(answer);
        }
        self.write(rows);
        if !self.is_asked {
            self.ask(rows);
        }
    }

    /// As [`Self::name`], but waits for the names.
    pub fn name_now(&mut self, rows: &mut [Row]) {
        self.ask(rows);
        if let Ok(answer) = self.answers.recv() {
            self.learn(answer);
        }
        self.write(rows);
    }

    /// The reason why pods are not named, if there is one.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn ask(&mut self, rows: &[Row]) {
        let backends =
            |row: &Row| -> Vec<_> { row.backends.iter().map(|share| (row.service.clone(), share.backend.ip())).collect() };
        self.is_asked = self.questions.send(rows.iter().flat_map(backends).collect()).is_ok();
    }

    fn learn(&mut self, answer: Answer) {
        let Answer { pods, warning } = answer;
        self.known = pods;
        self.warning = self.warning.take().or(warning);
        self.is_asked = false;
    }

    fn write(&self, rows: &mut [Row]) {
        for row in rows {
            for share in &mut row.backends {
                share.pod = self.known.get(&(row.service.clone(), share.backend.ip())).cloned();
            }
        }
    }
}

/// Answers questions until nobody asks any more.
fn answer(runtime: &Runtime, mut backends: Backends, asked: &Receiver<Vec<Backend>>, given: &Sender<Answer>) {
    for questions in asked {
        let mut pods = HashMap::new();
        for (service, address) in questions {
            if let Some(pod) = runtime.block_on(backends.pod(&service, address)).cloned() {
                pods.insert((service, address), pod);
            }
        }
        if given.send(Answer { pods, warning: backends.take_warning() }).is_err() {
            return;
        }
    }
}
