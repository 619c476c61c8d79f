//! The order of claims on one frontend, the precedence between node addresses and Service addresses, and the knowledge of other
//! proxies' Services.

use crate::model::Precedence;

/// The kind of a claim on a frontend. The claim with the first rank wins; the age of the Services decides only within a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The address is the ClusterIP of the Service. The API server gives each ClusterIP to one Service.
    ClusterIp,
    /// The address is an external IP, or a load balancer address of a Service of type `LoadBalancer`.
    External,
    /// The address is in `status.loadBalancer` of a Service that is no longer of type `LoadBalancer`.
    LeftOver,
    /// The frontend is a node port. All claims on a node port have this rank.
    NodePort,
}

/// The kinds of Service addresses that take precedence over a node address. If a Service has the same address as one of these
/// kinds, the node address serves no node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielding {
    /// ClusterIPs take precedence.
    ToClusterIps,
    /// ClusterIPs, external IPs and load balancer addresses take precedence.
    ToServices,
}

/// The claim of a Service on a frontend.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The kind of the claim, which is compared first.
    pub rank: Rank,
    /// The claiming Service and its creation time, which are compared within a rank.
    pub precedence: Precedence,
}

impl Claim {
    /// The sort key of claims on one frontend.
    pub fn key(&self) -> (Rank, &Precedence) {
        (self.rank, &self.precedence)
    }
}

/// Whether the ClusterIPs of other proxies' Services are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// All Services of other proxies are known, and the watch of their changes works.
    Known,
    /// Some Services of other proxies may be unknown, so that an address without an owner may be the ClusterIP of such a
    /// Service.
    #[default]
    Unknown,
}

/// The index of a Service's claim among the sorted claims on a frontend. A binary search, because all Services of a cluster may
/// claim the same frontend.
pub fn position(claims: &[Claim], claimant: &Precedence) -> Option<usize> {
    let ranks = [Rank::ClusterIp, Rank::External, Rank::LeftOver, Rank::NodePort];
    ranks.iter().find_map(|rank| claims.binary_search_by(|claim| claim.key().cmp(&(*rank, claimant))).ok())
}
