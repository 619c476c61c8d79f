//! Properties of the machine that influence the figures. Every report shows them.

use std::fmt;
use std::fs;

use serde::Serialize;

/// Properties of this machine. An unreadable text is empty, an unreadable number 0.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// Number of online CPUs.
    pub cpus: usize,
    /// Model name of the first CPU.
    pub cpu_model: String,
    /// Whether the kernel's BPF JIT compiler is enabled; true if unknown.
    pub bpf_jit: bool,
    /// Load average of the minute before the measurement.
    pub load: f64,
}

impl Machine {
    /// Reads the properties of this machine.
    #[must_use]
    pub fn look() -> Self {
        let processors = read("/proc/cpuinfo");
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: processors.lines().filter(|line| line.starts_with("processor")).count(),
            cpu_model: model(&processors).unwrap_or_default().to_owned(),
            bpf_jit: read("/proc/sys/net/core/bpf_jit_enable") != "0",
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpus, cpu_model, bpf_jit, load } = self;
        let jit = if *bpf_jit { "BPF JIT" } else { "no BPF JIT" };
        write!(f, "kernel {kernel}, {jit}, {cpus} × {cpu_model}, load {load} at the start")
    }
}

/// Reads a file of the kernel; an unreadable file counts as empty.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

fn model(processors: &str) -> Option<&str> {
    let line = processors.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_cpu() {
        let machine = Machine::look();
        assert!(!machine.kernel.is_empty() && machine.cpus > 0, "{machine}");
    }

    #[test]
    fn a_processor_says_what_it_is() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A CPU: fast\n"), Some("A CPU: fast"));
        assert_eq!(model("processor\t: 0\n"), None);
    }
}
