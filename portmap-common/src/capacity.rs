//! Default capacities of the maps, in entries. The programs' map definitions use them; the agent's options may replace most of
//! them when the maps are created.

/// Number of frontends of both address families together. `SERVICES`, `COUNTERS`, `SOURCE_RANGES_V4` and `SOURCE_RANGES_V6`
/// have this number of entries each.
pub const SERVICES: u32 = 65_536;

/// Number of frontends that the first set of maps has room for. The agent makes a larger set when it needs one, with up to
/// [`SERVICES`] or the option's number.
pub const FIRST_SERVICES: u32 = 8_192;

/// Entries of each of `FRONTENDS_V4`, `FRONTENDS_V6` and `NAMES`.
pub const FRONTENDS: u32 = frontends(SERVICES);

/// Slots of each of `BACKENDS_V4` and `BACKENDS_V6`.
pub const BACKENDS: u32 = 524_288;

/// Slots of each of `BACKENDS_V4` and `BACKENDS_V6` in the first set of maps, as [`FIRST_SERVICES`].
pub const FIRST_BACKENDS: u32 = 32_768;

/// Entries of each of `ENDPOINTS_V4`, `ENDPOINTS_V6` and `MEMBERS`.
pub const ITEMS: u32 = items(BACKENDS);

/// Entries of `AFFINITY`: one per client and service port.
pub const AFFINITY_CLIENTS: u32 = 32_768;

/// Entries of `AFFINITY_SHARES`: one per cgroup. No option replaces it.
pub const AFFINITY_SHARES: u32 = 4_096;

/// Entries of `NAMESPACES`: one per network namespace. No option replaces it.
pub const NAMESPACES: u32 = 4_096;

/// Entries of each of `SOURCES_V4` and `SOURCES_V6`: one per network namespace and load balancer address. No option replaces
/// it.
pub const SOURCES: u32 = 16_384;

/// Entries of `DEVICES`: one per network device. No option replaces it.
pub const DEVICES: u32 = 4_096;

/// Entries of each of `FLOWS_V4` and `FLOWS_V6`: two per flow, and four if the client is hidden from its backend.
pub const FLOWS: u32 = 65_536;

/// Entries of each of `OPENING_V4` and `OPENING_V6`. No option replaces it.
pub const OPENING: u32 = 16_384;

/// Entries of each of `FRAGMENTS_V4` and `FRAGMENTS_V6`. No option replaces it.
pub const FRAGMENTS: u32 = 8_192;

/// Size of `TRACE` in bytes: about 8,700 events. No option replaces it.
pub const TRACE: u32 = 1_048_576;

/// Entries of each of `FRONTENDS_V4` and `FRONTENDS_V6`, for this number of entries of `SERVICES`. Twice as many, because
/// there is one entry per frontend, and one per ClusterIP as a whole.
///
/// `NAMES` has the same size, because a service port that gets another id has two names for a moment.
pub const fn frontends(services: u32) -> u32 {
    services.saturating_mul(2)
}

/// Entries of each of `ENDPOINTS_V4`, `ENDPOINTS_V6` and `MEMBERS`, for this number of slots of `BACKENDS`: a quarter of it,
/// but at least 1,024. Only the endpoints of UDP service ports, and of service ports with session affinity, have such
/// entries.
pub const fn items(backends: u32) -> u32 {
    let quarter = backends / 4;
    if quarter < 1_024 { 1_024 } else { quarter }
}
