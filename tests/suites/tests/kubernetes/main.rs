//! The agent in a real cluster: the API server, its access control and its EndpointSlice controller are Kubernetes' own, and what
//! they say ends as connections that do or do not reach a pod.
//!
//! There is no kubelet. Pods are network namespaces with a server in them, whose addresses and readiness the tests report as a
//! kubelet would; the agent is a process beside the API server, attached to nothing but the cgroup of the tests' own client.
//! What it may do is decided by the service account and the role of `deploy/portmap.yaml`, applied as it is shipped.
//!
//! Needs: kernel, control plane.

mod agent;
mod answer;
mod api_errors;
mod cidrs;
mod cluster;
mod credentials;
mod endpoints;
mod health_check;
mod labels;
mod manifest;
mod outages;
mod own_connections;
mod permissions;
mod relist;
mod services;
mod silence;
mod tables;
mod topology;
mod traffic;
mod unreachable;
mod wait;
