//! The agent with a real control plane: the API server, its access control and the EndpointSlice controller are those of
//! Kubernetes.
//!
//! There is no kubelet. Pods are network namespaces with a server. The tests report the addresses and readiness of pods as a
//! kubelet does. The agent is a process beside the API server, or on the node of a world ([`own_connections`]). It is attached
//! only to the cgroup of the tests' own clients. Usually it has the service account and the role of `deploy/portmap.yaml`.
//!
//! Needs: root and BPF, control plane.

mod agent;
mod answer;
mod api_errors;
mod cidrs;
mod cluster;
mod commands;
mod credentials;
mod endpoints;
mod events;
mod health_check;
mod labels;
mod lint;
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
