//! The command lines of etcd, the API server and the controller manager, and the files that they share.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Address ranges of Services, IPv4 and IPv6.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Advertised address of the API server, which no client uses. The API server refuses a loopback address; this one is for
/// documentation (RFC 5737).
const ADVERTISED: &str = "192.0.2.1";

/// The directory of one control plane, and the paths of its files.
#[derive(Debug)]
pub(super) struct Files<'a>(pub(super) &'a Path);

impl Files<'_> {
    /// The Unix socket of etcd. Not a TCP port, because another process could take a free port before etcd binds it.
    pub(super) fn etcd_socket(&self) -> PathBuf {
        self.0.join("etcd.sock")
    }

    /// The API server's certificate, followed by that of its authority. The API server makes both.
    pub(super) fn certificate(&self) -> PathBuf {
        self.0.join("certificates/apiserver.crt")
    }

    /// The TLS key that the API server makes if there is none; a restart keeps it. It also signs service-account tokens, until
    /// [`Self::first_key`] exists.
    pub(super) fn key(&self) -> PathBuf {
        self.0.join("certificates/apiserver.key")
    }

    /// A copy of the first TLS key, which exists after a renewal of the certificate. From then on it signs service-account
    /// tokens.
    pub(super) fn first_key(&self) -> PathBuf {
        self.0.join("first.key")
    }

    /// Writes the file of static tokens. It has one token, that of a user with all permissions.
    pub(super) fn write_tokens(&self, admin: &str) -> Result<()> {
        fs::write(self.0.join("tokens.csv"), format!("{admin},admin,admin,system:masters\n"))
            .context("failed to write the file of static tokens")
    }

    pub(super) fn etcd(&self) -> Vec<String> {
        let clients = format!("unix://{}", self.path("etcd.sock"));
        let peers = format!("unix://{}", self.path("etcd-peers.sock"));
        vec![
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            // The data need not survive a crash of the machine.
            "--unsafe-no-fsync".to_owned(),
        ]
    }

    pub(super) fn api_server(&self, port: u16) -> Vec<String> {
        let first_key = self.first_key();
        let key = if first_key.exists() { first_key } else { self.key() }.display().to_string();
        vec![
            format!("--etcd-servers=unix://{}", self.path("etcd.sock")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--permit-port-sharing".to_owned(),
            format!("--cert-dir={}", self.path("certificates")),
            format!("--token-auth-file={}", self.path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            // This plugin would refuse every pod, because no controller makes the service accounts named "default".
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            // portmap's own DaemonSet is privileged.
            "--allow-privileged".to_owned(),
            format!("--advertise-address={ADVERTISED}"),
            "--endpoint-reconciler-type=none".to_owned(),
        ]
    }

    pub(super) fn controller_manager(&self, port: u16, kubeconfig: &Path) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--controllers=endpointslice-controller,endpointslice-mirroring-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            // The default limits suit a shared API server: thousands of Services would take minutes.
            "--kube-api-qps=1000".to_owned(),
            "--kube-api-burst=1000".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--permit-port-sharing".to_owned(),
            format!("--tls-cert-file={}", self.path("certificates/apiserver.crt")),
            format!("--tls-private-key-file={}", self.path("certificates/apiserver.key")),
        ]
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
