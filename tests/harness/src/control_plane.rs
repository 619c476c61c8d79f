//! A real Kubernetes control plane: etcd, the API server, and the controllers that make `EndpointSlices`.
//!
//! RBAC, field validation, watches and the resolution of named targetPorts work as in a cluster. There is no kubelet: tests
//! write Nodes and Pods with their status ([`objects`]). The first use builds the programs from source ([`binaries()`],
//! minutes); afterwards they start in a few seconds. The API server and the controller manager listen on 127.0.0.1, etcd on
//! Unix sockets. The programs keep their data in a temporary directory, and end with this process.

mod access;
mod binaries;
mod certificates;
mod component;
pub mod detour;
mod flags;
pub mod gate;
pub mod load;
mod manifests;
pub mod objects;
mod port;
pub mod proxy;
pub mod volume;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::{Client, Config};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::UnixStream;

use access::Access;
pub use binaries::{Binaries, Program, binaries, binary};
use component::Component;
use flags::Files;
use port::Port;
use proxy::Proxy;
use volume::{Contents, Volume};

/// Environment variable that keeps the directory of a control plane (logs, data, kubeconfigs) for debugging.
const KEEP: &str = "PORTMAP_KEEP_CONTROL_PLANE";

/// A running control plane. Dropping this kills its programs and removes its directory.
///
/// The directory stays if the environment variable `PORTMAP_KEEP_CONTROL_PLANE` is set. A control plane in a static is never
/// dropped: its programs end with the process, but its directory stays.
#[derive(Debug)]
pub struct ControlPlane {
    // The fields are dropped in this order: clients first, so that they do not log errors about a missing server.
    _controller_manager: Component,
    api_server: Component,
    _etcd: Component,
    _controller_port: Port,
    api_port: Port,
    /// Additional flags of the API server, used at every start.
    flags: Vec<String>,
    access: Access,
    admin: Config,
    admin_token: String,
    admin_kubeconfig: PathBuf,
    binaries: Binaries,
    home: TempDir,
}

impl ControlPlane {
    /// Builds the programs if needed, starts them, and returns when all of them are ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with additional flags of the API server.
    pub async fn start_with(flags: &[&str]) -> Result<Self> {
        let flags: Vec<String> = flags.iter().copied().map(str::to_owned).collect();
        let binaries = tokio::task::spawn_blocking(binaries).await.context("failed to build the control plane")??;
        let home = temporary_directory()?;
        let files = Files(home.path());
        let token = access::random_token()?;
        files.write_tokens(&token)?;

        let etcd = start_etcd(&binaries, &files).await?;
        let api_port = Port::reserve()?;
        let mut api_server = spawn_api_server(&binaries, &files, &api_port, &flags)?;
        // The API server makes its certificate at its start, so every attempt reads the file again.
        let connect = async || {
            let access = Access::new(api_port.number(), &files.certificate())?;
            let admin = access.config("admin", &token).await?;
            access::check(&admin, "readyz").await?;
            Ok((access, admin))
        };
        let (access, admin) = api_server.ready(connect).await?;
        let kubeconfig = access.write_kubeconfig(home.path(), "admin", &token)?;
        let controller_port = Port::reserve()?;
        let controller_manager = start_controller_manager(&binaries, &files, &controller_port, &kubeconfig).await?;

        Ok(Self {
            _controller_manager: controller_manager,
            api_server,
            _etcd: etcd,
            _controller_port: controller_port,
            api_port,
            flags,
            access,
            admin,
            admin_token: token,
            admin_kubeconfig: kubeconfig,
            binaries,
            home,
        })
    }

    /// The URL of the API server, `https://127.0.0.1:<port>`. It stays the same after a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// Makes a client with all permissions. A client works only in the tokio runtime that made it, and several runtimes may
    /// share a control plane. Hence every call makes a new client.
    pub fn admin(&self) -> Result<Client> {
        Client::try_from(self.admin.clone()).context("failed to make a client for the API server")
    }

    /// The kubeconfig file of a user with all permissions. It has the first certificate authority, also after
    /// [`Self::renew_certificate`].
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Writes a self-contained kubeconfig file with this token into the control plane's directory. The file name depends on
    /// `user_name`; an existing file is replaced.
    pub fn kubeconfig(&self, user_name: &str, token: &str) -> Result<PathBuf> {
        self.access.write_kubeconfig(self.home.path(), user_name, token)
    }

    /// Requests a token for an existing service account, and writes a kubeconfig file with it.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = access::service_account_token(self.admin()?, namespace, name, None).await?;
        self.kubeconfig(&format!("system:serviceaccount:{namespace}:{name}"), &token)
    }

    /// As [`Self::service_account_kubeconfig`], but clients connect to `url`, the URL of a [`gate::Gate`] or a
    /// [`detour::Detour`].
    pub async fn service_account_kubeconfig_by(&self, url: &str, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = access::service_account_token(self.admin()?, namespace, name, None).await?;
        let port = url.rsplit(':').next().unwrap_or_default();
        self.access.by(url).write_kubeconfig(self.home.path(), &format!("{name}-by-{port}"), &token)
    }

    /// Writes a token for a service account into a file, and a kubeconfig file that refers to the token file. The kubeconfig
    /// uses `url`.
    ///
    /// The token is bound to a new Secret `first`. Deleting the Secret makes the token invalid.
    pub async fn token_file_kubeconfig(&self, url: &str, namespace: &str, name: &str) -> Result<TokenFile> {
        let file =
            TokenFile { path: self.home.path().join("token"), kubeconfig: self.home.path().join("kubeconfig-token-file") };
        self.access.by(url).write_token_file_kubeconfig(&file, name)?;
        self.renew_token(&file, namespace, name, "first").await?;
        Ok(file)
    }

    /// Requests another token, bound to a new Secret with the name `secret`, and writes it into the token file.
    pub async fn renew_token(&self, file: &TokenFile, namespace: &str, name: &str, secret: &str) -> Result<()> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        std::fs::write(&file.path, token).with_context(|| format!("failed to write {}", file.path.display()))
    }

    /// Makes the volume that a kubelet mounts into the pods of a service account.
    ///
    /// The token is bound to a new Secret with the name `secret`. Deleting the Secret makes the token invalid.
    pub async fn service_account_volume(&self, namespace: &str, name: &str, secret: &str) -> Result<Volume> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        Volume::new(self.api_port.number(), &self.volume_contents(namespace, &token))
    }

    /// Replaces the token of a volume by one that is bound to a new Secret. Replaces the certificate authority by the API
    /// server's current one.
    pub async fn renew_volume(&self, volume: &mut Volume, namespace: &str, name: &str, secret: &str) -> Result<()> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        volume.replace(&self.volume_contents(namespace, &token))
    }

    fn volume_contents<'a>(&'a self, namespace: &'a str, token: &'a str) -> Contents<'a> {
        Contents { authority: &self.access.authority, namespace, token }
    }

    /// The API server's address (127.0.0.1) and port.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.api_port.number()).into()
    }

    /// Makes a client without credentials of its own. The credentials in its requests are sent unchanged.
    pub fn anonymous(&self) -> Result<Client> {
        let mut config = self.admin.clone();
        config.auth_info = kube::config::AuthInfo::default();
        Client::try_from(config).context("failed to make a client for the API server")
    }

    /// Starts the real kube-proxy for a node.
    ///
    /// It writes nftables rules in the network namespace of the calling thread, from which it must reach the API server. So the
    /// thread and the control plane must be in the network namespace of a simulated node, not in that of the host.
    pub fn start_proxy(&self, node: &str) -> Result<Proxy> {
        Proxy::start(self.home.path(), &self.admin_kubeconfig, node)
    }

    /// Stops the API server with SIGSTOP, as if its machine hung: connections stay open, and requests get no response.
    pub fn freeze(&mut self) -> Result<()> {
        self.api_server.signal(Signal::SIGSTOP)
    }

    /// Continues the API server after [`Self::freeze`].
    pub fn thaw(&mut self) -> Result<()> {
        self.api_server.signal(Signal::SIGCONT)
    }

    /// Kills the API server. Its connections end, and new connections are refused until a restart.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.kill()
    }

    /// Restarts the API server on the same port with the same data, and returns when it is ready.
    ///
    /// Tokens stay valid. The API server's cache of changes starts empty: a watch that missed changes gets "410 Gone" and must
    /// list again.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        self.respawn_api_server()?;
        self.api_server.ready(async || access::check(&self.admin, "readyz").await).await
    }

    /// Restarts the API server with these additional flags instead of the earlier ones. Returns when it serves `/version`.
    ///
    /// It does not wait for `/readyz`, because some flags switch off parts without which the API server never becomes ready.
    pub async fn restart_api_server_with(&mut self, flags: &[&str]) -> Result<()> {
        self.flags = flags.iter().copied().map(str::to_owned).collect();
        self.respawn_api_server()?;
        self.api_server.ready(async || access::check(&self.admin, "version").await).await
    }

    /// Restarts the API server with a certificate of a new authority. Tokens stay valid.
    ///
    /// Clients that trust only the old authority can no longer connect: the controller manager, and users of earlier kubeconfig
    /// files. [`Self::admin`] trusts the new authority.
    pub async fn renew_certificate(&mut self) -> Result<()> {
        certificates::forget(&Files(self.home.path()))?;
        self.respawn_api_server()?;
        let (port, token, files) = (self.api_port.number(), self.admin_token.clone(), Files(self.home.path()));
        let connect = async || {
            let access = Access::new(port, &files.certificate())?;
            let admin = access.config("admin", &token).await?;
            access::check(&admin, "readyz").await?;
            Ok((access, admin))
        };
        (self.access, self.admin) = self.api_server.ready(connect).await?;
        Ok(())
    }

    fn respawn_api_server(&mut self) -> Result<()> {
        self.kill_api_server()?;
        self.api_server = spawn_api_server(&self.binaries, &Files(self.home.path()), &self.api_port, &self.flags)?;
        Ok(())
    }
}

/// A file with a token, and a kubeconfig file that refers to it.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// The path of the kubeconfig file.
    pub kubeconfig: PathBuf,
}

impl TokenFile {
    /// Reads the current token from the file.
    pub fn token(&self) -> Result<String> {
        std::fs::read_to_string(&self.path).with_context(|| format!("failed to read {}", self.path.display()))
    }
}

fn temporary_directory() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("portmap-control-plane-")
        .disable_cleanup(std::env::var_os(KEEP).is_some())
        .tempdir()
        .context("failed to create a temporary directory")
}

async fn start_etcd(binaries: &Binaries, files: &Files<'_>) -> Result<Component> {
    let mut etcd = Component::spawn("etcd", &binaries.etcd, &files.etcd(), files.0)?;
    let socket = files.etcd_socket();
    etcd.ready(async || Ok(UnixStream::connect(&socket).await?)).await?;
    Ok(etcd)
}

fn spawn_api_server(binaries: &Binaries, files: &Files<'_>, port: &Port, flags: &[String]) -> Result<Component> {
    let arguments = [files.api_server(port.number()), flags.to_vec()].concat();
    Component::spawn("kube-apiserver", &binaries.api_server, &arguments, files.0)
}

async fn start_controller_manager(binaries: &Binaries, files: &Files<'_>, port: &Port, kubeconfig: &Path) -> Result<Component> {
    let arguments = files.controller_manager(port.number(), kubeconfig);
    let mut process = Component::spawn("kube-controller-manager", &binaries.controller_manager, &arguments, files.0)?;
    let health = Access::new(port.number(), &files.certificate())?.config("nobody", "none").await?;
    process.ready(async || access::check(&health, "healthz").await).await?;
    Ok(process)
}
