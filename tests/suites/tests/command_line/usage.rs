//! Version, help, completions, and wrong usage.

use std::io;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use portmap_suites::command::{binary, clean, finish, portmap};

#[test]
fn the_version_is_printed() -> Result<()> {
    for flag in ["--version", "-V"] {
        let outcome = portmap(&[flag])?.expect(0)?;
        assert_eq!(outcome.stdout, format!("portmap {}\n", env!("CARGO_PKG_VERSION")));
    }
    Ok(())
}

#[test]
fn help_mentions_every_flag() -> Result<()> {
    const FLAGS: [(&str, &[&str]); 14] = [
        (
            "run",
            &[
                "--manifests",
                "--kubeconfig",
                "--node-name",
                "--bpffs",
                "--cgroup",
                "--max-services",
                "--max-backends",
                "--service-cidr",
                "--nodeport-addresses",
                "--only-host",
                "--exclude-cgroup",
                "--max-affinity-clients",
                "--datapath-log",
                "--service-proxy-name",
            ],
        ),
        ("resolve", &["--manifests", "--node-name", "NODE_NAME", "-o, --output", "table", "json", "yaml", "--strict"]),
        ("lint", &["--kubeconfig", "--namespace", "--deny", "--ignore", "-o, --output", "sarif", "--list-rules", "--explain"]),
        ("services", &["--bpffs", "/sys/fs/bpf/portmap", "-o, --output"]),
        ("flows", &["--bpffs", "-o, --output", "--service", "--client"]),
        (
            "trace",
            &["--bpffs", "-o, --output", "--service", "--pod", "--pid", "--refused", "--outside", "--count", "--pod-logs"],
        ),
        ("top", &["--bpffs", "-o, --output", "--once", "--interval", "--sort", "--manifests", "--kubeconfig"]),
        ("status", &["--bpffs", "-o, --output"]),
        ("doctor", &["--bpffs", "--cgroup", "--kubeconfig", "--service", "-o, --output"]),
        ("verify", &["--bpffs", "-o, --output", "--manifests", "--kubeconfig", "--node-name", "--repair", "Exit codes"]),
        ("cleanup", &["--bpffs", "--force", "--drain"]),
        ("explain", &["--from-pid", "--from-netns", "--manifests", "--kubeconfig", "--node-name", "--bpffs", "--output"]),
        ("completions", &["bash", "zsh", "fish"]),
        ("man", &["--dir"]),
    ];
    let overview = portmap(&["--help"])?.expect(0)?.stdout;
    for part in ["Exit codes: 0", "--verbose", "--version"] {
        assert!(overview.contains(part), "{part} in {overview}");
    }
    for (subcommand, flags) in FLAGS {
        assert!(overview.contains(subcommand), "{subcommand} in {overview}");
        let help = portmap(&[subcommand, "--help"])?.expect(0)?.stdout;
        for flag in flags.iter().chain(&["--verbose", "--help"]) {
            assert!(help.contains(flag), "{flag} in {help}");
        }
    }
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    const WRONG: [(&[&str], &str); 20] = [
        (&[], "Usage: portmap"),
        (&["serve"], "unrecognized subcommand 'serve'"),
        (&["resolve", "--manifest-dir", "x"], "unexpected argument '--manifest-dir'"),
        (&["resolve"], "--manifests <PATH>"),
        (&["resolve", "--manifests", "x", "-o", "xml"], "[possible values: table, json, yaml]"),
        (&["run", "--manifests", "x", "--kubeconfig", "y"], "cannot be used with"),
        (&["run", "--max-services", "0"], "--max-services"),
        (&["run", "--service-cidr", "0.0.0.0/0"], "0.0.0.0/0 is too wide for a range of ClusterIPs: /8 is the widest of IPv4"),
        (&["run", "--service-cidr", "10.96.0.0/12,10.0.0.0/7"], "10.0.0.0/7 is too wide"),
        (&["run", "--service-cidr", "fd00::/31"], "fd00::/31 is too wide for a range of ClusterIPs: /32 is the widest of IPv6"),
        (&["run", "--service-cidr", "10.96.0.0"], "expected ADDRESS/BITS"),
        (&["flows", "--service", "a/b/c"], "expected NAME, NAME.NAMESPACE or NAMESPACE/NAME"),
        (&["flows", "--client", "web"], "--client <ADDRESS>"),
        (&["verify", "--manifests", "x", "--kubeconfig", "y"], "cannot be used with"),
        (&["cleanup", "everything"], "unexpected argument 'everything'"),
        (&["cleanup", "--drain", "--force"], "cannot be used with"),
        (&["cleanup", "--drain=1h"], "invalid value '1h'"),
        (&["completions", "dos"], "[possible values: bash"),
        (&["man", "serve"], "expected one of run, resolve, lint"),
        (&["man", "run", "--dir", "x"], "cannot be used with"),
    ];
    for (arguments, part) in WRONG {
        let outcome = portmap(arguments)?.expect(2)?;
        ensure!(outcome.stderr.contains(part) && outcome.stdout.is_empty(), "{arguments:?} should give {part}: {outcome:#?}");
    }
    Ok(())
}

/// Loads the completions as in a user's ~/.bashrc, and completes `portmap stat`. `$0` is the path of portmap.
const COMPLETE: &str = r#"source <("$0" completions bash) && complete -p portmap && COMP_WORDS=(portmap stat) COMP_CWORD=1 &&
    _portmap portmap stat portmap && echo "${COMPREPLY[@]}""#;

#[test]
fn completions_are_scripts_of_their_shells() -> Result<()> {
    for (shell, start) in [("bash", "_portmap()"), ("zsh", "#compdef portmap"), ("fish", "# Print an optspec")] {
        let script = portmap(&["completions", shell])?.expect(0)?.stdout;
        assert!(script.starts_with(start) && script.contains("resolve") && script.contains("manifests"), "{script}");
    }
    let outcome = finish(Command::new("bash").args(["--norc", "-c", COMPLETE]).arg(binary()?))?.expect(0)?;
    assert!(outcome.stdout.trim_end().ends_with("status"), "{outcome:#?}");
    Ok(())
}

/// The reader may close the pipe early, as `head` does. The command then ends without an error message.
#[test]
fn a_closed_pipe_gives_no_error_message() -> Result<()> {
    const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cases/clusterip-numeric");
    for arguments in [&["--help"][..], &["completions", "bash"], &["resolve", "--manifests", CASE]] {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let output = clean(Command::new(binary()?).args(arguments)).stdout(writer).stderr(Stdio::piped()).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.is_empty(), "{arguments:?}: {stderr}");
    }
    Ok(())
}
