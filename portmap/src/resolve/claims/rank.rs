//! The order of claims on one frontend, and the owners of addresses.

use crate::model::Precedence;

/// How a Service came to a place. Of several claims the first of these wins, whatever the age of the Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The address is its ClusterIP. The API server gives each to one Service.
    ClusterIp,
    /// The address is an external IP, or a load balancer's address of a Service of that type.
    External,
    /// The address is in `status.loadBalancer` of a Service that is not of that type any more.
    LeftOver,
    /// A node port, which meets no other rank at its place.
    NodePort,
}

/// Whose addresses are no node addresses, although an interface of the node has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yielding {
    /// ClusterIPs.
    ToClusterIps,
    /// ClusterIPs, external IPs and load balancer addresses.
    ToServices,
}

/// A Service's claim on a place.
#[derive(Clone, Debug)]
pub struct Claim {
    /// How the Service asks for the frontend.
    pub rank: Rank,
    /// The Service, and its age.
    pub precedence: Precedence,
}

impl Claim {
    /// The sort key of claims on one frontend.
    pub fn key(&self) -> (Rank, &Precedence) {
        (self.rank, &self.precedence)
    }
}

/// Whether it is known who else has a ClusterIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// All Services of other proxies are known, and their changes are heard of.
    Known,
    /// They are not: an address may be another proxy's.
    #[default]
    Unknown,
}

/// Where the claim of a Service stands among those on a place. There may be as many as there are Services.
pub fn position(claims: &[Claim], claimant: &Precedence) -> Option<usize> {
    let ranks = [Rank::ClusterIp, Rank::External, Rank::LeftOver, Rank::NodePort];
    ranks.iter().find_map(|rank| claims.binary_search_by(|claim| claim.key().cmp(&(*rank, claimant))).ok())
}
