//! Access to the API server: client configurations, kubeconfig files and tokens.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{GetParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, core};
use serde_json::{Value, json};

use super::TokenFile;

/// Lifetime of service accounts' tokens: four hours, longer than a test usually runs.
const TOKEN_SECONDS: i64 = 4 * 3600;

/// The URL of a server of the control plane, and the authority of its certificate.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) url: String,
    /// The certificate of the authority in PEM.
    pub(super) authority: String,
}

impl Access {
    /// The server on `port` of 127.0.0.1. `certificate` is a PEM file whose last certificate is that of the authority.
    pub(super) fn new(port: u16, certificate: &Path) -> Result<Self> {
        let chain = fs::read_to_string(certificate).with_context(|| format!("failed to read {}", certificate.display()))?;
        let authority =
            chain.rfind("-----BEGIN CERTIFICATE-----").context("the API server's certificate file has no certificate")?;
        Ok(Self { url: format!("https://127.0.0.1:{port}"), authority: chain[authority..].to_owned() })
    }

    /// The same server and authority, with another URL.
    pub(super) fn by(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// A self-contained kubeconfig. It is JSON, which every YAML parser reads.
    fn kubeconfig(&self, user: &str, token: &str) -> Value {
        let authority = ByteString(self.authority.clone().into_bytes());
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        })
    }

    /// Writes a kubeconfig into `directory` and returns its path, which depends on `user`.
    pub(super) fn write_kubeconfig(&self, directory: &Path, user: &str, token: &str) -> Result<PathBuf> {
        let path = directory.join(format!("kubeconfig-{}", user.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
        fs::write(&path, self.kubeconfig(user, token).to_string())
            .with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a kubeconfig that has the path of the token file instead of a token. Clients read the file again from time to
    /// time.
    pub(super) fn write_token_file_kubeconfig(&self, file: &TokenFile, user: &str) -> Result<()> {
        let mut kubeconfig = self.kubeconfig(user, "");
        kubeconfig["users"][0]["user"] = json!({"tokenFile": file.path});
        fs::write(&file.kubeconfig, kubeconfig.to_string())
            .with_context(|| format!("failed to write {}", file.kubeconfig.display()))
    }

    /// The configuration of a client with this token. Fails if the generated kubeconfig is invalid.
    pub(super) async fn config(&self, user: &str, token: &str) -> Result<Config> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig(user, token)).context("failed to parse the generated kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // The kube crate takes an HTTP proxy from the environment; loopback needs none.
        config.proxy_url = None;
        Ok(config)
    }
}

/// Sends a GET of `path` (one segment, such as `readyz`), and fails unless the response is a success.
pub(super) async fn check(config: &Config, path: &str) -> Result<()> {
    let client = Client::try_from(config.clone()).context("failed to make a client")?;
    let request = core::Request::new("").get(path, &GetParams::default())?;
    client.request_text(request).await.with_context(|| format!("failed to get {}{path}", config.cluster_url))?;
    Ok(())
}

/// Requests a token for a service account, as a kubelet does for a pod.
///
/// If `secret` is given, a Secret with this name is made, and the token is bound to it: deleting the Secret invalidates the
/// token.
pub(super) async fn service_account_token(client: Client, namespace: &str, name: &str, secret: Option<&str>) -> Result<String> {
    let bound_object_ref = match secret {
        Some(secret) => Some(make_secret(client.clone(), namespace, secret).await?),
        None => None,
    };
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), bound_object_ref, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let response = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("failed to request a token for the service account {namespace}/{name}"))?;
    response.status.and_then(|status| status.token).context("the API server's response to a TokenRequest has no token")
}

async fn make_secret(client: Client, namespace: &str, name: &str) -> Result<BoundObjectReference> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let secret = Secret { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Secret::default() };
    let created = secrets.create(&PostParams::default(), &secret).await;
    let uid = created.with_context(|| format!("failed to create the Secret {namespace}/{name}"))?.metadata.uid;
    Ok(BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: Some(name.to_owned()),
        uid,
    })
}

/// A random token of 128 bits. It must be secret, because other users of the machine can connect to its loopback addresses.
pub(super) fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("failed to read /dev/urandom")?;
    let mut token = String::new();
    for byte in bytes {
        write!(token, "{byte:02x}")?;
    }
    Ok(token)
}
