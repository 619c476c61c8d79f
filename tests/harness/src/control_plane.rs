//! A real Kubernetes control plane: etcd, the API server, and the controller that makes `EndpointSlices`.
//!
//! What a test asks of it, it answers as a cluster would: RBAC, field validation, watches, named target ports resolved pod by
//! pod. There is no kubelet: Nodes and Pods are objects that the test writes, status included ([`objects`]). The programs
//! are built from source the first time ([`binaries()`], minutes) and start in a few seconds; everything listens on
//! loopback, keeps its data in a temporary directory, and dies with the process that started it.

mod access;
mod binaries;
mod certificates;
pub mod detour;
mod flags;
pub mod gate;
pub mod load;
mod manifests;
pub mod objects;
mod port;
mod process;
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
use flags::Files;
use port::Port;
use process::Process;
use proxy::Proxy;
use volume::{Contents, Volume};

/// Keeps the directory of a control plane (logs, data, kubeconfigs) after it ended, for a look at what went wrong.
const KEEP: &str = "PORTMAP_KEEP_CONTROL_PLANE";

/// A running control plane of its own, stopped and removed when dropped.
///
/// With the environment variable `PORTMAP_KEEP_CONTROL_PLANE` set, its directory stays. One kept in a static is never dropped:
/// its programs die with the process, its directory stays too.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order: nobody then complains of a server that went away.
    _controller_manager: Process,
    api_server: Process,
    _etcd: Process,
    _controller_port: Port,
    api_port: Port,
    /// Flags of the API server beside the usual ones.
    flags: Vec<String>,
    access: Access,
    admin: Config,
    admin_token: String,
    admin_kubeconfig: PathBuf,
    binaries: Binaries,
    home: TempDir,
}

impl ControlPlane {
    /// Starts one, building its programs if need be, and returns when all of them are ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with further flags of the API server.
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
        // The server makes its certificate when it starts: until then there is nothing to trust.
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

    /// Where the API server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// A client that may do everything. A new one each time: a client does not outlive the runtime it was made in, and a
    /// control plane may serve tests with a runtime each.
    pub fn admin(&self) -> Result<Client> {
        Client::try_from(self.admin.clone()).context("failed to make a client for the API server")
    }

    /// The kubeconfig file of the administrator, for programs.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Writes a kubeconfig file, complete in itself, for the bearer of a token. It goes away with the control plane.
    pub fn kubeconfig(&self, user_name: &str, token: &str) -> Result<PathBuf> {
        self.access.write_kubeconfig(self.home.path(), user_name, token)
    }

    /// Obtains a token for a service account that exists, and writes a kubeconfig file with it.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = access::service_account_token(self.admin()?, namespace, name, None).await?;
        self.kubeconfig(&format!("system:serviceaccount:{namespace}:{name}"), &token)
    }

    /// As [`Self::service_account_kubeconfig`], for whoever goes to the API server another way: by a [`gate::Gate`] or a
    /// [`detour::Detour`].
    pub async fn service_account_kubeconfig_by(&self, url: &str, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = access::service_account_token(self.admin()?, namespace, name, None).await?;
        let port = url.rsplit(':').next().unwrap_or_default();
        self.access.by(url).write_kubeconfig(self.home.path(), &format!("{name}-by-{port}"), &token)
    }

    /// Writes a kubeconfig for a service account that reads its token from a file, as a pod does, and that file. The token ends
    /// with the Secret of its name, which is made here.
    pub async fn token_file_kubeconfig(&self, url: &str, namespace: &str, name: &str) -> Result<TokenFile> {
        let file =
            TokenFile { path: self.home.path().join("token"), kubeconfig: self.home.path().join("kubeconfig-token-file") };
        self.access.by(url).write_token_file_kubeconfig(&file, name)?;
        self.renew_token(&file, namespace, name, "first").await?;
        Ok(file)
    }

    /// Puts another token into the file.
    pub async fn renew_token(&self, file: &TokenFile, namespace: &str, name: &str, secret: &str) -> Result<()> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        std::fs::write(&file.path, token).with_context(|| format!("failed to write {}", file.path.display()))
    }

    /// Makes the volume that a kubelet gives to the pods of a service account. Its token ends with the Secret of this name, which is
    /// made here.
    pub async fn service_account_volume(&self, namespace: &str, name: &str, secret: &str) -> Result<Volume> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        Volume::new(self.api_port.number(), &self.volume_contents(namespace, &token))
    }

    /// Puts another token into a volume, and the authority that the API server's certificate is of now.
    pub async fn renew_volume(&self, volume: &mut Volume, namespace: &str, name: &str, secret: &str) -> Result<()> {
        let token = access::service_account_token(self.admin()?, namespace, name, Some(secret)).await?;
        volume.replace(&self.volume_contents(namespace, &token))
    }

    fn volume_contents<'a>(&'a self, namespace: &'a str, token: &'a str) -> Contents<'a> {
        Contents { authority: &self.access.authority, namespace, token }
    }

    /// Where the API server listens.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.api_port.number()).into()
    }

    /// A client that says of itself what its requests say, and nothing else.
    pub fn anonymous(&self) -> Result<Client> {
        let mut config = self.admin.clone();
        config.auth_info = kube::config::AuthInfo::default();
        Client::try_from(config).context("failed to make a client for the API server")
    }

    /// Starts the real kube-proxy for a node, beside the API server.
    ///
    /// It programs the packet filter of the network namespace that the control plane was started in, which has to be one of its
    /// own.
    pub fn start_proxy(&self, node: &str) -> Result<Proxy> {
        Proxy::start(self.home.path(), &self.admin_kubeconfig, node)
    }

    /// Stops the API server in its tracks: connections stay open and nothing answers, as when its machine hangs.
    pub fn freeze(&mut self) -> Result<()> {
        self.api_server.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen API server go on.
    pub fn thaw(&mut self) -> Result<()> {
        self.api_server.signal(Signal::SIGCONT)
    }

    /// Kills the API server: connections break and new ones are refused.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.kill()
    }

    /// Starts the API server again, on the same port and the same data, and returns when it is ready. Tokens stay valid; the
    /// history of changes is gone, so that a watch that missed any is told "410 Gone" and has to list anew.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        self.respawn_api_server()?;
        self.api_server.ready(async || access::check(&self.admin, "readyz").await).await
    }

    /// Starts the API server again with these further flags, and returns when it answers: without some of its parts it is never
    /// ready.
    pub async fn restart_api_server_with(&mut self, flags: &[&str]) -> Result<()> {
        self.flags = flags.iter().copied().map(str::to_owned).collect();
        self.respawn_api_server()?;
        self.api_server.ready(async || access::check(&self.admin, "version").await).await
    }

    /// Starts the API server again with a certificate of another authority. Who trusts the old one alone does not get in any
    /// more, the controller manager included; tokens stay valid.
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

/// A token that is read from a file, and the kubeconfig that says so.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// For programs.
    pub kubeconfig: PathBuf,
}

impl TokenFile {
    /// The token in it now.
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

async fn start_etcd(binaries: &Binaries, files: &Files<'_>) -> Result<Process> {
    let mut etcd = Process::spawn("etcd", &binaries.etcd, &files.etcd(), files.0)?;
    let socket = files.etcd_socket();
    etcd.ready(async || Ok(UnixStream::connect(&socket).await?)).await?;
    Ok(etcd)
}

fn spawn_api_server(binaries: &Binaries, files: &Files<'_>, port: &Port, flags: &[String]) -> Result<Process> {
    let arguments = [files.api_server(port.number()), flags.to_vec()].concat();
    Process::spawn("kube-apiserver", &binaries.api_server, &arguments, files.0)
}

async fn start_controller_manager(binaries: &Binaries, files: &Files<'_>, port: &Port, kubeconfig: &Path) -> Result<Process> {
    let arguments = files.controller_manager(port.number(), kubeconfig);
    let mut process = Process::spawn("kube-controller-manager", &binaries.controller_manager, &arguments, files.0)?;
    let health = Access::new(port.number(), &files.certificate())?.config("nobody", "none").await?;
    process.ready(async || access::check(&health, "healthz").await).await?;
    Ok(process)
}
