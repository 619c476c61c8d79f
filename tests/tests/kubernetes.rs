//! The agent in a real cluster: the API server, its access control and its EndpointSlice controller are Kubernetes' own, and what
//! they say ends as connections that do or do not reach a pod.
//!
//! There is no kubelet. Pods are network namespaces with a server in them, whose addresses and readiness the tests report as a
//! kubelet would; the agent is a process beside the API server, attached to nothing but the cgroup of the tests' own client.
//! What it may do is decided by the service account and the role of `deploy/portmap.yaml`, applied as it is shipped.
//!
//! Needs: kernel, control plane.

#[path = "kubernetes/agent.rs"]
mod agent;
#[path = "kubernetes/answer.rs"]
mod answer;
#[path = "kubernetes/cidrs.rs"]
mod cidrs;
#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/credentials.rs"]
mod credentials;
#[path = "kubernetes/endpoints.rs"]
mod endpoints;
#[path = "kubernetes/health_check.rs"]
mod health_check;
#[path = "kubernetes/labels.rs"]
mod labels;
#[path = "kubernetes/manifest.rs"]
mod manifest;
#[path = "kubernetes/outages.rs"]
mod outages;
#[path = "kubernetes/own_connections.rs"]
mod own_connections;
#[path = "kubernetes/permissions.rs"]
mod permissions;
#[path = "kubernetes/relist.rs"]
mod relist;
#[path = "kubernetes/services.rs"]
mod services;
#[path = "kubernetes/silence.rs"]
mod silence;
#[path = "kubernetes/tables.rs"]
mod tables;
#[path = "kubernetes/topology.rs"]
mod topology;
#[path = "kubernetes/traffic.rs"]
mod traffic;
#[path = "kubernetes/trouble.rs"]
mod trouble;
#[path = "kubernetes/unreachable.rs"]
mod unreachable;
#[path = "kubernetes/wait.rs"]
mod wait;
