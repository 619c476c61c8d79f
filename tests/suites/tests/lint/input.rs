//! Paths, standard input, and input that cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use portmap_suites::command::{as_nobody, finish, public_copy};

use crate::harness::{directory, lint, shell};

/// A Service whose targetPort no pod has.
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, \
                       targetPort: web}]}\n";
/// The pods of the Service.
const PODS: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {metadata: {labels: {app: \
                    web}}, spec: {containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]}}}\n";

#[test]
fn all_paths_are_one_set() -> Result<()> {
    let files = directory(&[("a/service.yaml", SERVICE), ("b/pods.yml", PODS), ("b/ignored.txt", "x: [")])?;
    let outcome = lint(files.path(), &["a/service.yaml", "b"])?.expect(1)?;
    ensure!(outcome.stdout.contains("a/service.yaml:4: error[PM101]") && outcome.stderr.is_empty(), "{outcome:#?}");
    let outcome = shell(files.path(), "portmap lint a - < b/pods.yml")?.expect(1)?;
    ensure!(outcome.stdout.contains("error[PM101]") && outcome.stdout.contains("(<stdin>:1)"), "{outcome:#?}");
    // A part of the set gives a note only.
    lint(files.path(), &["a"])?.expect(0)?;
    Ok(())
}

#[test]
fn subdirectories_are_read_on_request() -> Result<()> {
    let files = directory(&[("x/a/service.yaml", SERVICE), ("x/pods.yaml", PODS), ("x/.git/broken.yaml", "x: [")])?;
    let outcome = lint(files.path(), &["x"])?.expect(0)?;
    ensure!(outcome.stdout == "no findings in 1 object\n", "{outcome:#?}");
    let outcome = lint(files.path(), &["-R", "x"])?.expect(1)?;
    ensure!(outcome.stdout.contains("x/a/service.yaml:4: error[PM101]") && outcome.stderr.is_empty(), "{outcome:#?}");
    Ok(())
}

#[test]
fn a_path_that_cannot_be_read_ends_with_3() -> Result<()> {
    let files = directory(&[("service.yaml", SERVICE)])?;
    let outcome = lint(files.path(), &["service.yaml", "missing.yaml"])?.expect(3)?;
    ensure!(outcome.stderr.contains("failed to read missing.yaml") && outcome.stdout.is_empty(), "{outcome:#?}");
    Ok(())
}

/// Root may read every file. So the command runs as another user.
#[test]
fn a_file_that_may_not_be_read_leaves_the_others() -> Result<()> {
    let files = directory(&[("a.yaml", &SERVICE.replace("web}]", "'80'}]")), ("b.yaml", PODS)])?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(files.path().join("b.yaml"), fs::Permissions::from_mode(0o000))?;
    let (_copy, portmap) = public_copy()?;
    let mut command = as_nobody(Command::new("setpriv"), &portmap);
    let outcome = finish(command.args(["lint", "."]).current_dir(files.path()))?.expect(3)?;
    ensure!(outcome.stdout.contains("error[PM106]") && outcome.stderr.contains("failed to read ./b.yaml"), "{outcome:#?}");
    Ok(())
}

#[test]
fn broken_files_are_findings() -> Result<()> {
    let files = directory(&[("service.yaml", SERVICE), ("pods.yaml", PODS), ("broken.yaml", "a: [1, 2\nb: }\n")])?;
    fs::write(files.path().join("binary.yaml"), [0xff, 0xfe, 0x00, 0x80])?;
    let outcome = lint(files.path(), &["."])?.expect(1)?;
    for part in ["./broken.yaml:2: error[PM001]", "./binary.yaml:1: error[PM001]", "2 errors in 2 objects"] {
        ensure!(outcome.stdout.contains(part), "{part}: {outcome:#?}");
    }
    Ok(())
}

#[test]
fn input_without_objects_ends_with_1() -> Result<()> {
    let files = directory(&[("empty.yaml", ""), ("values.yaml", "replicas: 3\n"), ("none/x.txt", "")])?;
    for arguments in [&["empty.yaml"][..], &["values.yaml"], &["none"], &["-"]] {
        let outcome = lint(files.path(), arguments)?.expect(1)?;
        ensure!(outcome.stderr.contains("no object was given") && outcome.stdout.contains("no findings"), "{outcome:#?}");
    }
    Ok(())
}

#[test]
fn an_unset_namespace_is_the_given_one() -> Result<()> {
    let pods = PODS.replace("{name: web}\n", "{name: web, namespace: shop}\n");
    let files = directory(&[("a.yaml", &format!("{SERVICE}---\n{pods}"))])?;
    let outcome = lint(files.path(), &["a.yaml"])?.expect(0)?;
    ensure!(outcome.stdout.contains("note[PM110]") && outcome.stdout.contains("--namespace"), "{outcome:#?}");
    let outcome = lint(files.path(), &["-n", "shop", "a.yaml"])?.expect(1)?;
    ensure!(outcome.stdout.contains("error[PM101] Service shop/web"), "{outcome:#?}");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    const WRONG: [(&[&str], &str); 8] = [
        (&[], "required arguments were not provided: <PATH>..."),
        (&["x", "-o", "xml"], "[possible values: text, json, sarif, github]"),
        (&["x", "--ignore", "PM999"], "no such code"),
        (&["x", "--deny", "errors"], "[possible values: warnings, notes]"),
        (&["x", "--kubeconfig", "y"], "cannot be used with"),
        (&["x", "--node-port-range", "5-1"], "expected FIRST-LAST"),
        (&["x", "--namespace", ""], "--namespace"),
        (&["--explain", "x"], "no such code"),
    ];
    let files = directory(&[])?;
    for (arguments, part) in WRONG {
        let outcome = lint(files.path(), arguments)?.expect(2)?;
        let stderr = outcome.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(outcome.stdout.is_empty() && stderr.contains(part), "{arguments:?} should give {part}: {outcome:#?}");
    }
    Ok(())
}

#[test]
fn a_cluster_that_cannot_be_reached_ends_with_3() -> Result<()> {
    let files = directory(&[("bad", "x: [")])?;
    let outcome = lint(files.path(), &["--kubeconfig", "bad"])?.expect(3)?;
    ensure!(outcome.stderr.contains("failed to read the kubeconfig bad"), "{outcome:#?}");
    let nowhere = "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                   contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {token: a}}]\ncurrent-context: a\n";
    fs::write(files.path().join("nowhere"), nowhere)?;
    let outcome = lint(files.path(), &["--kubeconfig", "nowhere"])?.expect(3)?;
    ensure!(outcome.stderr.contains("failed to list services at http://127.0.0.1:1"), "{outcome:#?}");
    Ok(())
}
